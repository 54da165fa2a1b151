"""Operators among real workers: one is drained at its work, steps are taken from one that is frozen."""

import signal
import socket
from pathlib import Path

import pytest

from shared.ledger import PREPARE, PREPARE_QUEUE, Hint
from shared.redis_store import RedisStore
from shared.settings import Settings
from shared.task_queue import CeleryQueue, RedisMessages, make_celery
from tests.chaos.crew import Crew, assert_all_right, crew, has_ended, impatient
from tests.chaos.sounds import sounds
from tests.deploy.admin.conftest import Admin
from tests.support.service import Service
from tests.support.waiting import wait_until
from tests.support.worker_process import WorkerProcess

pytestmark = [pytest.mark.redis, pytest.mark.service, pytest.mark.slow]

SEED = 5
BATCH = 2
LEASE_S = 60.0
"""So long that nothing in these tests is owed to a lease that lapsed."""


@pytest.fixture
def service(settings: Settings, store: RedisStore) -> Service:
    return Service(impatient(settings, lease_s=LEASE_S, hint_s=60, batch_size=BATCH), store)


def name_of(worker: WorkerProcess) -> str:
    return f"{socket.gethostname()}-{worker.pid}"


def claims(workers: Crew, worker: WorkerProcess) -> int:
    return len(workers.log("step_claimed", worker))


def test_a_worker_drained_at_work_hands_all_back_lives_on_and_comes_back(
    service: Service, tmp_path: Path, admin: Admin
) -> None:
    recordings = sounds(tmp_path, [40, 40, 40], SEED)
    with crew(service, tmp_path, pace=0.1) as workers:
        one, other = workers.hire(2)
        given = {workers.submit(recording): recording for recording in recordings}
        wait_until(lambda: workers.held(one, "part") and workers.windows(), 30)

        said = admin("drain", name_of(one), "--wait", "--timeout", "30")
        assert (said.status, said.out.splitlines()[-1]) == (0, "drained"), said
        assert workers.held(one, "") == set()
        handed_back = len(workers.log("step_handed_back", one))
        assert handed_back
        before = claims(workers, one)
        assert "drained" in admin("workers").out

        # Nothing waits for a lease or a hint to lapse: either would take a minute.
        jobs = workers.see_through(given, timeout_s=30)
        assert_all_right(service, given, jobs)
        assert claims(workers, one) == before
        assert not has_ended(one)
        # What was in the model just then, for each step handed back; windows kept before stay done.
        assert sum(count - 1 for count in workers.windows().values()) <= BATCH * handed_back

        admin("drain", name_of(other), "--wait")
        waiting = {workers.submit(recording): recording for recording in sounds(tmp_path, [6], SEED + 1)}
        assert [job.status for job in map(service.jobs.get, waiting)] == ["queued"]
        admin("undrain", name_of(one))
        assert_all_right(service, waiting, workers.see_through(waiting, timeout_s=30))
        assert claims(workers, one) > before
        assert not workers.log("worker_deaf")


def test_a_drained_worker_whose_connections_break_stays_drained(
    service: Service, tmp_path: Path, admin: Admin
) -> None:
    with crew(service, tmp_path) as workers:
        one, _ = workers.hire(2)
        admin("drain", name_of(one), "--wait")
        service.store.client.client_kill_filter(_type="normal", skipme=True)
        given = {workers.submit(recording): recording for recording in sounds(tmp_path, [6] * 4, SEED)}

        assert_all_right(service, given, workers.see_through(given, timeout_s=60))

        assert claims(workers, one) == 0
        assert not has_ended(one)


def test_a_drained_worker_leaves_messages_to_others(service: Service, tmp_path: Path, admin: Admin) -> None:
    messages = RedisMessages(service.store)
    with crew(service, tmp_path) as workers:
        workers.hire()
        admin("drain", "--all", "--wait")
        with make_celery(service.settings.redis_url) as celery:
            for number in range(3):
                CeleryQueue(celery).send(PREPARE_QUEUE, Hint(f"job_{number}", PREPARE))

        # A fetch that was under way may have taken one, and puts it back.
        wait_until(lambda: messages.waiting([PREPARE_QUEUE]) == 3)
        assert not workers.log("step_not_claimed")

        admin("undrain", "--all")
        wait_until(lambda: len(workers.log("step_not_claimed")) == 3)


def test_a_drained_worker_stops_when_it_is_told_to(service: Service, tmp_path: Path, admin: Admin) -> None:
    with crew(service, tmp_path) as workers:
        (one,) = workers.hire()
        admin("drain", "--all", "--wait")

        assert workers.retire(one) == 0

        assert not service.store.client.keys("*drain*")


def test_steps_of_a_frozen_worker_are_another_s_at_once(
    service: Service, tmp_path: Path, admin: Admin
) -> None:
    recordings = sounds(tmp_path, [40, 40], SEED)
    with crew(service, tmp_path, pace=0.02) as workers:
        frozen, other = workers.hire(2)
        given = {workers.submit(recording): recording for recording in recordings}
        held = workers.caught(frozen, "part")

        said = admin("requeue", "--worker", name_of(frozen))
        assert said.out.count("back in line") >= len(held), said

        jobs = workers.see_through(given, timeout_s=30)
        assert_all_right(service, given, jobs)
        taken = {(row["job_id"], row["step"]) for row in workers.log("step_claimed", other)}
        assert held <= taken
        frozen.signal(signal.SIGCONT)
        wait_until(lambda: workers.log("step_fenced", frozen), 30)
        assert {job_id: service.jobs.get(job_id) for job_id in given} == jobs
