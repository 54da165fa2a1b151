"""What the views work with, wired once in `app.py`."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import BoundedSemaphore, Event
from typing import TYPE_CHECKING, cast

from flask import current_app

from api.estimates import Speeds
from api.ledger_view import LedgerView
from api.listening import Listening
from shared.blob_store import BlobStore
from shared.endings import Endings
from shared.fleet import Fleet
from shared.job_store import JobStore
from shared.ledger import Ledger
from shared.models import ModelSource
from shared.rebuild import Rebuild
from shared.redis_store import RedisStore
from shared.settings import Settings
from shared.task_queue import Dispatcher
from shared.tracing import OFF, Tracer
from shared.usage import Usage

if TYPE_CHECKING:
    # gunicorn's first process knows this module and must not load prometheus_client yet: see
    # gunicorn_conf.py.
    from api.metrics import Metrics

EXTENSION = "ananse"


@dataclass(frozen=True, slots=True)
class Parts:
    """`waiters` bounds how many threads may be held by clients that wait, so that some are always free;
    `stopping` lets them go."""

    settings: Settings
    models: tuple[ModelSource, ...]
    jobs: JobStore
    ledger: Ledger
    endings: Endings
    rebuild: Rebuild
    store: RedisStore
    fleet: Fleet
    usage: Usage
    speeds: Speeds
    blobs: BlobStore
    dispatcher: Dispatcher
    waiters: BoundedSemaphore
    metrics: "Metrics"
    view: LedgerView
    stopping: Event
    listening: Listening
    tracer: Tracer = OFF

    @contextmanager
    def waiting(self, kind: str, places: BoundedSemaphore | None = None) -> Iterator[bool]:
        """Whether this thread may wait: when too many do, the answer is to be given at once. `places` are
        those of clients that hold no thread."""
        places = places or self.waiters
        if not places.acquire(blocking=False):
            yield False
            return
        try:
            with self.metrics.waiting(kind):
                yield True
        finally:
            places.release()


def parts() -> Parts:
    """The parts of the app that serves the request at hand."""
    return cast(Parts, current_app.extensions[EXTENSION])
