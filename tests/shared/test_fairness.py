"""Who is next: one client's thousand jobs never starve another's one, and a long file leaves room."""

import pytest

from shared.job import Status
from shared.job_store import JobStore
from shared.ledger import PREPARE, PREPARE_QUEUE, Claim, Ledger, part_step
from shared.models import long_queue_of
from shared.redis_store import RedisStore
from shared.transcript import WindowResult
from tests.support.jobs import lapse_hint, submit

pytestmark = pytest.mark.redis

LONG = long_queue_of("m")
PART_S = 600.0


def order(ledger: Ledger, capacity: int, queue: str = PREPARE_QUEUE) -> list[str]:
    return [hint.job_id for hint in ledger.dispatch(queue, capacity, hint_s=60)]


def cut(ledger: Ledger, job_id: str, parts: int) -> None:
    prepare = ledger.claim(job_id, PREPARE, "w")
    for number in range(parts):
        ledger.offer_part(prepare, number, "m", "{}", PART_S)
    ledger.prepared(prepare, parts, {})


def window(index: int) -> WindowResult:
    return WindowResult(index, index * 10.0, index * 10.0 + 5.0, ())


def test_a_crowd_of_one_client_s_jobs_does_not_hold_up_another_s(ledger: Ledger, store: RedisStore) -> None:
    for number in range(100):
        submit(store, f"job_a{number:02}", tenant="ama", audio_s=10)
    for number in range(3):
        submit(store, f"job_k{number}", tenant="kofi", audio_s=10)

    places = [place for place, job_id in enumerate(order(ledger, 20)) if job_id.startswith("job_k")]

    assert places == [1, 3, 5]


def test_shares_are_of_audio_not_of_files(ledger: Ledger, store: RedisStore) -> None:
    for number in range(10):
        submit(store, f"job_a{number}", tenant="ama", audio_s=60)
    for number in range(60):
        submit(store, f"job_k{number:02}", tenant="kofi", audio_s=10)

    first = order(ledger, 21)

    assert sum(job_id.startswith("job_a") for job_id in first) == 3


def test_who_comes_back_has_saved_nothing_up_and_owes_what_it_had(ledger: Ledger, store: RedisStore) -> None:
    submit(store, "job_k0", tenant="kofi", audio_s=100)
    for number in range(30):
        submit(store, f"job_a{number:02}", tenant="ama", audio_s=10)
    assert order(ledger, 12).count("job_k0") == 1
    submit(store, "job_k1", tenant="kofi", audio_s=10)
    submit(store, "job_new", tenant="esi", audio_s=10)

    later = order(ledger, 16)

    assert "job_new" in later
    assert later.index("job_new") <= 1


def test_a_hint_that_was_lost_is_not_charged(ledger: Ledger, store: RedisStore) -> None:
    submit(store, "job_a0", tenant="ama", audio_s=1000)
    (hint,) = ledger.dispatch(PREPARE_QUEUE, 1, hint_s=60)
    submit(store, "job_k0", tenant="kofi", audio_s=10)
    lapse_hint(store, PREPARE_QUEUE, hint)
    ledger.sweep(PREPARE_QUEUE)

    assert order(ledger, 2) == ["job_a0", "job_k0"]


def test_an_older_job_is_finished_before_a_younger_one_is_begun(ledger: Ledger, store: RedisStore) -> None:
    submit(store, "job_old")
    prepare = ledger.claim("job_old", PREPARE, "w")
    submit(store, "job_young")
    ledger.prepared(prepare, 0, {})

    assert order(ledger, 2) == ["job_old", "job_young"]


def test_a_long_file_makes_room_for_a_newcomer_and_keeps_one_part_going(
    ledger: Ledger, store: RedisStore
) -> None:
    submit(store, "job_long", tenant="ama")
    cut(ledger, "job_long", 4)
    assert order(ledger, 4, LONG) == ["job_long"] * 4
    parts = [ledger.claim("job_long", part_step(number), "w") for number in range(4)]
    assert all(ledger.checkpoint(part, window(0), 5.0) for part in parts)

    submit(store, "job_new", tenant="kofi")
    cut(ledger, "job_new", 1)
    answers = [ledger.checkpoint(part, window(1), 5.0) for part in parts]

    # The first part stays, and one slot is freed at a time.
    assert answers == [True, False, True, True]
    ledger.release(parts[1])
    assert order(ledger, 4, LONG) == ["job_new"]
    heir = ledger.claim("job_long", part_step(1), "w2")
    assert sorted(result.index for result in ledger.kept_windows(heir)) == [0, 1]


def test_nobody_makes_room_for_parts_of_its_own_file(ledger: Ledger, store: RedisStore) -> None:
    submit(store, "job_long")
    cut(ledger, "job_long", 6)
    order(ledger, 4, LONG)
    parts = [ledger.claim("job_long", part_step(number), "w") for number in range(4)]

    assert all(ledger.checkpoint(part, window(0), 5.0) for part in parts)


def test_progress_is_no_poison(ledger: Ledger, store: RedisStore) -> None:
    """Workers that die around a part which gets on do not add up to its failure."""
    submit(store, "job_1")
    cut(ledger, "job_1", 1)
    for index in range(10):
        part = ledger.claim("job_1", part_step(0), "w", max_claims=2)
        assert part.outcome == "claimed"
        ledger.checkpoint(part, window(index), 5.0)
        lapse(store, part)

    for _ in range(2):
        lapse(store, ledger.claim("job_1", part_step(0), "w", max_claims=2))
    assert ledger.claim("job_1", part_step(0), "w", max_claims=2).outcome == "exhausted"


def lapse(store: RedisStore, claim: Claim) -> None:
    store.client.hset(store.key("step", claim.job_id, claim.step), "lapses", 1)


def test_a_record_of_a_later_version_is_left_alone(ledger: Ledger, store: RedisStore) -> None:
    submit(store, "job_1")
    store.client.hset(store.key("job", "job_1"), "schema", 99)

    assert ledger.claim("job_1", PREPARE, "w").outcome == "newer"
    assert JobStore(store).get("job_1").status is Status.QUEUED
