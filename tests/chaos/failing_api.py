"""The service's API with a place where it dies or Redis freezes, so that the moment between two acts can be
met. Served by gunicorn in tests: `tests.chaos.failing_api:dies_before_hint()`."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from celery.signals import before_task_publish
from flask import Flask, Response, request

from api.app import create_app
from api.parts import EXTENSION, Parts
from shared.blob_store import Draft
from shared.disk_blobs import DiskBlobs
from shared.ledger import Hint
from shared.redis_store import connect
from shared.settings import load

NOW_HEADER = "Now"
"""The request that carries it is the one that meets the fault."""


class DeadlyQueue:
    """TaskQueue whose sender is dead before the message is out."""

    def send(self, queue: str, hint: Hint) -> None:
        _die()


@dataclass(frozen=True, slots=True)
class FreezingDraft:
    """Redis stands still from when the recording is in its place."""

    draft: Draft

    def write(self, content: bytes) -> None:
        self.draft.write(content)

    def keep(self) -> None:
        self.draft.keep()
        _freeze_redis()


class FreezingBlobs(DiskBlobs):
    @contextmanager
    def draft(self, name: str) -> Iterator[Draft]:
        with super().draft(name) as draft:
            yield FreezingDraft(draft) if name.endswith("/media") else draft


def dies_before_hint() -> Flask:
    """The job's record is there, its hint is not and the client is not answered."""
    return create_app(tasks=DeadlyQueue())


def dies_before_answer() -> Flask:
    """All is done but the answer."""
    app = create_app()

    @app.after_request
    def die(answer: Response) -> Response:
        if NOW_HEADER in request.headers:
            _die()
        return answer

    return app


def freezes_before_record() -> Flask:
    """The recording lies there, and its record is about to be made."""
    app = create_app()
    parts: Parts = app.extensions[EXTENSION]
    app.extensions[EXTENSION] = replace(
        parts, blobs=FreezingBlobs(Path(parts.settings.blob_url.removeprefix("file://")))
    )
    return app


def freezes_before_hint() -> Flask:
    """The record is there, and the hint is about to be sent."""

    @before_task_publish.connect(weak=False)
    def freeze(**_: object) -> None:
        _freeze_redis()

    return create_app()


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _freeze_redis() -> None:
    """Whoever ordered it lets it go on."""
    if NOW_HEADER in request.headers:
        with connect(load().redis_url) as client:
            os.kill(int(client.info("server")["process_id"]), signal.SIGSTOP)
