"""Fixtures of the API's tests: an app on a real, empty Redis, a recording to send, and a worker's hand."""

import wave
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from api.app import create_app
from api.parts import EXTENSION, Parts
from shared.ledger import Ledger
from shared.redis_store import RedisStore
from shared.settings import Settings
from tests.support.recording_queue import RecordingQueue
from tests.support.worker_hand import WorkerHand

Submit = Callable[..., dict[str, Any]]


@pytest.fixture
def tasks() -> RecordingQueue:
    return RecordingQueue()


@pytest.fixture
def app(settings: Settings, store: RedisStore, tasks: RecordingQueue) -> Iterator[Flask]:
    app = create_app(settings, tasks)
    yield app
    app.extensions[EXTENSION].jobs._store.client.close()


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def parts(app: Flask) -> Parts:
    held: Parts = app.extensions[EXTENSION]
    return held


@pytest.fixture
def worker(parts: Parts, ledger: Ledger) -> WorkerHand:
    return WorkerHand(ledger, parts.fleet, parts.blobs)


@pytest.fixture(scope="session")
def recording() -> bytes:
    """A tenth of a second of silence; the API never looks inside."""
    out = BytesIO()
    with wave.open(out, "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(bytes(3_200))
    return out.getvalue()


@pytest.fixture
def submit(client: FlaskClient, recording: bytes) -> Submit:
    """Submits the recording with options; the job as answered."""

    def send(**options: str) -> dict[str, Any]:
        answer = client.post("/v1/jobs", data=options | {"file": (BytesIO(recording), "talk.wav")})
        assert answer.status_code == 202, answer.text
        job: dict[str, Any] = answer.json
        return job

    return send


@pytest.fixture
def files(settings: Settings) -> Callable[[], list[str]]:
    """Names of all files in the blob store."""
    root = Path(settings.blob_url.removeprefix("file://"))
    return lambda: sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())
