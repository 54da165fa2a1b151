"""/metrics: requests by route and never by path, problems by code, and the ledger, be it there or not."""

import threading
import time
from collections.abc import Callable

import pytest
from flask import Flask
from flask.testing import FlaskClient

from api.app import create_app
from api.parts import Parts
from shared.redis_store import RedisStore
from shared.settings import Settings
from tests.api.conftest import Submit
from tests.support.metrics import found, samples, value
from tests.support.recording_queue import RecordingQueue
from tests.support.waiting import wait_until
from tests.support.worker_hand import WorkerHand

pytestmark = pytest.mark.redis

Read = Callable[[], str]


@pytest.fixture
def read(client: FlaskClient) -> Read:
    """The page of metrics, now."""
    return lambda: client.get("/metrics").text


def test_requests_are_counted_by_route_method_and_status(
    client: FlaskClient, submit: Submit, read: Read
) -> None:
    job = submit()
    for _ in range(2):
        client.get(job["links"]["self"])

    page = read()
    route = {"route": "/v1/jobs/<job_id>", "method": "GET"}
    assert value(page, "ananse_http_requests_total", **route, status="200") == 2
    assert value(page, "ananse_http_requests_total", route="/v1/jobs", method="POST", status="202") == 1
    assert value(page, "ananse_http_request_seconds_count", **route) == 2


def test_what_clients_write_into_a_path_becomes_no_label(client: FlaskClient, read: Read) -> None:
    client.get("/secret-name")
    client.get("/v1/jobs/secret-name")
    client.open("/v1/jobs", method="SECRETNAME")

    page = read()
    assert "secret" not in page.lower()
    assert value(page, "ananse_http_requests_total", route="unknown", status="404") == 1
    assert value(page, "ananse_http_requests_total", method="unknown", status="405") == 1


def test_problems_are_counted_by_their_code(client: FlaskClient, read: Read) -> None:
    client.post("/v1/jobs?priority=99", data=b"sound", content_type="audio/wav")
    client.post("/v1/jobs?priority=99", data=b"sound", content_type="audio/wav")

    post = {"route": "/v1/jobs", "method": "POST"}
    assert value(read(), "ananse_http_problems_total", **post, code="invalid_option") == 2
    assert value(read(), "ananse_http_problems_total", **post) == 2


def test_recordings_and_jobs_are_counted(submit: Submit, recording: bytes, read: Read) -> None:
    submit()
    submit()

    page = read()
    assert value(page, "ananse_upload_bytes_sum") == 2 * len(recording)
    assert value(page, "ananse_upload_bytes_count") == 2
    assert value(page, "ananse_jobs_accepted_total", model="synthetic-en") == 2


def test_a_job_made_once_is_counted_once(client: FlaskClient, read: Read) -> None:
    for _ in range(2):
        client.post("/v1/jobs", data=b"sound", content_type="audio/wav", headers={"Idempotency-Key": "same"})

    assert value(read(), "ananse_jobs_accepted_total") == 1


def test_a_client_that_waits_is_seen_and_its_wait_is_no_slowness(
    app: Flask, submit: Submit, worker: WorkerHand, read: Read
) -> None:
    job = submit()
    path = job["links"]["self"] + "?wait=5"
    waiter = threading.Thread(target=lambda: app.test_client().get(path))
    began = time.monotonic()
    waiter.start()
    wait_until(lambda: value(read(), "ananse_waiting_clients", kind="job") == 1)
    worker.begin(job["id"])
    waiter.join()
    waited_s = time.monotonic() - began

    page = read()
    assert value(page, "ananse_waiting_clients") == 0
    assert value(page, "ananse_http_request_seconds_sum", route="/v1/jobs/<job_id>") < waited_s / 2


def test_a_stream_is_seen_as_long_as_it_is_open(client: FlaskClient, submit: Submit, read: Read) -> None:
    answer = client.get(submit()["links"]["events"])
    next(answer.iter_encoded())

    assert value(read(), "ananse_waiting_clients", kind="events") == 1
    answer.close()
    assert value(read(), "ananse_waiting_clients", kind="events") == 0


def test_the_ledger_is_told(submit: Submit, worker: WorkerHand, parts: Parts, read: Read) -> None:
    worker.come_up()
    submit()

    page = read()
    assert value(page, "ananse_redis_up") == 1
    assert (
        value(page, "ananse_steps", queue="prepare", state="waiting")
        + value(page, "ananse_steps", queue="prepare", state="busy")
        == 1
    )
    assert value(page, "ananse_backlog_seconds", model="synthetic-en", state="waiting") > 0
    assert value(page, "ananse_workers", model="synthetic-en") == 1
    assert value(page, "ananse_fleet_speed", model="synthetic-en") == 12.5
    assert value(page, "ananse_slots", queue="prepare") == 2
    assert value(page, "ananse_blob_store_free_bytes") == pytest.approx(parts.blobs.free_bytes(), rel=0.2)


def test_an_end_is_told_with_its_code_whoever_ended_it(
    client: FlaskClient, submit: Submit, worker: WorkerHand, read: Read
) -> None:
    worker.complete(submit()["id"])
    client.post(submit()["links"]["self"] + "/cancel")

    ended = [one.labels for one in samples(read()) if one.name == "ananse_jobs_ended_total"]
    assert ended == [
        {"status": "canceled", "code": "", "model": "synthetic-en"},
        {"status": "completed", "code": "", "model": "synthetic-en"},
    ]


def test_without_redis_the_page_says_so_and_all_else(settings: Settings) -> None:
    nowhere = settings.model_copy(update={"redis_url": "unix:///nowhere/redis.sock"})
    client = create_app(nowhere, RecordingQueue()).test_client()
    client.get("/livez")

    answer = client.get("/metrics")

    assert answer.status_code == 200
    assert found(answer.text, "ananse_redis_up") == [0]
    assert found(answer.text, "ananse_backlog_seconds") == []
    assert value(answer.text, "ananse_http_requests_total", route="/livez") == 1
    assert value(answer.text, "process_resident_memory_bytes") > 0


def test_scale_is_told_for_all_models_and_for_one(
    client: FlaskClient, submit: Submit, worker: WorkerHand
) -> None:
    worker.come_up()
    submit()

    everything = client.get("/internal/scale").json
    one = client.get("/internal/scale?model=synthetic-en").json

    assert everything["backlog_s"] == one["backlog_s"] > 0
    assert everything["models"] == {
        "synthetic-en": {
            "backlog_s": one["backlog_s"],
            "waiting_s": one["backlog_s"],
            "running_s": 0,
            "workers": 1,
            "speed": 12.5,
            "fleet_speed": 12.5,
        }
    }
    assert client.get("/internal/scale?model=nobody").json["code"] == "unknown_model"


def test_scale_without_redis_is_no_zero(settings: Settings, store: RedisStore) -> None:
    """A scaler that was told of no work would stop all workers."""
    nowhere = settings.model_copy(update={"redis_url": "unix:///nowhere/redis.sock"})
    client = create_app(nowhere, RecordingQueue()).test_client()

    answer = client.get("/internal/scale")

    assert (answer.status_code, answer.json["code"]) == (503, "store_unavailable")
