"""Cases of codes that join the list with the deadline and with the bound on the backlog; skipped until then.

`deadline_exceeded` belongs into the table of `test_every_failure.py`, `backlog_full` into that of
`test_every_code.py`, which fails while it is missing there.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from werkzeug.test import TestResponse

from api.problems import all_errors
from shared import job_files
from shared.job import Status
from shared.ledger import PREPARE, part_step
from shared.redis_store import RedisStore
from shared.settings import Settings
from tests.fakes import ScriptedRunner
from tests.support.codes import Case, Doors, Table, check_failure, check_problem, opened, sound
from tests.support.waiting import wait_until
from tests.support.worker_context import MODEL, worker_context
from tests.support.worker_hand import WorkerHand
from worker import app
from worker.steps import perform
from worker.sweeper import Sweeper

LISTED = {kind.code for kind in all_errors()}

pytestmark = pytest.mark.redis
deadline = pytest.mark.skipif("deadline_exceeded" not in LISTED, reason="no job has a deadline yet")
backlog = pytest.mark.skipif("backlog_full" not in LISTED, reason="the backlog has no bound yet")

FAILURES: Table[str] = Table()
ANSWERS: Table[TestResponse] = Table()

DEADLINE_S = "1"
LATER_DEADLINE_S = "3"
BOUND_S = 60.0
RECORDING_S = 600.0
MOST_RECORDINGS = 20


@pytest.fixture
def doors(code: str, settings: Settings, store: RedisStore) -> Iterator[Doors]:
    with opened(settings, store, case_of(code)) as doors:
        yield doors


def case_of(code: str) -> Case[Any]:
    return FAILURES[code] if code in FAILURES else ANSWERS[code]


@FAILURES.produces("deadline_exceeded")
def a_job_nobody_begins_in_time(doors: Doors) -> str:
    job_id = doors.submit(sound(), deadline_s=DEADLINE_S)
    sweep_until_ended(doors, job_id)
    return job_id


@ANSWERS.produces("backlog_full", max_backlog_s=BOUND_S)
def a_recording_more_than_can_be_done_in_time(doors: Doors) -> TestResponse:
    """The first is welcome however long it is alone; what is prepared counts with the length it has."""
    answer = fill(doors)
    assert doors.sent
    return answer


@deadline
@pytest.mark.parametrize("code", FAILURES)
def test_a_failed_job_says_its_code_everywhere(doors: Doors, code: str) -> None:
    job_id = FAILURES[code].act(doors)

    check_failure(doors, job_id, code)


@backlog
@pytest.mark.parametrize("code", ANSWERS)
def test_an_answer_is_a_problem_with_its_code(doors: Doors, code: str) -> None:
    answer = ANSWERS[code].act(doors)

    check_problem(answer, code)


@deadline
@pytest.mark.slow
@pytest.mark.parametrize("code", ["deadline_exceeded"])
def test_a_job_that_runs_is_ended_at_its_deadline_and_stays_so(doors: Doors, code: str) -> None:
    """The worker, whose model is still at it, comes too late with its window."""
    job_id = doors.work(doors.submit(sound(), deadline_s=LATER_DEADLINE_S), PREPARE)
    runner = ScriptedRunner(is_held=True)
    with worker_context(doors.settings, doors.store, runner) as context:
        step = threading.Thread(target=perform, args=(job_id, part_step(0), context))
        step.start()
        assert runner.entered.wait(timeout=10)
        sweep_until_ended(doors, job_id)
        ended = doors.job(job_id)
        runner.let_go.set()
        step.join(timeout=10)
        assert not step.is_alive()

    assert doors.job(job_id) == ended
    assert not doors.parts.blobs.exists(job_files.part_result(job_id, part_step(0)))
    check_failure(doors, job_id, code)


@deadline
@pytest.mark.slow
@pytest.mark.parametrize("code", ["deadline_exceeded"])
def test_a_job_that_ended_in_time_is_left_alone(doors: Doors, code: str) -> None:
    job_id = doors.work(doors.submit(sound(), deadline_s=LATER_DEADLINE_S), PREPARE, part_step(0), "finish")
    assert doors.job(job_id)["status"] == Status.COMPLETED
    late = doors.submit(sound(), deadline_s=LATER_DEADLINE_S)

    sweep_until_ended(doors, late)

    assert doors.job(job_id)["status"] == Status.COMPLETED


@backlog
@pytest.mark.parametrize("code", ["backlog_full"])
def test_what_is_refused_leaves_nothing_and_is_taken_once_the_backlog_is_gone(
    doors: Doors, code: str
) -> None:
    check_problem(fill(doors), code)
    folders = {path.name for path in (doors.blobs_root / "jobs").iterdir()}

    assert folders == set(doors.sent)
    assert not any(doors.parts.blobs.incoming.iterdir())

    for job_id in list(doors.sent):
        assert doors.client.post(f"/v1/jobs/{job_id}/cancel").status_code == 200
    assert doors.send(sound()).status_code == 202


def fill(doors: Doors) -> TestResponse:
    """Sends recordings to a service whose one worker prepares them and does no more; the answer to the first
    that is not taken."""
    WorkerHand(doors.parts.ledger, doors.parts.fleet, doors.parts.blobs, MODEL).come_up()
    for _ in range(MOST_RECORDINGS):
        answer = doors.send(sound(RECORDING_S, rate=1_000))
        if answer.status_code != 202:
            return answer
        doors.work(list(doors.sent)[-1], PREPARE)
    raise AssertionError(f"{MOST_RECORDINGS * RECORDING_S:g} s of sound were all taken")


def sweep_until_ended(doors: Doors, job_id: str) -> None:
    with sweeper_of(doors) as sweeper:
        wait_until(after(sweeper.sweep, lambda: doors.parts.jobs.get(job_id).status.is_terminal))


def after(act: Callable[[], None], condition: Callable[[], bool]) -> Callable[[], bool]:
    def look() -> bool:
        act()
        return condition()

    return look


@contextmanager
def sweeper_of(doors: Doors) -> Iterator[Sweeper]:
    """That of a worker as it is put together, without the worker's threads and Celery."""
    worker = app.build(doors.settings, lambda source, settings: ScriptedRunner())
    try:
        yield worker.sweeper
    finally:
        worker.context.leases.close()
        for engine, _ in worker.context.engines.values():
            engine.close(doors.settings.stop_grace_s)
        worker.context.jobs._store.client.close()
