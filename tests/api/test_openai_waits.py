"""OpenAI's answers while the job takes long: what keeps a client waiting, and what ends it."""

import json
import threading
from collections.abc import Iterator
from io import BytesIO

import openai
import pysubs2
import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.serving import WSGIRequestHandler, make_server

from api import openai_audio
from shared.errors import NoAudio
from shared.job import Failure
from tests.support.waiting import wait_until
from tests.support.worker_hand import WorkerHand

pytestmark = pytest.mark.redis


@pytest.mark.parametrize("format", ["json", "verbose_json", "text", "srt", "vtt"])
def test_a_long_wait_is_padded_and_reads_the_same(
    client: FlaskClient, worker: WorkerHand, monkeypatch: pytest.MonkeyPatch, recording: bytes, format: str
) -> None:
    monkeypatch.setattr(openai_audio, "SILENT_S", 0.0)
    monkeypatch.setattr(openai_audio, "PAD_S", 0.05)
    chunks = _begin(client, recording, format)
    begun = [next(chunks), next(chunks)]
    worker.complete(client.get("/v1/jobs").json["jobs"][0]["id"])

    text = b"".join([*begun, *chunks]).decode()

    if format.endswith("json"):
        assert json.loads(text)["text"] == "Good morning."
    elif format == "text":
        assert text.strip() == "Good morning."
    else:
        (cue,) = pysubs2.SSAFile.from_string(text, format_=format)
        assert (cue.start, cue.end, cue.text) == (0, 1500, "Good morning.")
    assert not text.startswith("\n") or format != "vtt"


def test_an_answer_that_has_begun_breaks_off_when_the_job_fails(
    client: FlaskClient, worker: WorkerHand, monkeypatch: pytest.MonkeyPatch, recording: bytes
) -> None:
    """A whole answer with status 200 would be a success."""
    monkeypatch.setattr(openai_audio, "SILENT_S", 0.0)
    monkeypatch.setattr(openai_audio, "PAD_S", 0.05)
    chunks = _begin(client, recording, "json")
    next(chunks)
    worker.fail(client.get("/v1/jobs").json["jobs"][0]["id"], Failure("no_audio", "There is none.", False))

    with pytest.raises(NoAudio):
        list(chunks)


def test_nothing_is_begun_where_breaking_off_cannot_be_seen(
    client: FlaskClient, worker: WorkerHand, monkeypatch: pytest.MonkeyPatch, recording: bytes
) -> None:
    monkeypatch.setattr(openai_audio, "SILENT_S", 0.0)

    def fail() -> None:
        (job,) = client.get("/v1/jobs").json["jobs"]
        worker.fail(job["id"], Failure("no_audio", "There is none.", False))

    timer = threading.Timer(0.3, fail)
    timer.start()
    answer = client.post(
        "/v1/audio/transcriptions",
        data={"file": (BytesIO(recording), "a.wav")},
        environ_overrides={"SERVER_PROTOCOL": "HTTP/1.0"},
    )
    timer.join()

    assert (answer.status_code, answer.json["error"]["code"]) == (400, "no_audio")
    assert answer.headers["X-Should-Retry"] == "false"


class _Http11(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_request(self, *_: object) -> None:
        """Nothing: the test's output is its own."""


@pytest.fixture
def openai_client(app: Flask) -> Iterator[openai.OpenAI]:
    """Has no patience with silence. In this process, so that the test can shorten the pauses."""
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=_Http11)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    url = f"http://127.0.0.1:{server.port}/v1"
    with openai.OpenAI(base_url=url, api_key="any", max_retries=0, timeout=6.0) as client:
        yield client
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.slow
@pytest.mark.calm
def test_its_client_waits_longer_than_it_bears_silence(
    openai_client: openai.OpenAI,
    client: FlaskClient,
    worker: WorkerHand,
    monkeypatch: pytest.MonkeyPatch,
    recording: bytes,
) -> None:
    monkeypatch.setattr(openai_audio, "SILENT_S", 0.2)
    monkeypatch.setattr(openai_audio, "PAD_S", 0.2)
    timer = threading.Timer(15.0, _end_the_only, [client, worker])
    timer.start()

    answer = openai_client.audio.transcriptions.create(file=("a.wav", recording), model="whisper-1")
    timer.join()

    assert answer.text == "Good morning."


def test_its_client_takes_what_breaks_off_for_a_failure(
    openai_client: openai.OpenAI,
    client: FlaskClient,
    worker: WorkerHand,
    monkeypatch: pytest.MonkeyPatch,
    recording: bytes,
) -> None:
    monkeypatch.setattr(openai_audio, "SILENT_S", 0.0)
    monkeypatch.setattr(openai_audio, "PAD_S", 0.05)
    failure = Failure("no_audio", "There is none.", False)
    timer = threading.Timer(0.3, _end_the_only, [client, worker, failure])
    timer.start()

    with pytest.raises(openai.APIConnectionError):
        openai_client.audio.transcriptions.create(file=("a.wav", recording), model="whisper-1")
    timer.join()


def _end_the_only(client: FlaskClient, worker: WorkerHand, failure: Failure | None = None) -> None:
    wait_until(lambda: client.get("/v1/jobs").json["jobs"], 60)
    (job,) = client.get("/v1/jobs").json["jobs"]
    if failure:
        worker.fail(job["id"], failure)
    else:
        worker.complete(job["id"])


def _begin(client: FlaskClient, recording: bytes, format: str) -> Iterator[bytes]:
    answer = client.post(
        "/v1/audio/transcriptions",
        data={"file": (BytesIO(recording), "a.wav"), "model": "whisper-1", "response_format": format},
        buffered=False,
    )
    assert answer.status_code == 200
    return iter(answer.response)
