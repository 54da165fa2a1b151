"""A job whose recording is to be fetched: what is taken, what is refused, and what is never shown again."""

import json
from collections.abc import Iterator

import pytest
from flask.testing import FlaskClient

from api.app import create_app
from api.parts import EXTENSION, Parts
from shared import job_files
from shared.job_store import NewJob
from shared.ledger import FETCH, FETCH_QUEUE, Hint
from shared.rebuild import Rebuild
from shared.redis_store import RedisStore
from shared.settings import Settings
from shared.source import Source
from tests.support.recording_queue import RecordingQueue
from tests.support.worker_hand import WorkerHand

URL = "https://media.example/talks/one.wav"
HEADERS = {"Authorization": "Bearer marker-token"}


@pytest.fixture
def opened(settings: Settings) -> Iterator[FlaskClient]:
    """An API that lets a bucket be named."""
    app = create_app(settings.model_copy(update={"fetch_buckets": ("open",)}), RecordingQueue())
    yield app.test_client()
    app.extensions[EXTENSION].jobs._store.client.close()


def test_an_address_becomes_a_job_that_waits_to_be_fetched(
    client: FlaskClient, parts: Parts, tasks: RecordingQueue, worker: WorkerHand, store: RedisStore
) -> None:
    answer = client.post(
        "/v1/jobs",
        json={"audio_url": f"{URL}?sig=marker-query", "audio_url_headers": HEADERS, "language": "en"},
    )

    job = answer.json
    assert answer.status_code == 202
    assert answer.headers["Location"] == f"/v1/jobs/{job['id']}"
    assert (job["media"]["name"], job["media"]["url"], job["media"]["size_bytes"]) == ("one.wav", URL, 0)
    assert job["options"]["language"] == "en"
    source = Source.from_json(parts.blobs.read(job_files.source(job["id"])))
    assert source == Source(f"{URL}?sig=marker-query", HEADERS)
    assert store.client.hget(store.key("step", job["id"], FETCH), "queue") == FETCH_QUEUE


def test_no_secret_of_it_is_in_an_answer_or_in_redis(client: FlaskClient, store: RedisStore) -> None:
    url = f"{URL}?sig=marker-query"
    job_id = client.post("/v1/jobs", json={"audio_url": url, "audio_url_headers": HEADERS}).json["id"]

    shown = [client.get(f"/v1/jobs/{job_id}").text, client.get("/v1/jobs").text]
    kept = [store.client.dump(key) for key in store.client.scan_iter() if store.client.type(key) != "hash"]
    kept += [json.dumps(store.client.hgetall(key)) for key in store.client.keys("*job:*")]

    assert not [text for text in shown if "marker" in text]
    assert not [text for text in kept if "marker" in str(text)]


def test_the_hint_goes_to_those_who_fetch(
    client: FlaskClient, tasks: RecordingQueue, parts: Parts, worker: WorkerHand
) -> None:
    worker.come_up()

    job_id = client.post("/v1/jobs", json={"audio_url": URL}).json["id"]

    assert tasks.sent == [(FETCH_QUEUE, Hint(job_id, FETCH))]


def test_asked_again_with_its_key_it_is_the_same_job(client: FlaskClient) -> None:
    key = {"Idempotency-Key": "k1"}
    first = client.post("/v1/jobs", json={"audio_url": URL}, headers=key)
    again = client.post("/v1/jobs", json={"audio_url": URL}, headers=key)
    other = client.post("/v1/jobs", json={"audio_url": f"{URL}?x"}, headers=key)

    assert (again.json["id"], again.headers["Idempotent-Replayed"]) == (first.json["id"], "true")
    assert (other.status_code, other.json["code"]) == (409, "idempotency_mismatch")


def test_the_recording_cannot_be_had_before_it_is_here(client: FlaskClient) -> None:
    job_id = client.post("/v1/jobs", json={"audio_url": URL}).json["id"]

    answer = client.get(f"/v1/jobs/{job_id}/audio")

    assert (answer.status_code, answer.json["code"]) == (409, "not_ready")


def test_a_canceled_one_is_tried_again_from_its_address(client: FlaskClient, parts: Parts) -> None:
    job_id = client.post("/v1/jobs", json={"audio_url": URL, "audio_url_headers": HEADERS}).json["id"]
    client.post(f"/v1/jobs/{job_id}/cancel")

    again = client.post(f"/v1/jobs/{job_id}/retry").json

    assert (again["retry_of"], again["media"]["url"]) == (job_id, URL)
    assert Source.from_json(parts.blobs.read(job_files.source(again["id"]))) == Source(URL, HEADERS)


def test_a_job_store_that_forgot_it_has_it_again(
    client: FlaskClient, parts: Parts, store: RedisStore
) -> None:
    job_id = client.post("/v1/jobs", json={"audio_url": URL}).json["id"]
    store.client.flushall()

    assert Rebuild(store, parts.jobs, parts.blobs, 60).look()

    assert client.get(f"/v1/jobs/{job_id}").json["media"]["url"] == URL
    assert store.client.hget(store.key("step", job_id, FETCH), "state") == "waiting"


def test_an_old_copy_of_the_job_store_does_not_lose_one_that_is_being_taken_in(
    parts: Parts, store: RedisStore, client: FlaskClient
) -> None:
    """Its address is there before its record: nobody takes it for one that was deleted."""
    job_id = client.post("/v1/jobs", json={"audio_url": URL}).json["id"]
    parts.blobs.remove(job_files.manifest(job_id))

    Rebuild(store, parts.jobs, parts.blobs, 60)._forget_deleted(set())

    assert client.get(f"/v1/jobs/{job_id}").status_code == 200


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"audio_url": "ftp://media.example/a.wav"}, "audio_url"),
        ({"audio_url": "file:///etc/passwd"}, "audio_url"),
        ({"audio_url": "https://user:marker@media.example/a.wav"}, "audio_url"),
        ({"audio_url": "https:///a.wav"}, "audio_url"),
        ({"audio_url": "https://media.example/a b.wav"}, "audio_url"),
        ({"audio_url": "https://media.example:99999/"}, "audio_url"),
        ({"audio_url": 7}, "audio_url"),
        ({}, "audio_url"),
        ({"audio_url": "s3://closed/a.wav"}, "audio_url"),
        ({"audio_url": URL, "audio_url_headers": {"Host": "inside"}}, "audio_url_headers.Host.[key]"),
        ({"audio_url": URL, "audio_url_headers": {"X": "a\r\nmarker: 1"}}, "audio_url_headers.X"),
        ({"audio_url": URL, "audio_url_headers": {f"X{n}": "1" for n in range(9)}}, "audio_url_headers"),
        ({"audio_url": URL, "priority": 99}, "priority"),
        ({"audio_url": URL, "bogus": 1}, "bogus"),
    ],
)
def test_what_is_wrong_is_refused_and_leaves_nothing(
    client: FlaskClient, parts: Parts, fields: dict[str, object], field: str
) -> None:
    answer = client.post("/v1/jobs", json=fields)

    assert (answer.status_code, answer.json["code"]) == (422, "invalid_option")
    assert [error["field"] for error in answer.json["errors"]] == [field]
    assert "marker" not in answer.text
    assert parts.blobs.folders("jobs") == ()


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b"null", b"\xff"])
def test_what_is_no_json_object_is_refused(client: FlaskClient, body: bytes) -> None:
    answer = client.post(
        "/v1/jobs", data=body, content_type="application/json", headers={"Content-Length": str(len(body))}
    )

    assert answer.status_code in (400, 411)


def test_a_huge_document_is_refused(client: FlaskClient) -> None:
    answer = client.post("/v1/jobs", data=b" " * 2**20, content_type="application/json")

    assert (answer.status_code, answer.json["code"]) == (413, "too_large")


def test_only_a_bucket_that_was_opened_may_be_named(opened: FlaskClient) -> None:
    assert opened.post("/v1/jobs", json={"audio_url": "s3://open/talks/a.wav"}).status_code == 202
    assert opened.post("/v1/jobs", json={"audio_url": "s3://closed/a.wav"}).status_code == 422
    both = {"audio_url": "s3://open/a.wav", "audio_url_headers": HEADERS}
    assert opened.post("/v1/jobs", json=both).status_code == 422


def test_the_manifest_says_no_secret(parts: Parts, client: FlaskClient) -> None:
    job_id = client.post("/v1/jobs", json={"audio_url": URL, "audio_url_headers": HEADERS}).json["id"]

    accepted: NewJob = job_files.read_manifest(parts.blobs, job_id)

    assert (accepted.media.url, accepted.media.is_here) == (URL, False)
    assert b"marker" not in parts.blobs.read(job_files.manifest(job_id))
