"""Where a step is, and whose: told from the ledger's own keys."""

import pytest

from shared.ledger import PREPARE, PREPARE_QUEUE, Hint, Ledger, part_step
from shared.redis_store import RedisStore
from shared.survey import Place, Survey
from shared.transcript import WindowResult
from tests.support.jobs import submit

pytestmark = pytest.mark.redis


@pytest.fixture
def survey(store: RedisStore) -> Survey:
    return Survey(store)


def place(survey: Survey, job_id: str, step: str = PREPARE) -> Place:
    return next(one.place for one in survey.steps(job_id) if one.step == step)


def test_a_step_is_in_one_place_at_a_time(survey: Survey, ledger: Ledger, store: RedisStore) -> None:
    submit(store)
    assert place(survey, "job_1") is Place.WAITING
    ledger.dispatch(PREPARE_QUEUE, 1, hint_s=20)
    assert place(survey, "job_1") is Place.SENT
    claim = ledger.claim("job_1", PREPARE, "w")
    assert place(survey, "job_1") is Place.HELD
    ledger.try_again(claim, delay_s=60)
    assert place(survey, "job_1") is Place.PUT_OFF
    store.client.delete(store.key("later", PREPARE_QUEUE))
    assert place(survey, "job_1") is Place.NOWHERE
    ledger.prepared(ledger.claim("job_1", PREPARE, "w"), 0, {})
    assert place(survey, "job_1") is Place.DONE
    assert [one.step for one in survey.steps("job_1")] == [PREPARE, "finish"]


def test_a_step_tells_who_has_it_and_how_far_it_is(survey: Survey, ledger: Ledger, store: RedisStore) -> None:
    submit(store)
    ledger.offer_part(ledger.claim("job_1", PREPARE, "w-1"), 0, "m", "{}", 20.0)
    part = ledger.claim("job_1", part_step(0), "w-2")
    ledger.checkpoint(part, WindowResult(0, 0.0, 5.0, ()), 5.0)

    told = survey.steps("job_1")[1]

    assert (told.worker, told.attempt, told.claims, told.failures) == ("w-2", 1, 1, 0)
    assert (told.audio_s, told.done_s, told.windows) == (20.0, 5.0, 1)
    assert told.lease_left_s is not None
    assert 0 < told.lease_left_s <= 30
    assert (told.due_in_s, told.position) == (None, None)


def test_steps_are_told_apart_by_who_holds_them(survey: Survey, ledger: Ledger, store: RedisStore) -> None:
    for number in range(3):
        submit(store, f"job_{number}")
    ledger.claim("job_0", PREPARE, "w-1")
    ledger.claim("job_1", PREPARE, "w-2")
    ledger.dispatch(PREPARE_QUEUE, 3, hint_s=20)

    assert survey.held_by("w-1") == (Hint("job_0", PREPARE),)
    assert survey.held_by("w-3") == ()
    assert survey.sent() == (Hint("job_2", PREPARE),)


def test_the_oldest_is_the_oldest_of_all_lines(survey: Survey, store: RedisStore) -> None:
    for number, tenant in enumerate(("ama", "ama", "kofi")):
        submit(store, f"job_{number}", tenant=tenant, audio_s=10)
    store.client.hincrby(store.key("job", "job_2"), "created_at", -3_600_000)

    told = survey.queue(PREPARE_QUEUE)

    assert told.oldest_s == pytest.approx(3600, abs=10)
    assert (told.waiting, told.clients, told.waiting_audio_s) == (3, 2, 30.0)
    assert survey.queue("deliver").oldest_s is None


def test_the_last_events_are_the_last_in_order(survey: Survey, ledger: Ledger, store: RedisStore) -> None:
    submit(store)
    ledger.offer_part(ledger.claim("job_1", PREPARE, "w"), 0, "m", "{}", 20.0)
    part = ledger.claim("job_1", part_step(0), "w")
    for index in range(3):
        ledger.checkpoint(part, WindowResult(index, index, index + 1.0, ()), 1.0)

    assert [event.kind for event in survey.last_events("job_1", 3)] == ["progress", "window", "progress"]
