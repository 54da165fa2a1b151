"""What a worker may count on, told by example. The laws behind it are in `test_ledger_laws.py`."""

import pytest

from shared.errors import StoreUnavailable
from shared.job import Delivery, Options, Stage, Status
from shared.job_store import JobStore, NewJob
from shared.ledger import (
    DELIVER_QUEUE,
    FINISH,
    LONG_MEDIA_BYTES,
    LONG_PART_S,
    LONG_PREPARE_QUEUE,
    PREPARE,
    PREPARE_QUEUE,
    Claim,
    ClaimOutcome,
    Fenced,
    Hint,
    Ledger,
    part_step,
)
from shared.models import long_queue_of, queue_of
from shared.redis_store import RedisStore
from shared.transcript import WindowResult
from tests.support.jobs import NOW, lapse_hint, lapse_lease, media, submit

pytestmark = pytest.mark.redis

PART_QUEUE = queue_of("m")
DAY_S = 86_400.0


def window(index: int) -> WindowResult:
    return WindowResult(index, index * 10.0, index * 10.0 + 5.0, (), inference_s=0.5)


def claimed(ledger: Ledger, step: str, job_id: str = "job_1") -> Claim:
    claim = ledger.claim(job_id, step, "worker")
    assert claim.outcome is ClaimOutcome.CLAIMED
    return claim


def completed(ledger: Ledger, claim: Claim, webhook: bytes | None = None) -> None:
    ledger.end(claim, Status.COMPLETED, {}, webhook=webhook, retention_s=DAY_S)


def test_a_job_from_its_record_to_its_webhook(ledger: Ledger, jobs: JobStore, store: RedisStore) -> None:
    submit(store)
    assert ledger.queues() == (PREPARE_QUEUE,)
    assert ledger.dispatch(PREPARE_QUEUE, 4, hint_s=20) == (Hint("job_1", PREPARE),)

    prepare = claimed(ledger, PREPARE)
    job = jobs.get("job_1")
    assert (job.status, job.stage, job.attempt) == (Status.RUNNING, Stage.DECODING, 1)

    ledger.offer_part(prepare, 0, "m", '{"layout":[]}', 15.0)
    ledger.prepared(prepare, 1, {"decode_s": 0.25, "warnings": ["clipping"]})
    job = jobs.get("job_1")
    assert (job.stage, job.total_s, job.parts) == (Stage.TRANSCRIBING, 15.0, 1)
    assert (job.timings.decode_s, job.warnings) == (0.25, ("clipping",))

    (hint,) = ledger.dispatch(PART_QUEUE, 4, hint_s=20)
    part = claimed(ledger, hint.step)
    assert part.body == '{"layout":[]}'
    ledger.checkpoint(part, window(0), 5.0)
    ledger.checkpoint(part, window(1), 10.0)
    ledger.finish_part(part)
    job = jobs.get("job_1")
    assert (job.stage, job.done_s, job.timings.inference_s) == (Stage.FINISHING, 15.0, 1.0)

    (hint,) = ledger.dispatch(PREPARE_QUEUE, 4, hint_s=20)
    completed(ledger, claimed(ledger, hint.step), webhook=b'{"type":"job.completed"}')
    job = jobs.get("job_1")
    assert (job.status, job.stage, job.webhook_status) == (Status.COMPLETED, None, "pending")
    assert job.finished_at is not None
    assert job.expires_at is not None
    assert (job.expires_at - job.finished_at).total_seconds() == DAY_S

    (hint,) = ledger.dispatch(DELIVER_QUEUE, 4, hint_s=20)
    delivery = claimed(ledger, hint.step)
    assert delivery.body == '{"type":"job.completed"}'
    ledger.delivered(delivery, Delivery(1, NOW, 204, 0.1), "delivered")
    assert jobs.get("job_1").webhook_status == "delivered"
    assert [ledger.dispatch(queue, 4, hint_s=20) for queue in ledger.queues()] == [(), (), ()]


def test_windows_a_dead_worker_finished_are_kept_for_the_next(
    ledger: Ledger, jobs: JobStore, store: RedisStore
) -> None:
    submit(store)
    ledger.offer_part(claimed(ledger, PREPARE), 0, "m", "{}", 10.0)
    dead = claimed(ledger, part_step(0))
    ledger.checkpoint(dead, window(0), 5.0)
    lapse_lease(store, dead)

    heir = claimed(ledger, part_step(0))

    assert ledger.kept_windows(heir) == (window(0),)
    assert (heir.attempt, heir.claims) == (2, 2)
    assert jobs.get("job_1").attempt == 2


def test_a_window_counts_once_however_often_it_is_done(
    ledger: Ledger, jobs: JobStore, store: RedisStore
) -> None:
    submit(store)
    ledger.offer_part(claimed(ledger, PREPARE), 0, "m", "{}", 10.0)
    part = claimed(ledger, part_step(0))

    ledger.checkpoint(part, window(0), 5.0)
    ledger.checkpoint(part, WindowResult(0, 0.0, 4.0, ()), 4.0)

    assert jobs.get("job_1").done_s == 5.0
    assert ledger.kept_windows(part) == (window(0),)


def test_a_worker_that_comes_late_is_fenced_whatever_it_tries(ledger: Ledger, store: RedisStore) -> None:
    submit(store)
    prepare = claimed(ledger, PREPARE)
    ledger.offer_part(prepare, 0, "m", "{}", 10.0)
    late = claimed(ledger, part_step(0))
    for claim in (late, prepare):
        lapse_lease(store, claim)
        claimed(ledger, claim.step)

    for act in (
        lambda: ledger.beat(late),
        lambda: ledger.note(late, {"stage": "finishing"}),
        lambda: ledger.checkpoint(late, window(0), 5.0),
        lambda: ledger.finish_part(late),
        lambda: ledger.release(late),
        lambda: ledger.try_again(late, 0),
        lambda: ledger.offer_part(prepare, 1, "m", "{}", 10.0),
        lambda: ledger.prepared(prepare, 1, {}),
        lambda: completed(ledger, late),
    ):
        with pytest.raises(Fenced, match="fenced"):
            act()


def test_a_step_that_was_begun_too_often_is_exhausted(ledger: Ledger, store: RedisStore) -> None:
    submit(store)
    for _ in range(2):
        claim = ledger.claim("job_1", PREPARE, "worker", max_claims=2)
        assert claim.outcome is ClaimOutcome.CLAIMED
        lapse_lease(store, claim)

    last = ledger.claim("job_1", PREPARE, "worker", max_claims=2)

    assert last.outcome is ClaimOutcome.EXHAUSTED
    assert last.is_held
    ledger.end(last, Status.FAILED, {}, webhook=None, retention_s=DAY_S)


def test_a_step_that_workers_may_have_died_of_is_begun_by_one_that_does_nothing_else(
    ledger: Ledger, store: RedisStore
) -> None:
    submit(store)
    for _ in range(2):
        lapse_lease(store, ledger.claim("job_1", PREPARE, "worker", max_claims_beside=2))

    beside = ledger.claim("job_1", PREPARE, "worker", max_claims_beside=2)

    assert beside.outcome is ClaimOutcome.SUSPECT
    assert not beside.is_held
    # It was not begun, so it counts for nothing.
    assert ledger.claim("job_1", PREPARE, "worker").claims == 3


def test_handing_back_does_not_count_and_failing_does(
    ledger: Ledger, jobs: JobStore, store: RedisStore
) -> None:
    submit(store)

    ledger.release(claimed(ledger, PREPARE))
    released = claimed(ledger, PREPARE)
    assert (released.attempt, released.claims, jobs.get("job_1").attempt) == (2, 1, 1)

    ledger.try_again(released, 0)
    failed = claimed(ledger, PREPARE)
    assert (failed.attempt, failed.claims, jobs.get("job_1").attempt) == (3, 2, 2)


def test_the_file_is_assembled_when_it_is_cut_and_all_of_its_parts_are_done(
    ledger: Ledger, store: RedisStore
) -> None:
    submit(store)
    prepare = claimed(ledger, PREPARE)
    for number in range(2):
        ledger.offer_part(prepare, number, "m", "{}", 10.0)
    first, second = (claimed(ledger, part_step(number)) for number in range(2))

    ledger.finish_part(first)
    assert ledger.claim("job_1", FINISH, "worker").outcome is ClaimOutcome.GONE
    ledger.finish_part(second)
    assert ledger.claim("job_1", FINISH, "worker").outcome is ClaimOutcome.GONE
    ledger.prepared(prepare, 2, {})
    claimed(ledger, FINISH)


def test_a_file_without_speech_has_no_parts_and_is_assembled_at_once(
    ledger: Ledger, jobs: JobStore, store: RedisStore
) -> None:
    submit(store)

    ledger.prepared(claimed(ledger, PREPARE), 0, {})

    completed(ledger, claimed(ledger, FINISH))
    job = jobs.get("job_1")
    assert (job.status, job.total_s, job.parts) == (Status.COMPLETED, 0.0, 0)


def test_a_file_is_not_cut_as_long_as_redis_does_not_know_all_of_its_parts(
    ledger: Ledger, jobs: JobStore, store: RedisStore
) -> None:
    """A server that is killed may have acknowledged what it never wrote."""
    submit(store)
    prepare = claimed(ledger, PREPARE)

    with pytest.raises(StoreUnavailable):
        ledger.prepared(prepare, 1, {})

    ledger.offer_part(prepare, 0, "m", "{}", 10.0)
    ledger.prepared(prepare, 1, {})
    assert jobs.get("job_1").parts == 1


def test_only_failures_count_against_what_may_fail(ledger: Ledger, store: RedisStore) -> None:
    submit(store)
    lapse_lease(store, claimed(ledger, PREPARE))
    ledger.release(claimed(ledger, PREPARE))
    ledger.try_again(claimed(ledger, PREPARE), 0)

    claim = claimed(ledger, PREPARE)

    assert (claim.failures, claim.claims) == (1, 3)


def test_a_part_offered_again_stays_as_it_is(ledger: Ledger, jobs: JobStore, store: RedisStore) -> None:
    submit(store)
    first = claimed(ledger, PREPARE)
    ledger.offer_part(first, 0, "m", "{}", 10.0)
    ledger.finish_part(claimed(ledger, part_step(0)))
    lapse_lease(store, first)

    again = claimed(ledger, PREPARE)
    ledger.offer_part(again, 0, "m", "{}", 10.0)

    assert ledger.claim("job_1", part_step(0), "worker").outcome is ClaimOutcome.DONE
    job = jobs.get("job_1")
    assert (job.parts, job.total_s) == (1, 10.0)


def test_who_cancels_first_wins(ledger: Ledger, jobs: JobStore, store: RedisStore) -> None:
    submit(store)
    ledger.prepared(claimed(ledger, PREPARE), 0, {})
    finish = claimed(ledger, FINISH)

    assert ledger.cancel("job_1", webhook=None, retention_s=DAY_S)

    with pytest.raises(Fenced, match="ended"):
        completed(ledger, finish)
    assert jobs.get("job_1").status is Status.CANCELED
    assert ledger.claim("job_1", FINISH, "worker").outcome is ClaimOutcome.ENDED


def test_who_ends_first_wins(ledger: Ledger, jobs: JobStore, store: RedisStore) -> None:
    submit(store)
    ledger.prepared(claimed(ledger, PREPARE), 0, {})
    completed(ledger, claimed(ledger, FINISH), webhook=b'{"type":"job.completed"}')

    assert not ledger.cancel("job_1", webhook=b'{"type":"job.canceled"}', retention_s=DAY_S)

    assert jobs.get("job_1").status is Status.COMPLETED
    assert claimed(ledger, "deliver-0").body == '{"type":"job.completed"}'


def test_an_ended_job_s_waiting_steps_are_not_sent(ledger: Ledger, store: RedisStore) -> None:
    submit(store)
    ledger.offer_part(claimed(ledger, PREPARE), 0, "m", "{}", 10.0)

    ledger.cancel("job_1", webhook=None, retention_s=DAY_S)

    assert ledger.dispatch(PART_QUEUE, 4, hint_s=20) == ()
    assert ledger.sweep(PREPARE_QUEUE) == (0, 0)


def test_a_deleted_job_is_gone_for_its_worker(ledger: Ledger, jobs: JobStore, store: RedisStore) -> None:
    submit(store)
    claim = claimed(ledger, PREPARE)

    jobs.delete("job_1")

    with pytest.raises(Fenced, match="gone"):
        ledger.beat(claim)
    assert ledger.claim("job_1", PREPARE, "worker").outcome is ClaimOutcome.GONE


def test_steps_are_sent_in_the_order_of_their_coming_the_urgent_ones_first(
    ledger: Ledger, store: RedisStore
) -> None:
    for job_id, priority in (("job_1", 0), ("job_2", 0), ("job_3", 5), ("job_4", -5)):
        submit(store, job_id, priority=priority)

    hints = ledger.dispatch(PREPARE_QUEUE, 10, hint_s=20)

    assert [hint.job_id for hint in hints] == ["job_3", "job_1", "job_2", "job_4"]


def test_no_more_is_sent_than_workers_can_hold(ledger: Ledger, store: RedisStore) -> None:
    for number in range(1, 5):
        submit(store, f"job_{number}")

    assert len(ledger.dispatch(PREPARE_QUEUE, 2, hint_s=20)) == 2
    assert ledger.dispatch(PREPARE_QUEUE, 2, hint_s=20) == ()
    ledger.prepared(claimed(ledger, PREPARE, "job_1"), 0, {})
    assert len(ledger.dispatch(PREPARE_QUEUE, 2, hint_s=20)) == 1
    assert ledger.dispatch(PREPARE_QUEUE, 0, hint_s=20) == ()


def test_a_hint_that_nobody_took_is_sent_again(ledger: Ledger, store: RedisStore) -> None:
    submit(store)
    (hint,) = ledger.dispatch(PREPARE_QUEUE, 4, hint_s=20)
    assert ledger.sweep(PREPARE_QUEUE) == (0, 0)

    lapse_hint(store, PREPARE_QUEUE, hint)

    assert ledger.sweep(PREPARE_QUEUE) == (0, 1)
    assert ledger.dispatch(PREPARE_QUEUE, 4, hint_s=20) == (hint,)


def test_a_hint_that_came_twice_does_no_harm(ledger: Ledger, store: RedisStore) -> None:
    submit(store)
    first = claimed(ledger, PREPARE)

    assert ledger.claim("job_1", PREPARE, "other").outcome is ClaimOutcome.TAKEN
    ledger.beat(first)
    ledger.prepared(first, 0, {})
    assert ledger.claim("job_1", PREPARE, "other").outcome is ClaimOutcome.DONE


def test_a_lapsed_lease_is_put_back_once(ledger: Ledger, store: RedisStore) -> None:
    submit(store)
    lapse_lease(store, claimed(ledger, PREPARE))

    assert ledger.sweep(PREPARE_QUEUE) == (1, 0)
    assert ledger.sweep(PREPARE_QUEUE) == (0, 0)
    assert ledger.dispatch(PREPARE_QUEUE, 4, hint_s=20) == (Hint("job_1", PREPARE),)


def test_a_beat_keeps_the_lease(ledger: Ledger, store: RedisStore) -> None:
    submit(store)
    claim = claimed(ledger, PREPARE)
    lapse_lease(store, claim)

    ledger.beat(claim)

    assert ledger.sweep(PREPARE_QUEUE) == (0, 0)
    assert ledger.claim("job_1", PREPARE, "other").outcome is ClaimOutcome.TAKEN


def test_a_webhook_put_off_is_not_sent_before_its_time(
    ledger: Ledger, jobs: JobStore, store: RedisStore
) -> None:
    submit(store)
    ledger.cancel("job_1", webhook=b"{}", retention_s=DAY_S)
    claim = claimed(ledger, "deliver-0")
    assert ledger.tries(claim) == 0

    ledger.redeliver(claim, Delivery(1, NOW, 500, 0.1), delay_s=60)

    assert ledger.dispatch(DELIVER_QUEUE, 4, hint_s=20) == ()
    store.client.zincrby(store.key("later", DELIVER_QUEUE), -60_000, "job_1/deliver-0")
    assert ledger.dispatch(DELIVER_QUEUE, 4, hint_s=20) == (Hint("job_1", "deliver-0"),)
    assert ledger.tries(claimed(ledger, "deliver-0")) == 1


def test_a_step_put_off_is_not_sent_before_its_time(ledger: Ledger, store: RedisStore) -> None:
    submit(store, priority=10)

    ledger.try_again(claimed(ledger, PREPARE), delay_s=60)

    assert ledger.dispatch(PREPARE_QUEUE, 4, hint_s=20) == ()
    store.client.zincrby(store.key("later", PREPARE_QUEUE), -60_000, "job_1/prepare")
    assert ledger.dispatch(PREPARE_QUEUE, 4, hint_s=20) == (Hint("job_1", PREPARE),)


def test_long_work_has_lanes_of_its_own(store: RedisStore, ledger: Ledger) -> None:
    jobs = JobStore(store)
    sizes = {"job_short": LONG_MEDIA_BYTES, "job_long": LONG_MEDIA_BYTES + 1}
    for job_id, size_bytes in sizes.items():
        jobs.create(NewJob(job_id, "default", Options(model="m"), media(size_bytes)))
    assert ledger.dispatch(PREPARE_QUEUE, 9, hint_s=20) == (Hint("job_short", PREPARE),)
    assert ledger.dispatch(LONG_PREPARE_QUEUE, 9, hint_s=20) == (Hint("job_long", PREPARE),)

    prepare = ledger.claim("job_long", PREPARE, "w-1")
    ledger.offer_part(prepare, 0, "m", "{}", LONG_PART_S + 1)
    ledger.offer_part(prepare, 1, "m", "{}", LONG_PART_S)
    assert ledger.dispatch(long_queue_of("m"), 9, hint_s=20) == (Hint("job_long", "part-0"),)
    assert ledger.dispatch(queue_of("m"), 9, hint_s=20) == (Hint("job_long", "part-1"),)
