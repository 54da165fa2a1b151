"""Models that leave memory and come back, in real workers with the real model."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from shared.job import Status
from shared.models import ModelSource
from shared.redis_store import RedisStore
from shared.settings import Settings
from tests.support.service import MODEL, SAMPLES, Service
from tests.support.waiting import wait_until
from tests.support.worker_process import WorkerProcess, worker_process
from worker.engine.values import ModelUnavailable
from worker.engine.whisper import load_runner

pytestmark = [
    pytest.mark.redis,
    pytest.mark.model,
    pytest.mark.service,
    pytest.mark.slow,
    pytest.mark.calm,
    pytest.mark.timeout(900),
]

BUNDLED = SAMPLES.parent / MODEL
PATIENCE_S = 120.0
WEIGHTS_KEPT = 0.5
"""Of the weights' size, what may stay behind in the allocator at most."""


@pytest.fixture
def service(settings: Settings, store: RedisStore) -> Service:
    given = {name: getattr(settings, name) for name in settings.model_fields_set}
    return Service(Settings(**(given | {"lease_s": 5, "hint_s": 2, "sweep_s": 0.2})), store)


def test_an_unused_model_leaves_and_the_next_job_has_the_same_text(service: Service, tmp_path: Path) -> None:
    log = tmp_path / "worker.log"
    with worker_process(service.settings, service.fleet, log, ANANSE_MODEL_IDLE_S="3") as worker:
        first = spoken(service)
        used = rss_bytes(worker)
        wait_until(lambda: not is_loaded(service), PATIENCE_S)
        (state,) = service.fleet.live()
        assert [card.name for card in state.models] == [MODEL]
        weights = state.models[0].parameters * {"float32": 4, "bfloat16": 2}[state.models[0].dtype]
        wait_until(lambda: used - rss_bytes(worker) > weights * (1 - WEIGHTS_KEPT), PATIENCE_S)

        assert spoken(service) == first
        assert worker.stop() == 0
    assert events(log)[:3] == ["model_warmed", "model_loaded", "worker_ready"]
    assert events(log).count("model_loaded") >= 2


def test_one_at_a_time_serves_two_models(service: Service, tmp_path: Path) -> None:
    more = {"ANANSE_MODELS": f"a={BUNDLED},b={BUNDLED}", "ANANSE_MAX_LOADED": "1"}
    with worker_process(service.settings, service.fleet, tmp_path / "worker.log", **more):
        texts = {spoken(service, model) for model in ("a", "b", "a")}

        assert len(texts) == 1
        wait_until(lambda: sum(one["is_loaded"] for one in service.fleet.live()[0].engine.values()) == 1, 30)
    assert events(tmp_path / "worker.log").count("model_unloaded") >= 2


def test_a_model_whose_files_are_gone_hands_its_steps_back_and_the_worker_says_so(
    service: Service, tmp_path: Path
) -> None:
    folder, away = tmp_path / "weights", tmp_path / "away"
    shutil.copytree(BUNDLED, folder)
    more = {"ANANSE_MODELS": f"{MODEL}={folder}", "ANANSE_MODEL_IDLE_S": "1"}
    log = tmp_path / "worker.log"
    with worker_process(service.settings, service.fleet, log, **more) as worker:
        wait_until(lambda: not is_loaded(service), PATIENCE_S)
        folder.rename(away)
        job_id = service.submit(SAMPLES / "short-1.flac", reuse=False)

        worker._process.wait(PATIENCE_S)
    assert {"model_lost", "worker_lost_model"} <= set(events(log))
    assert not service.jobs.get(job_id).status.is_terminal

    away.rename(folder)
    with worker_process(service.settings, service.fleet, tmp_path / "next.log", **more):
        job = service.ended(job_id)
    assert job.status is Status.COMPLETED


def test_a_model_that_gives_no_numbers_does_not_start(tmp_path: Path) -> None:
    folder = tmp_path / "nan"
    shutil.copytree(BUNDLED, folder)
    weights = load_file(folder / "model.safetensors")
    name = next(one for one in sorted(weights) if "decoder" in one and one.endswith("layer_norm.weight"))
    weights[name] = weights[name] * float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    with pytest.raises(ModelUnavailable, match="cannot transcribe"):
        load_runner(ModelSource("nan", str(folder)), device="cpu", dtype="float32", threads=1)


def spoken(service: Service, model: str = MODEL) -> str:
    job_id = service.submit(SAMPLES / "short-1.flac", model=model, reuse=False)
    job = service.ended(job_id)
    assert job.status is Status.COMPLETED
    return service.transcript(job_id).text


def is_loaded(service: Service) -> bool:
    (state,) = service.fleet.live()
    return bool(state.engine[MODEL]["is_loaded"])


def rss_bytes(worker: WorkerProcess) -> int:
    return int(Path(f"/proc/{worker.pid}/statm").read_text().split()[1]) * 4096


def events(log: Path) -> Sequence[str]:
    """The worker's own, in order."""
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    named = ("model_", "worker_")
    return [line["event"] for line in lines if str(line["event"]).startswith(named)]
