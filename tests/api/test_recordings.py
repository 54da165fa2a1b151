"""The recording back: whole, in ranges, and under a name that cannot do harm."""

from io import BytesIO

import pytest
from flask.testing import FlaskClient

from api.recordings import disposition
from tests.api.conftest import Submit
from tests.support.worker_hand import WorkerHand


def test_whole_and_in_ranges(client: FlaskClient, submit: Submit, recording: bytes) -> None:
    link = submit()["links"]["audio"]

    whole = client.get(link)
    part = client.get(link, headers={"Range": "bytes=10-19"})
    tail = client.get(link, headers={"Range": "bytes=-4"})

    assert (whole.status_code, whole.data) == (200, recording)
    assert whole.headers["Accept-Ranges"] == "bytes"
    assert whole.headers["X-Content-Type-Options"] == "nosniff"
    assert (part.status_code, part.data) == (206, recording[10:20])
    assert part.headers["Content-Range"] == f"bytes 10-19/{len(recording)}"
    assert tail.data == recording[-4:]


def test_range_beyond_the_end_is_416(client: FlaskClient, submit: Submit, recording: bytes) -> None:
    answer = client.get(submit()["links"]["audio"], headers={"Range": "bytes=999999-"})

    assert answer.status_code == 416
    assert answer.headers["Content-Range"] == f"bytes */{len(recording)}"
    assert answer.content_type == "application/problem+json"


def test_known_etag_is_304(client: FlaskClient, submit: Submit) -> None:
    link = submit()["links"]["audio"]
    tag = client.get(link).headers["ETag"]

    assert client.get(link, headers={"If-None-Match": tag}).status_code == 304


def test_type_follows_the_container(client: FlaskClient, submit: Submit, worker: WorkerHand) -> None:
    job = submit()
    assert client.get(job["links"]["audio"]).content_type == "application/octet-stream"

    worker.complete(job["id"])

    assert client.get(job["links"]["audio"]).content_type == "audio/wav"


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("talk.wav", "attachment; filename=\"talk.wav\"; filename*=UTF-8''talk.wav"),
        ('a"b\\c.wav', "attachment; filename=\"abc.wav\"; filename*=UTF-8''a%22b%5Cc.wav"),
        ("ɔkɔm.wav", "attachment; filename=\"km.wav\"; filename*=UTF-8''%C9%94k%C9%94m.wav"),
        ("音", "attachment; filename=\"audio\"; filename*=UTF-8''%E9%9F%B3"),
    ],
)
def test_name_is_encoded(name: str, header: str) -> None:
    assert disposition(name) == header


def test_name_with_line_breaks_splits_no_header(client: FlaskClient) -> None:
    job = client.post("/v1/jobs", data={"file": (BytesIO(b"x"), "a\r\nX-Evil: 1.wav")}).json

    answer = client.get(job["links"]["audio"])

    assert "X-Evil" not in answer.headers
    assert answer.status_code == 200
