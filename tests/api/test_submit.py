"""Taking recordings in: every way to send one, and every way it is refused."""

import hashlib
import json
import socket
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from io import BytesIO
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from api import uploads
from api.app import create_app
from api.parts import Parts
from shared import job_files
from shared.ledger import Hint
from shared.redis_store import RedisStore
from shared.settings import Settings
from shared.task_queue import CeleryQueue, make_celery
from tests.api.conftest import Submit
from tests.support.object_store import ObjectStore
from tests.support.recording_queue import RecordingQueue
from tests.support.worker_hand import WorkerHand

Files = Callable[[], list[str]]


def form(*parts: tuple[str, bytes]) -> tuple[bytes, str]:
    """A multipart body, its parts in the order given; a name with `;` carries more of the header."""
    body = b"".join(
        b'--cut\r\nContent-Disposition: form-data; name="%s\r\n\r\n%s\r\n' % (head.encode(), value)
        for head, value in parts
    )
    return body + b"--cut--\r\n", "multipart/form-data; boundary=cut"


def post_form(client: FlaskClient, *parts: tuple[str, bytes]) -> TestResponse:
    body, content_type = form(*parts)
    return client.post("/v1/jobs", data=body, content_type=content_type)


FILE = 'file"; filename="talk.wav"'


def test_form_becomes_a_job_with_its_bytes_manifest_and_record(
    client: FlaskClient, parts: Parts, recording: bytes, files: Files
) -> None:
    answer = client.post(
        "/v1/jobs",
        data={"file": (BytesIO(recording), "talk.wav"), "language": "EN", "metadata": '{"order": "7"}'},
    )

    job = answer.json
    assert answer.status_code == 202
    assert answer.headers["Location"] == f"/v1/jobs/{job['id']}" == job["links"]["self"]
    assert answer.headers["Retry-After"] == "2"
    assert job["status"] == "queued"
    assert job["queue"] == {"position": 0, "ahead_s": 0.0}
    assert job["media"]["sha256"] == hashlib.sha256(recording).hexdigest()
    assert (job["media"]["name"], job["media"]["size_bytes"]) == ("talk.wav", len(recording))
    assert (job["options"]["language"], job["metadata"]) == ("en", {"order": "7"})
    assert parts.blobs.read(job_files.media(job["id"])) == recording
    assert job_files.read_manifest(parts.blobs, job["id"]).options == parts.jobs.get(job["id"]).options
    assert len(files()) == 2


@pytest.mark.parametrize(
    "content_type", ["audio/wav", "video/mp4", "application/octet-stream", "text/plain", ""]
)
def test_body_is_the_recording_and_options_stand_in_the_query(
    client: FlaskClient, recording: bytes, content_type: str
) -> None:
    answer = client.post(
        "/v1/jobs?language=en&name=talk.wav&tag=a", data=recording, headers={"Content-Type": content_type}
    )

    assert answer.status_code == 202, answer.text
    assert answer.json["media"]["sha256"] == hashlib.sha256(recording).hexdigest()
    assert answer.json["media"]["name"] == "talk.wav"
    assert answer.json["options"]["tag"] == "a"


def test_options_may_stand_behind_the_file(client: FlaskClient) -> None:
    answer = post_form(client, ('tag"', b"before"), (FILE, b"sound"), ('language"', b"en"))

    assert answer.status_code == 202
    assert (answer.json["options"]["tag"], answer.json["options"]["language"]) == ("before", "en")


def test_options_may_stand_in_the_query_of_a_form(client: FlaskClient) -> None:
    body, content_type = form((FILE, b"sound"))

    answer = client.post("/v1/jobs?tag=a", data=body, content_type=content_type)

    assert answer.json["options"]["tag"] == "a"


def test_empty_fields_of_a_form_count_as_left_out(client: FlaskClient) -> None:
    answer = post_form(client, (FILE, b"sound"), ('prompt"', b""), ('language"', b""))

    assert answer.status_code == 202
    assert (answer.json["options"]["prompt"], answer.json["options"]["language"]) == (None, "auto")


def test_boundary_over_chunk_borders_leaves_the_bytes_as_they_were(
    client: FlaskClient, parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "CHUNK_BYTES", 7)
    sound = b"\r\n--cu\r\r\n\n--cut-\r\n-" * 20

    answer = post_form(client, (FILE, sound), ('tag"', b"behind"))

    assert answer.status_code == 202
    assert parts.blobs.read(job_files.media(answer.json["id"])) == sound


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\\\talks\\\\one.wav", "one.wav"),
        ("a\x00b\x1b.wav", "ab.wav"),
        ("", "audio"),
        ("x" * 400, "x" * 255),
        ("ɔkɔm.wav", "ɔkɔm.wav"),
    ],
)
def test_file_name_is_only_shown(client: FlaskClient, given: str, shown: str) -> None:
    answer = post_form(client, (f'file"; filename="{given}"', b"sound"))

    assert answer.json["media"]["name"] == shown


def test_hint_is_sent_when_a_worker_is_up(submit: Submit, tasks: RecordingQueue, worker: WorkerHand) -> None:
    worker.come_up()

    job = submit()

    assert tasks.sent == [("prepare", Hint(job["id"], "prepare"))]


@pytest.mark.parametrize(
    ("parts_sent", "status", "field"),
    [
        ([('tag"', b"a")], 422, "file"),
        ([(FILE, b"a"), (FILE, b"b")], 422, "file"),
        ([(FILE, b"a"), ('tag"', b"a"), ('tag"', b"b")], 422, "tag"),
        ([(FILE, b"a"), ('other"; filename="x"', b"b")], 422, "other"),
        ([(FILE, b"a"), ('tag"', b"\xff")], 422, "tag"),
        ([(FILE, b"a"), ('bogus"', b"1"), ('priority"', b"99")], 422, "priority"),
        ([(FILE, b"")], 400, None),
        ([(FILE, b"a"), *((f't{n}"', b"a") for n in range(60))], 400, None),
        ([(FILE, b"a"), ('prompt"', b"a" * 300_000)], 413, None),
    ],
)
def test_bad_form_is_refused_and_leaves_nothing(
    client: FlaskClient, files: Files, parts_sent: Any, status: int, field: str | None
) -> None:
    answer = post_form(client, *parts_sent)

    assert answer.status_code == status, answer.text
    assert answer.content_type == "application/problem+json"
    assert field is None or field in [error["field"] for error in answer.json["errors"]]
    assert files() == []


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b"--cut\r\nContent-Disposition: form-data; name=", "multipart/form-data; boundary=cut", 400),
        (b"no boundary at all", "multipart/form-data; boundary=cut", 400),
        (b"--cut\r\n\r\nno headers\r\n--cut--", "multipart/form-data; boundary=cut", 400),
        (b"x", "multipart/form-data", 400),
        (b"a=b", "application/x-www-form-urlencoded", 415),
    ],
)
def test_broken_bodies_are_refused_and_leave_nothing(
    client: FlaskClient, files: Files, body: bytes, content_type: str, status: int
) -> None:
    answer = client.post("/v1/jobs", data=body, content_type=content_type)

    assert answer.status_code == status, answer.text
    assert files() == []


def test_body_must_have_a_length_or_an_end(client: FlaskClient) -> None:
    answer = client.post("/v1/jobs", data=b"", content_type="audio/wav")

    assert (answer.status_code, answer.json["code"]) == (411, "length_required")


def test_empty_body_is_refused(client: FlaskClient, files: Files) -> None:
    answer = client.post(
        "/v1/jobs", data=b"", content_type="audio/wav", environ_overrides={"CONTENT_LENGTH": "0"}
    )

    assert (answer.status_code, answer.json["detail"]) == (400, "The file is empty.")
    assert files() == []


def test_body_shorter_than_declared_is_refused_and_leaves_nothing(client: FlaskClient, files: Files) -> None:
    answer = client.post(
        "/v1/jobs",
        data=b"sound",
        content_type="audio/wav",
        environ_overrides={"CONTENT_LENGTH": "99"},
    )

    assert (answer.status_code, answer.json["code"]) == (400, "incomplete_upload")
    assert files() == []


class TestLimit:
    """`max_upload_bytes` holds at that byte, whatever the body says of itself."""

    LIMIT = 2048

    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return settings.model_copy(update={"max_upload_bytes": self.LIMIT})

    def test_at_the_limit_is_taken(self, client: FlaskClient) -> None:
        assert client.post("/v1/jobs", data=b"x" * self.LIMIT, content_type="audio/wav").status_code == 202
        assert post_form(client, (FILE, b"x" * self.LIMIT)).status_code == 202

    def test_one_byte_more_is_refused_before_it_is_read(self, client: FlaskClient, files: Files) -> None:
        stream = BytesIO(b"x" * (self.LIMIT + 1))

        answer = client.post("/v1/jobs", input_stream=stream, content_type="audio/wav")

        assert (answer.status_code, answer.json["code"]) == (413, "too_large")
        assert stream.tell() == 0
        assert files() == []

    def test_one_byte_more_in_a_form_or_in_chunks_is_cut(self, client: FlaskClient, files: Files) -> None:
        in_form = post_form(client, (FILE, b"x" * (self.LIMIT + 1)))
        in_chunks = client.post(
            "/v1/jobs",
            input_stream=BytesIO(b"x" * (self.LIMIT + 1)),
            environ_overrides={"wsgi.input_terminated": True, "CONTENT_LENGTH": ""},
            headers={"Transfer-Encoding": "chunked"},
            content_type="audio/wav",
        )

        assert [in_form.status_code, in_chunks.status_code] == [413, 413]
        assert files() == []


def test_full_disk_is_refused_with_a_time_to_come_back(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch, files: Files
) -> None:
    monkeypatch.setattr(uploads, "RESERVE_BYTES", 2**62)

    answer = client.post("/v1/jobs", data=b"sound", content_type="audio/wav")

    assert (answer.status_code, answer.json["code"]) == (507, "storage_full")
    assert answer.headers["Retry-After"] == "30"
    assert files() == []


def test_job_store_away_is_503_and_leaves_nothing(
    settings: Settings, tasks: RecordingQueue, files: Files
) -> None:
    nowhere = settings.model_copy(update={"redis_url": "unix:///nowhere/redis.sock"})

    answer = (
        create_app(nowhere, tasks).test_client().post("/v1/jobs", data=b"sound", content_type="audio/wav")
    )

    assert (answer.status_code, answer.json["code"]) == (503, "store_unavailable")
    assert int(answer.headers["Retry-After"]) > 0
    assert files() == []


class TestIdempotencyKey:
    def send(self, client: FlaskClient, key: str, body: bytes = b"sound", query: str = "") -> TestResponse:
        return client.post(
            f"/v1/jobs?{query}", data=body, content_type="audio/wav", headers={"Idempotency-Key": key}
        )

    def test_same_request_gives_the_first_job(self, client: FlaskClient, files: Files) -> None:
        first, again = self.send(client, "k1"), self.send(client, "k1")

        assert (first.status_code, again.status_code) == (202, 202)
        assert first.json["id"] == again.json["id"]
        assert "Idempotent-Replayed" not in first.headers
        assert again.headers["Idempotent-Replayed"] == "true"
        assert len(files()) == 2

    @pytest.mark.parametrize(("body", "query"), [(b"other", ""), (b"sound", "language=en")])
    def test_another_request_is_refused(
        self, client: FlaskClient, files: Files, body: bytes, query: str
    ) -> None:
        self.send(client, "k1")

        answer = self.send(client, "k1", body, query)

        assert (answer.status_code, answer.json["code"]) == (409, "idempotency_mismatch")
        assert len(files()) == 2

    def test_another_key_makes_another_job(self, client: FlaskClient) -> None:
        assert self.send(client, "k1").json["id"] != self.send(client, "k2").json["id"]

    @pytest.mark.parametrize("key", ["", "a\tb", "x" * 256, "\xe9"])
    def test_key_must_be_plain(self, client: FlaskClient, key: str) -> None:
        assert self.send(client, key).status_code == 422


def test_ids_are_long_and_random(submit: Submit) -> None:
    ids = {submit()["id"] for _ in range(5)}

    assert len(ids) == 5
    assert all(len(job_id.removeprefix("job_")) == 26 for job_id in ids)


def test_webhook_secrets_do_not_come_back(submit: Submit, client: FlaskClient) -> None:
    job = submit(
        webhook_url="https://example.org/hook?token=s3cret",
        webhook_auth_header_name="X-Key",
        webhook_auth_header_value="s3cret",
    )

    again = client.get(job["links"]["self"])
    assert job["webhook"] == {"url": "https://example.org/hook", "status": None}
    assert job["options"]["webhook_auth_header_name"] == "X-Key"
    assert "s3cret" not in json.dumps(job) + again.text


@pytest.mark.service
class TestObjectStore:
    """A store that is no disk: the upload goes there as it comes."""

    @pytest.fixture
    def settings(self, settings: Settings, objects: ObjectStore) -> Settings:
        given = {name: getattr(settings, name) for name in settings.model_fields_set}
        return Settings(**(given | objects.settings()))

    def test_takes_and_gives_back(self, client: FlaskClient, submit: Submit, recording: bytes) -> None:
        job = submit()

        assert client.get(job["links"]["audio"]).data == recording
        assert client.get(job["links"]["audio"], headers={"Range": "bytes=4-7"}).data == recording[4:8]
        assert client.delete(job["links"]["self"]).status_code == 204
        assert client.get(job["links"]["audio"]).status_code == 404

    def test_keeps_nothing_of_an_upload_it_refuses(self, client: FlaskClient, parts: Parts) -> None:
        """Its first part is in the store when the form turns out to be wrong."""
        disposition = b"--x\r\nContent-Disposition: form-data; name="
        file = disposition + b'"file"; filename="talk.wav"\r\n\r\n' + bytes(6 * 2**20)
        form = file + b"\r\n" + disposition + b'"temperature"\r\n\r\nhot\r\n--x--\r\n'

        answer = client.post("/v1/jobs", data=form, content_type="multipart/form-data; boundary=x")

        assert answer.status_code == 422
        assert parts.blobs.folders("jobs") == ()
        assert parts.blobs.remove_drafts(-1, datetime.now(UTC) + timedelta(seconds=60)) == 0

    def test_a_repeat_is_given_the_job_and_leaves_no_second_recording(
        self, client: FlaskClient, parts: Parts, recording: bytes
    ) -> None:
        send = {"data": recording, "content_type": "audio/wav", "headers": {"Idempotency-Key": "k"}}

        job, again = (client.post("/v1/jobs", **send).json for _ in range(2))

        assert job["id"] == again["id"]
        stored = [name for name in parts.blobs.folders("jobs") if parts.blobs.exists(job_files.media(name))]
        assert stored == [job["id"]]

    def test_a_retry_has_the_recording_too(
        self, client: FlaskClient, submit: Submit, recording: bytes
    ) -> None:
        job = submit()
        client.post(job["links"]["cancel"])
        again = client.post(job["links"]["retry"]).json
        client.delete(job["links"]["self"])

        assert client.get(again["links"]["audio"]).data == recording

    def test_is_ready_and_says_when_it_is_not(
        self, client: FlaskClient, settings: Settings, store: RedisStore
    ) -> None:
        assert client.get("/readyz").status_code == 200

        with socket.create_server(("127.0.0.1", 0)) as closed:
            address = f"http://127.0.0.1:{closed.getsockname()[1]}"
        away = create_app(settings.model_copy(update={"s3_endpoint": address}), RecordingQueue())
        answer = away.test_client().get("/readyz")
        assert (answer.status_code, answer.json["code"]) == (503, "storage_unavailable")


@pytest.mark.slow
def test_broker_that_is_away_fails_no_request(
    settings: Settings, store: RedisStore, client: FlaskClient, worker: WorkerHand
) -> None:
    worker.come_up()
    nowhere = CeleryQueue(make_celery("unix:///nowhere/redis.sock"))
    app = create_app(settings, nowhere)

    answer = app.test_client().post("/v1/jobs", data=b"sound", content_type="audio/wav")

    assert answer.status_code == 202
    assert client.get(answer.json["links"]["self"]).json["status"] == "queued"


def test_a_repeat_makes_nothing_of_what_has_expired(
    client: FlaskClient, recording: bytes, parts: Parts, files: Callable[[], list[str]]
) -> None:
    """Its data is gone; were there a manifest again, it would be run anew when Redis forgets."""
    send = {"data": recording, "content_type": "audio/wav", "headers": {"Idempotency-Key": "k"}}
    job = client.post("/v1/jobs", **send).json
    client.post(job["links"]["cancel"])
    parts.blobs.remove_folder(job_files.folder(job["id"]))
    parts.jobs.expire(job["id"], 600)

    again = client.post("/v1/jobs", **send)

    assert (again.status_code, again.json["id"], again.json["status"]) == (202, job["id"], "expired")
    assert files() == []
