"""Probes: the process may be up while the service is not ready."""

import shutil
from pathlib import Path

from flask.testing import FlaskClient

from api.app import create_app
from shared.settings import Settings
from tests.support.recording_queue import RecordingQueue
from tests.support.worker_hand import WorkerHand


def test_ready_tells_its_checks_and_workers(client: FlaskClient, worker: WorkerHand) -> None:
    before = client.get("/readyz")
    worker.come_up()

    assert before.json == {
        "status": "ready",
        "checks": {"job_store": "ok", "file_store": "ok"},
        "workers": 0,
    }
    assert client.get("/readyz").json["workers"] == 1


def test_without_job_store_it_lives_but_is_not_ready(settings: Settings, tasks: RecordingQueue) -> None:
    nowhere = settings.model_copy(update={"redis_url": "unix:///nowhere/redis.sock"})
    client = create_app(nowhere, tasks).test_client()

    ready = client.get("/readyz")

    assert client.get("/livez").json == {"status": "live"}
    assert (ready.status_code, ready.json["code"]) == (503, "store_unavailable")
    assert client.get("/health").status_code == 503


def test_without_file_store_it_is_not_ready(client: FlaskClient, settings: Settings) -> None:
    shutil.rmtree(Path(settings.blob_url.removeprefix("file://")))

    answer = client.get("/readyz")

    assert (answer.status_code, answer.json["code"]) == (503, "storage_unavailable")


def test_metrics_are_prometheus_text(client: FlaskClient) -> None:
    answer = client.get("/metrics")

    assert answer.content_type.startswith("text/plain")
    assert "python_info{" in answer.text
