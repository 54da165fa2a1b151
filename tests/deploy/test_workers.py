"""`python -m deploy.workers` as a real process: two workers, with their models; one dies, all leave."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deploy.plan import CHECKOUT
from shared.fleet import WorkerState
from shared.job import Status, VadOptions
from shared.redis_store import RedisStore
from shared.settings import Settings
from tests.support.service import SAMPLES, Service
from tests.support.waiting import wait_until
from tests.support.worker_process import environment

pytestmark = [
    pytest.mark.redis,
    pytest.mark.service,
    pytest.mark.slow,
    pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="two workers need two cores"),
]

START_S = 60.0
UNHEARD = VadOptions(enabled=False)


@pytest.fixture
def service(settings: Settings, store: RedisStore) -> Service:
    given = {name: getattr(settings, name) for name in settings.model_fields_set}
    return Service(Settings(**(given | {"lease_s": 2, "hint_s": 1, "sweep_s": 0.2})), store)


@contextmanager
def launcher(
    service: Service, log: Path, module: str = "tests.deploy.plain_workers", **more: str
) -> "Iterator[subprocess.Popen[bytes]]":
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", module],
            cwd=CHECKOUT,
            env=environment(service.settings) | more,
            stdout=output,
            stderr=output,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def live(service: Service, log: Path, count: int = 2) -> tuple[WorkerState, ...]:
    """All workers, once there are so many."""
    wait_until(lambda: len(service.fleet.live()) == count, START_S)
    wait_until(lambda: events(log, "worker_up") >= count, START_S)
    return service.fleet.live()


def events(log: Path, name: str) -> int:
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    return sum(line.get("event") == name for line in lines)


def test_one_that_dies_is_started_again_and_all_leave_together(service: Service, tmp_path: Path) -> None:
    log = tmp_path / "workers.log"
    with launcher(service, log, ANANSE_DEVICES="cpu,cpu") as process:
        first, second = live(service, log)
        assert first.name != second.name
        assert (first.device, second.device) == ("cpu", "cpu")
        job_id = service.submit(SAMPLES / "five-minutes.flac", vad=UNHEARD)

        os.kill(first.pid, signal.SIGKILL)

        wait_until(lambda: first.pid not in _pids(service) and len(_pids(service)) == 2, START_S)
        assert second.pid in _pids(service)
        assert service.ended(job_id).status is Status.COMPLETED
        process.terminate()
        assert process.wait(START_S) == 0
    assert "SIGKILL" in log.read_text()
    assert service.fleet.live() == ()


def test_work_that_is_under_way_is_handed_back_by_all(service: Service, tmp_path: Path) -> None:
    log, next_log = tmp_path / "workers.log", tmp_path / "next.log"
    with launcher(service, log, "tests.deploy.slow_workers", ANANSE_DEVICES="cpu,cpu") as process:
        live(service, log)
        job_id = service.submit(SAMPLES / "five-minutes.flac", vad=UNHEARD)
        service.wait_for_windows(job_id, 1)

        process.terminate()
        assert process.wait(START_S) == 0
    assert events(log, "step_handed_back") >= 1
    assert "was killed" not in log.read_text()

    done = len(service.jobs.windows(job_id))
    assert not service.jobs.get(job_id).status.is_terminal
    with launcher(service, next_log, ANANSE_DEVICES="cpu,cpu"):
        job = service.ended(job_id)
    assert (job.status, job.attempt) == (Status.COMPLETED, 1)
    assert done >= 1


def test_models_go_where_they_were_placed(service: Service, tmp_path: Path) -> None:
    log = tmp_path / "workers.log"
    models = "a=models/synthetic-en?device=cpu,b=models/synthetic-en?device=cpu&batch_size=2"
    with launcher(service, log, ANANSE_DEVICES="cpu,cpu", ANANSE_MODELS=models):
        workers = live(service, log)

        assert [[card.name for card in worker.models] for worker in workers] == [["a", "b"], ["a", "b"]]
        assert [worker.engine["b"]["batch_limit"] for worker in workers] == [2, 2]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"ANANSE_DEVICES": "cuda:7"}, "there is no cuda:7"),
        ({"ANANSE_DEVICES": "cpu", "ANANSE_MODELS": "a=models/x?device=cuda"}, "places no model on cpu"),
        ({"ANANSE_DEVICES": "gpu"}, "ANANSE_DEVICES: 'gpu' is no device"),
        (
            {"ANANSE_DEVICES": "cpu,cpu", "ANANSE_MODELS": "a=/no/such/folder"},
            "/no/such/folder does not exist",
        ),
    ],
)
def test_a_mistake_ends_it_with_one_sentence(
    service: Service, tmp_path: Path, given: dict[str, str], sentence: str
) -> None:
    log = tmp_path / "workers.log"
    with launcher(service, log, "deploy.workers", **given) as process:
        assert process.wait(START_S * 2) == 78
    last = log.read_text().splitlines()[-1]
    assert last.startswith("ananse: ")
    assert sentence in last


def _pids(service: Service) -> set[int]:
    return {worker.pid for worker in service.fleet.live()}
