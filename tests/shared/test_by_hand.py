"""What an operator does to the ledger, told by example: steps taken back, queues paused, workers drained."""

import pytest

from shared.fleet import Fleet, WorkerState
from shared.job import Status
from shared.ledger import (
    ALL_QUEUES,
    PREPARE,
    PREPARE_QUEUE,
    ClaimOutcome,
    Fenced,
    Ledger,
    Requeued,
    RequeueOutcome,
    part_step,
)
from shared.models import long_queue_of, queue_of
from shared.redis_store import RedisStore
from shared.transcript import WindowResult
from tests.support.jobs import submit

pytestmark = pytest.mark.redis


def test_a_step_taken_back_goes_to_the_next_and_its_old_holder_is_refused(
    ledger: Ledger, store: RedisStore
) -> None:
    submit(store)
    old = ledger.claim("job_1", PREPARE, "frozen")

    assert ledger.requeue("job_1", PREPARE) == Requeued(RequeueOutcome.REQUEUED, PREPARE_QUEUE)

    assert [hint.step for hint in ledger.dispatch(PREPARE_QUEUE, 1, hint_s=20)] == [PREPARE]
    new = ledger.claim("job_1", PREPARE, "awake")
    assert (new.outcome, new.attempt, new.claims) == (ClaimOutcome.CLAIMED, 2, 2)
    with pytest.raises(Fenced):
        ledger.beat(old)
    ledger.beat(new)


def test_a_step_that_nobody_has_is_refused_to_its_old_holder_too(ledger: Ledger, store: RedisStore) -> None:
    submit(store)
    old = ledger.claim("job_1", PREPARE, "frozen")

    ledger.requeue("job_1", PREPARE)

    with pytest.raises(Fenced):
        ledger.offer_part(old, 0, "m", "{}", 10.0)


def test_windows_that_were_done_stay_done(ledger: Ledger, store: RedisStore) -> None:
    submit(store)
    prepare = ledger.claim("job_1", PREPARE, "w")
    ledger.offer_part(prepare, 0, "m", "{}", 10.0)
    part = ledger.claim("job_1", part_step(0), "w")
    ledger.checkpoint(part, WindowResult(0, 0.0, 5.0, ()), 5.0)

    ledger.requeue("job_1", part_step(0))

    kept = ledger.kept_windows(ledger.claim("job_1", part_step(0), "other"))
    assert [window.index for window in kept] == [0]


def test_only_what_the_worker_holds_is_taken_from_it(ledger: Ledger, store: RedisStore) -> None:
    submit(store)
    claim = ledger.claim("job_1", PREPARE, "w-1")

    assert ledger.requeue("job_1", PREPARE, "w-2").outcome is RequeueOutcome.OTHER

    ledger.beat(claim)


def test_what_was_put_off_need_not_wait(ledger: Ledger, store: RedisStore) -> None:
    submit(store)
    ledger.try_again(ledger.claim("job_1", PREPARE, "w"), delay_s=3600)
    assert ledger.dispatch(PREPARE_QUEUE, 1, hint_s=20) == ()

    assert ledger.requeue("job_1", PREPARE).outcome is RequeueOutcome.REQUEUED

    assert not store.client.exists(store.key("later", PREPARE_QUEUE))
    assert len(ledger.dispatch(PREPARE_QUEUE, 1, hint_s=20)) == 1


def test_a_step_that_is_nowhere_is_found_a_place(ledger: Ledger, store: RedisStore) -> None:
    """No way is known by which that comes about; it is what the command is for if there is one."""
    submit(store)
    ledger.dispatch(PREPARE_QUEUE, 1, hint_s=20)
    store.client.delete(store.key("busy", PREPARE_QUEUE))

    ledger.requeue("job_1", PREPARE)

    assert len(ledger.dispatch(PREPARE_QUEUE, 1, hint_s=20)) == 1


def test_a_step_in_line_stays_where_it_is(ledger: Ledger, store: RedisStore) -> None:
    submit(store)

    assert ledger.requeue("job_1", PREPARE).outcome is RequeueOutcome.WAITING

    assert len(ledger.dispatch(PREPARE_QUEUE, 9, hint_s=20)) == 1


def test_what_has_ended_is_not_begun_again(ledger: Ledger, store: RedisStore) -> None:
    submit(store)
    claim = ledger.claim("job_1", PREPARE, "w")
    ledger.end(claim, Status.FAILED, {}, webhook=None, retention_s=60)

    assert ledger.requeue("job_1", PREPARE).outcome is RequeueOutcome.ENDED
    assert ledger.requeue("job_1", "part-7").outcome is RequeueOutcome.GONE
    assert ledger.requeue("job_2", PREPARE).outcome is RequeueOutcome.GONE


def test_a_record_of_a_later_version_is_left_to_it(ledger: Ledger, store: RedisStore) -> None:
    submit(store)
    store.client.hset(store.key("job", "job_1"), "schema", 2)

    assert ledger.requeue("job_1", PREPARE).outcome is RequeueOutcome.NEWER


def test_a_paused_queue_gives_nothing_out_until_it_is_resumed(ledger: Ledger, store: RedisStore) -> None:
    submit(store)
    ledger.pause([PREPARE_QUEUE, "deliver"])

    assert ledger.dispatch(PREPARE_QUEUE, 1, hint_s=20) == ()

    ledger.resume([PREPARE_QUEUE])
    assert ledger.paused() == {"deliver"}
    assert len(ledger.dispatch(PREPARE_QUEUE, 1, hint_s=20)) == 1


def test_all_queues_are_paused_by_one_word(ledger: Ledger, store: RedisStore) -> None:
    submit(store)
    ledger.pause([ALL_QUEUES])

    assert ledger.dispatch(PREPARE_QUEUE, 1, hint_s=20) == ()


def test_a_part_makes_no_room_in_a_queue_that_is_paused(ledger: Ledger, store: RedisStore) -> None:
    """It would be handed back, and nobody could go on with it."""
    submit(store)
    submit(store, "job_2", tenant="kofi")
    long = long_queue_of("m")
    for job_id, parts in (("job_1", 3), ("job_2", 1)):
        prepare = ledger.claim(job_id, PREPARE, "w")
        for number in range(parts):
            ledger.offer_part(prepare, number, "m", "{}", 600.0)
    held = [ledger.claim("job_1", part_step(number), "w") for number in range(3)]

    ledger.pause([long])
    assert ledger.checkpoint(held[2], WindowResult(0, 0.0, 5.0, ()), 5.0)

    ledger.resume([long])
    assert not ledger.checkpoint(held[2], WindowResult(1, 5.0, 10.0, ()), 5.0)


def test_a_hint_that_came_to_the_wrong_door_is_sent_to_another(ledger: Ledger, store: RedisStore) -> None:
    submit(store)
    ledger.dispatch(PREPARE_QUEUE, 1, hint_s=20)

    assert ledger.return_hint("job_1", PREPARE) == PREPARE_QUEUE

    assert ledger.return_hint("job_1", PREPARE) is None
    assert len(ledger.dispatch(PREPARE_QUEUE, 1, hint_s=20)) == 1


def test_a_hint_of_what_somebody_holds_is_nothing_to_return(ledger: Ledger, store: RedisStore) -> None:
    submit(store)
    claim = ledger.claim("job_1", PREPARE, "w")

    assert ledger.return_hint("job_1", PREPARE) is None

    ledger.beat(claim)


def test_a_worker_hears_with_its_beat_that_it_is_to_drain(store: RedisStore) -> None:
    fleet = Fleet(store)
    one, other = (WorkerState(name, (), {queue_of("m"): 1}) for name in ("w-1", "w-2"))
    assert not fleet.beat(one).drains

    fleet.drain([one.name])

    assert [fleet.beat(who).drains for who in (one, one, other)] == [True, True, False]
    fleet.undrain([one.name])
    assert not fleet.beat(one).drains


def test_the_word_to_drain_ends_with_the_worker_and_lives_as_long_as_it_beats(store: RedisStore) -> None:
    fleet, flag = Fleet(store), store.key("drain", "w-1")
    worker = WorkerState("w-1", (), {})
    fleet.drain([worker.name])
    store.client.pexpire(flag, 1000)
    fleet.beat(worker)
    assert store.client.pttl(flag) > 60_000

    fleet.leave(worker.name)

    assert not store.client.exists(flag)
