"""Error codes and the cases that produce them: the table, the service a case acts on, and what holds for a
failure whatever its code."""

import json
import re
import wave
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from flask.testing import FlaskClient
from standardwebhooks import Webhook
from werkzeug.test import TestResponse

from api.app import create_app
from api.parts import EXTENSION, Parts
from api.problems import PROBLEM_TYPE, error_class
from shared.errors import DependencyError, JobError, LimitReached, NotReady, ServiceError
from shared.job import Status
from shared.key_ring import KeyRing
from shared.redis_store import RedisStore
from shared.settings import Settings
from tests.fakes import Script, ScriptedRunner
from tests.support.recording_queue import RecordingQueue
from tests.support.worker_context import MODEL, SECRET, worker_context
from tests.worker.receiver import Receiver, http, receiver
from worker.steps import perform

ELSEWHERE = "elsewhere"
"""A model that is offered and that no worker of a test holds."""

SAY_WHEN: tuple[type[ServiceError], ...] = (DependencyError, LimitReached, NotReady)
"""What passes by itself tells with Retry-After when to come again."""

_INSIDE = re.compile(
    r"Traceback|\w+Error\b|Exception|File \"|(?<![\w/])/(?!v1/)\w+|\.py\b|0x[0-9a-f]{4}|redis|errno", re.I
)
"""What no client is told: paths, traces, names of our parts."""

T = TypeVar("T")
Act = Callable[["Doors"], T]


@dataclass(frozen=True, slots=True)
class Case(Generic[T]):
    """`act` makes it happen; `settings` are what it needs beside the usual ones."""

    act: Act[T]
    settings: dict[str, object]


class Table(dict[str, Case[T]]):
    """The case of each code."""

    def produces(self, code: str, **settings: object) -> Callable[[Act[T]], Act[T]]:
        """Puts the function below it into the table."""

        def register(act: Act[T]) -> Act[T]:
            assert code not in self, f"{code} has a case already"
            self[code] = Case(act, settings)
            return act

        return register


@dataclass(frozen=True, slots=True)
class Sent:
    """A recording as it was sent, to be sent again."""

    content: bytes
    query: dict[str, str]
    headers: dict[str, str]
    content_type: str = "audio/wav"


@dataclass(slots=True)
class Doors:
    """The public doors of one service: the API by its client, the worker by its steps.

    Webhooks go to `hook`."""

    client: FlaskClient
    settings: Settings
    store: RedisStore
    hook: Receiver
    sent: dict[str, Sent] = field(default_factory=dict)

    @property
    def parts(self) -> Parts:
        held: Parts = self.client.application.extensions[EXTENSION]
        return held

    @property
    def keys(self) -> KeyRing:
        return KeyRing(self.store, self.parts.blobs)

    @property
    def blobs_root(self) -> Path:
        return Path(self.settings.blob_url.removeprefix("file://"))

    def submit(self, content: bytes = b"sound", **options: str) -> str:
        """The id of a new job."""
        answer = self.send(content, **options)
        assert answer.status_code == 202, answer.text
        return str(json.loads(answer.text)["id"])

    def send(self, content: bytes, **options: str) -> TestResponse:
        query = {"vad": "off", "webhook_url": self.hook.url()} | options
        return self._send(Sent(content, query, {"Idempotency-Key": f"key-{len(self.sent)}"}))

    def submit_url(self, url: str) -> str:
        """The id of a new job whose recording lies there."""
        asked = {"audio_url": url, "vad": "off", "webhook_url": self.hook.url()}
        key = {"Idempotency-Key": f"key-{len(self.sent)}"}
        answer = self._send(Sent(json.dumps(asked).encode(), {}, key, "application/json"))
        assert answer.status_code == 202, answer.text
        return str(json.loads(answer.text)["id"])

    def _send(self, sent: Sent) -> TestResponse:
        answer = self._post("/v1/jobs", sent)
        if answer.status_code == 202:
            self.sent[json.loads(answer.text)["id"]] = sent
        return answer

    def wait_for(self, job_id: str) -> TestResponse:
        """What a client gets that waits for the job: sent again with its key, it makes no other."""
        return self._post("/transcribe", self.sent[job_id])

    def work(self, job_id: str, *steps: str, script: Script | None = None) -> str:
        """Does these steps one after another; `script` is that of the worker's model. Gives the id again."""
        with worker_context(self.settings, self.store, ScriptedRunner(script)) as context:
            for step in steps:
                perform(job_id, step, context)
        return job_id

    def get(self, job_id: str, path: str = "", **headers: str) -> TestResponse:
        return self.client.get(f"/v1/jobs/{job_id}{path}", headers=headers)

    def job(self, job_id: str) -> dict[str, Any]:
        """As the API shows it."""
        shown: dict[str, Any] = json.loads(self.get(job_id).text)
        return shown

    def _post(self, path: str, sent: Sent) -> TestResponse:
        return self.client.post(
            path,
            data=sent.content,
            query_string=sent.query,
            headers=sent.headers,
            content_type=sent.content_type,
        )


@contextmanager
def opened(settings: Settings, store: RedisStore, case: Case[Any]) -> Iterator[Doors]:
    """A service with the settings the case needs."""
    usual: dict[str, object] = {
        "models": f"{MODEL}=tests/{MODEL},{ELSEWHERE}=tests/{ELSEWHERE}",
        "webhook_allow": (ip_network("127.0.0.0/8"),),
    }
    given = {name: getattr(settings, name) for name in settings.model_fields_set}
    own = Settings(**(given | usual | case.settings))
    app = create_app(own, RecordingQueue())
    try:
        with receiver(http(204)) as hook:
            yield Doors(app.test_client(), own, store, hook)
    finally:
        app.extensions[EXTENSION].jobs._store.client.close()


def check_problem(answer: TestResponse, code: str) -> str:
    """A problem document that names `code`, with all that its class fixes; the detail it gives."""
    kind = error_class(code)
    document = json.loads(answer.text)
    assert (answer.status_code, document.get("code")) == (kind.status, code), answer.text
    assert answer.content_type == PROBLEM_TYPE
    assert (document["status"], document["title"]) == (kind.status, kind.title)
    assert document["type"] == f"/problems/{code}"
    assert document["request_id"] == answer.headers["X-Request-ID"]
    assert answer.headers["Cache-Control"] == "no-store"
    assert ("Retry-After" in answer.headers) is issubclass(kind, SAY_WHEN)
    if issubclass(kind, SAY_WHEN):
        assert int(answer.headers["Retry-After"]) >= 1
    check_detail(document["detail"])
    return str(document["detail"])


def check_failure(doors: Doors, job_id: str, code: str) -> None:
    """A job that failed with `code`: its record, its webhook and the answer to a client that waits say so.
    Whoever asks for the transcript is told the same sentence."""
    job = doors.job(job_id)
    assert (job["status"], (job["error"] or {}).get("code")) == (Status.FAILED, code), job
    assert job["error"]["retryable"] is failure_class(code).retryable
    check_detail(job["error"]["detail"])

    assert webhook_of(doors, job_id)["error"] == job["error"]
    assert check_problem(doors.wait_for(job_id), code) == job["error"]["detail"]
    assert check_problem(doors.get(job_id, "/transcript"), "no_transcript") == job["error"]["detail"]


def check_detail(detail: str) -> None:
    """A sentence for people, which tells nothing of our inside."""
    assert detail
    assert detail == " ".join(detail.split())
    assert not _INSIDE.search(detail), detail


def webhook_of(doors: Doors, job_id: str) -> dict[str, Any]:
    """What the job's receiver is told, its signature checked."""
    doors.work(job_id, "deliver-0")
    head, _, body = doors.hook.requests[-1].partition(b"\r\n\r\n")
    lines = [line.partition(": ") for line in head.decode().split("\r\n")[1:]]
    event = Webhook(SECRET).verify(body, {name.lower(): value for name, _, value in lines})
    told: dict[str, Any] = event["data"]
    assert (event["type"], told["id"], told["status"]) == ("job.failed", job_id, "failed")
    return told


def failure_class(code: str) -> type[JobError]:
    """The class of a code that ends a job."""
    return next(kind for kind in below(JobError) if kind.code == code)


def below(root: type[T]) -> Iterator[type[T]]:
    for kind in root.__subclasses__():
        yield kind
        yield from below(kind)


def sound(seconds: float = 1.0, rate: int = 16_000) -> bytes:
    """A WAV of noise, the same at every call."""
    samples = np.random.default_rng(7).integers(-8_000, 8_000, round(seconds * rate), np.int16)
    out = BytesIO()
    with wave.open(out, "wb") as file:
        file.setparams((1, samples.itemsize, rate, 0, "NONE", ""))
        file.writeframes(samples.tobytes())
    return out.getvalue()
