"""When the gate is open and when it is not, and what a client is told of keys and limits."""

import shutil
from collections.abc import Callable
from io import BytesIO

import pytest
from flask import Flask
from flask.testing import FlaskClient

from api.app import create_app
from api.parts import EXTENSION, Parts
from shared import job_files
from shared.api_keys import new_id, new_secret, written
from shared.job import Failure
from shared.key_ring import KeyRing
from shared.redis_store import RedisStore
from shared.settings import Settings
from tests.api.conftest import Submit
from tests.support.keys import bearer, make_key
from tests.support.recording_queue import RecordingQueue
from tests.support.worker_hand import WorkerHand

pytestmark = pytest.mark.redis

Open = Callable[..., FlaskClient]


@pytest.fixture
def ring(parts: Parts) -> KeyRing:
    return KeyRing(parts.store, parts.blobs)


@pytest.fixture
def another(settings: Settings, request: pytest.FixtureRequest) -> Open:
    """Another process of the API on the same Redis and folder, which has seen nothing yet."""

    def start(**more: object) -> FlaskClient:
        app: Flask = create_app(settings.model_copy(update=more), RecordingQueue())
        request.addfinalizer(app.extensions[EXTENSION].store.client.close)
        return app.test_client()

    return start


def status(client: FlaskClient, key: str | None = None) -> int:
    return client.get("/v1/jobs", headers=bearer(key) if key else {}).status_code


def test_no_key_is_asked_for_until_there_is_one(client: FlaskClient, ring: KeyRing, submit: Submit) -> None:
    assert submit()["status"] == "queued"
    # OpenAI's client sends one whatever there is.
    assert status(client, "sk-anything") == 200

    _, key = make_key(ring, tenant="default")

    assert status(client) == 401
    assert status(client, "sk-anything") == 401
    assert len(client.get("/v1/jobs", headers=bearer(key)).json["jobs"]) == 1


@pytest.mark.parametrize(("host", "trusted", "expected"), [("0.0.0.0", False, 401), ("0.0.0.0", True, 200)])
@pytest.mark.usefixtures("client")
def test_where_others_come_keys_are_asked_for_from_the_first(
    another: Open, host: str, trusted: bool, expected: int
) -> None:
    assert status(another(host=host, trusted_network=trusted)) == expected


def test_a_proxy_on_this_machine_is_the_world(client: FlaskClient, another: Open) -> None:
    for header in ("X-Forwarded-For", "Forwarded", "Via", "X-Real-Ip"):
        headers = {header: "203.0.113.7"}
        assert client.get("/v1/jobs", headers=headers).status_code == 401
        assert another(trusted_network=True).get("/v1/jobs", headers=headers).status_code == 200


def test_revoking_the_last_key_opens_nothing(client: FlaskClient, ring: KeyRing, another: Open) -> None:
    _, key = make_key(ring, revoked_ms=1)

    for one in (client, another()):
        assert status(one) == 401
        answer = one.get("/v1/jobs", headers=bearer(key))
        assert (answer.status_code, answer.json["detail"]) == (401, "The API key was revoked.")


def test_an_expired_key_is_told_to_its_owner(client: FlaskClient, ring: KeyRing) -> None:
    _, key = make_key(ring, expires_ms=1)

    answer = client.get("/v1/jobs", headers=bearer(key))

    assert (answer.status_code, answer.json["detail"]) == (401, "The API key has expired.")
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="ananse", error="invalid_token"'


@pytest.mark.parametrize("is_seen", [True, False])
def test_a_redis_that_lost_all_opens_nothing(
    client: FlaskClient, ring: KeyRing, store: RedisStore, another: Open, is_seen: bool
) -> None:
    """Neither where the keys were known, nor to a process that is new."""
    _, key = make_key(ring)
    assert status(client, key) == 200
    store.client.flushall()
    asked = client if is_seen else another()

    for _ in range(2):
        assert status(asked) == 401
        # The key itself holds: its copy is there.
        assert asked.get("/v1/models", headers=bearer(key)).status_code == 200
        ring.restore()


def test_a_folder_that_is_away_closes_nothing(
    client: FlaskClient, ring: KeyRing, settings: Settings, submit: Submit
) -> None:
    """Where no key was ever made, and Redis knows that."""
    ring.restore()
    job_id = submit()["id"]
    shutil.rmtree(settings.blob_url.removeprefix("file://"))

    assert client.get(f"/v1/jobs/{job_id}").status_code == 200


def test_a_job_store_that_is_away_lets_nobody_in(another: Open) -> None:
    client = another(redis_url="unix:///nowhere/redis.sock")

    assert client.get("/v1/models").status_code == 503
    assert client.get("/livez").status_code == 200
    assert client.get("/metrics").status_code == 200


def test_every_answer_to_a_key_tells_its_limit(another: Open, ring: KeyRing) -> None:
    client = another(key_requests_per_min=60)
    _, key = make_key(ring)

    answers = [client.get("/v1/models", headers=bearer(key)) for _ in range(2)]

    assert [answer.headers["RateLimit-Policy"] for answer in answers] == ['"requests";q=60;w=60'] * 2
    assert answers[0].headers["RateLimit"] == '"requests";r=59;t=1'
    assert answers[1].headers["RateLimit"] == '"requests";r=58;t=2'
    assert "RateLimit" not in client.get("/livez").headers


def test_too_many_requests_are_told_when_to_come_again(another: Open, ring: KeyRing) -> None:
    client = another(key_requests_per_min=2)
    _, key = make_key(ring)
    assert [status(client, key) for _ in range(2)] == [200, 200]

    answer = client.get("/v1/jobs", headers=bearer(key))

    assert (answer.status_code, answer.json["code"]) == (429, "rate_limited")
    assert answer.headers["Retry-After"] == "30"
    assert answer.headers["RateLimit"] == '"requests";r=0;t=60'
    # Who has no valid key is none of its owner's requests, and is told of no limit.
    assert status(client, key[:-1] + "?") == 401
    assert status(client, make_key(ring, "kofi")[1]) == 200


def test_wrong_keys_are_told_to_wait_and_right_ones_let_in(another: Open, ring: KeyRing) -> None:
    """All of one address, as behind a proxy."""
    client = another(wrong_keys_per_min=3)
    known, key = make_key(ring)
    _, gone = make_key(ring, "gone", revoked_ms=1)
    wrong = ["sk-anything", written(known.id, new_secret()), written(new_id(), new_secret())]
    assert [status(client, one) for one in wrong] == [401] * 3

    for one in wrong:
        answer = client.get("/v1/jobs", headers=bearer(one))
        assert (answer.status_code, answer.json["code"]) == (429, "too_many_wrong_keys")
        assert int(answer.headers["Retry-After"]) in range(15, 21)
    # Who has none, or one of another day, is told that.
    assert [status(client), status(client, gone)] == [401, 401]
    assert status(client, key) == 200


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("203.0.113.7", "203.0.113.8", 401),
        ("203.0.113.7", "::ffff:203.0.113.7", 429),
        ("2001:db8::1", "2001:db8::ffff:2", 429),
        ("2001:db8::1", "2001:db8:0:1::1", 401),
    ],
)
def test_wrong_keys_count_for_whom_the_address_belongs_to(
    another: Open, ring: KeyRing, first: str, second: str, expected: int
) -> None:
    make_key(ring)
    client = another(wrong_keys_per_min=1)

    told = [
        client.get(
            "/v1/jobs", headers=bearer("wrong"), environ_overrides={"REMOTE_ADDR": address}
        ).status_code
        for address in (first, second)
    ]

    assert told == [401, expected]


def test_a_full_key_is_told_before_its_recording_is_read(
    another: Open, ring: KeyRing, parts: Parts, recording: bytes
) -> None:
    client = another(key_jobs=1)
    _, key = make_key(ring)

    def send(**more: str) -> tuple[int, str]:
        form = {"file": (BytesIO(recording), "talk.wav")}
        answer = client.post("/v1/jobs", data=form, headers=bearer(key) | more)
        return answer.status_code, answer.json.get("code", answer.json.get("id"))

    accepted, job_id = send()
    assert accepted == 202
    assert send() == (429, "too_many_jobs")
    cut = {"CONTENT_LENGTH": str(len(recording) + 1)}
    body = {"data": recording, "content_type": "audio/wav", "headers": bearer(key)}
    unread = client.post("/v1/jobs", environ_overrides=cut, **body)
    assert unread.json["code"] == "too_many_jobs", "read to its end, it would be incomplete"
    # With a key of its own it may be one that was taken before, so it is read, and gone again.
    assert send(**{"Idempotency-Key": "k"}) == (429, "too_many_jobs")
    assert parts.blobs.folders("jobs") == (job_id,)

    assert client.post(f"/v1/jobs/{job_id}/cancel", headers=bearer(key)).status_code == 200
    assert send()[0] == 202


def test_the_reached_limit_stands_in_the_headers(another: Open, ring: KeyRing, recording: bytes) -> None:
    client = another(key_stored_bytes=len(recording))
    _, key = make_key(ring)
    codes = []
    for _ in range(2):
        answer = client.post("/v1/jobs", data=recording, content_type="audio/wav", headers=bearer(key))
        codes.append(answer.status_code)

    assert codes == [202, 429]
    assert f'"stored-bytes";q={len(recording)}' in answer.headers["RateLimit-Policy"]
    assert answer.headers["RateLimit"].endswith('"stored-bytes";r=0')


@pytest.mark.parametrize("limit", [{"key_audio_s": 0.05}, {"key_stored_bytes": 1000}])
def test_a_recording_that_never_fits_is_not_told_to_wait(
    another: Open, ring: KeyRing, recording: bytes, limit: dict[str, float]
) -> None:
    """With an Idempotency-Key it is read first, and gone again."""
    _, key = make_key(ring)
    client = another(**limit)
    for more in ({}, {"Idempotency-Key": "k"}):
        body = {"data": recording, "content_type": "audio/wav", "headers": bearer(key) | more}

        answer = client.post("/v1/jobs", **body)

        assert (answer.status_code, answer.json["code"]) == (413, "too_large")
        assert "the API key may have" in answer.json["detail"]
        assert "Retry-After" not in answer.headers


def test_what_never_fits_is_refused_unread(another: Open, ring: KeyRing) -> None:
    _, key = make_key(ring)
    stream = BytesIO(bytes(200_000))
    sent = {"input_stream": stream, "content_type": "audio/wav", "headers": bearer(key)}

    answer = another(key_stored_bytes=100_000).post("/v1/jobs", **sent)

    assert (answer.status_code, answer.json["code"]) == (413, "too_large")
    assert stream.tell() == 0


def test_a_retry_counts_for_who_retries(
    client: FlaskClient, ring: KeyRing, parts: Parts, worker: WorkerHand, submit: Submit
) -> None:
    job_id = submit()["id"]
    worker.fail(job_id, Failure("no_audio", "None.", False))
    owner, key = make_key(ring, tenant="default")

    again = client.post(f"/v1/jobs/{job_id}/retry", headers=bearer(key)).json["id"]

    assert parts.usage.of(owner.id).jobs == 1
    assert job_files.read_manifest(parts.blobs, again).key_id == owner.id
    assert client.delete(f"/v1/jobs/{again}", headers=bearer(key)).status_code == 204
    assert parts.usage.of(owner.id).stored_bytes == 0
