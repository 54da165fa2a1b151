"""A worker that has gone deaf, or has grown too much, ends itself; its work is done by the next."""

import subprocess
from pathlib import Path

import pytest

from shared.job import Status, VadOptions
from shared.redis_store import RedisStore
from shared.settings import Settings
from shared.task_queue import make_celery
from tests.support.service import SAMPLES, Service
from tests.support.worker_process import PLAIN, WorkerProcess, worker_process
from worker.watchdog import EXIT_DEAF

pytestmark = [pytest.mark.redis, pytest.mark.service, pytest.mark.slow]

EXIT_S = 40.0
UNHEARD = VadOptions(enabled=False)


@pytest.fixture
def service(settings: Settings, store: RedisStore) -> Service:
    given = {name: getattr(settings, name) for name in settings.model_fields_set}
    return Service(Settings(**(given | {"lease_s": 2, "hint_s": 1, "sweep_s": 0.2})), store)


def ended_by_the_next(service: Service, job_id: str, log: Path) -> None:
    with worker_process(service.settings, service.fleet, log, PLAIN):
        assert service.ended(job_id).status is Status.COMPLETED


def exit_status(worker: WorkerProcess) -> int:
    try:
        return worker._process.wait(EXIT_S)
    except subprocess.TimeoutExpired:
        pytest.fail(f"the worker lives: {worker.log.read_text()[-1000:]}")


def test_a_worker_that_hears_nothing_ends_itself(service: Service, tmp_path: Path) -> None:
    with worker_process(
        service.settings, service.fleet, tmp_path / "deaf.log", PLAIN, ANANSE_DEAF_S="2"
    ) as worker:
        (state,) = service.fleet.live()
        with make_celery(service.settings.redis_url) as celery:
            for queue in state.slots:
                assert celery.control.cancel_consumer(queue, reply=True, timeout=5)
        job_id = service.submit(SAMPLES / "short-1.flac", vad=UNHEARD)

        assert exit_status(worker) == EXIT_DEAF
    ended_by_the_next(service, job_id, tmp_path / "next.log")


def test_a_worker_that_has_grown_hands_its_work_back(service: Service, tmp_path: Path) -> None:
    slow = (*PLAIN, "--pace", "0.2")
    with worker_process(
        service.settings, service.fleet, tmp_path / "grown.log", slow, ANANSE_MEMORY_GROWTH_BYTES="1000000"
    ) as worker:
        job_id = service.submit(SAMPLES / "five-minutes.flac", vad=UNHEARD)

        assert exit_status(worker) == 0
        assert "worker_grown" in worker.log.read_text()
    assert service.jobs.get(job_id).attempt <= 1
    ended_by_the_next(service, job_id, tmp_path / "next.log")
