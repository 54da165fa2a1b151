"""Streams of events that hold no thread. Once its head is out, all a stream needs is a socket and the id of
the last event it was told; two threads serve all of them: one waits for Redis, the other (`outlets.py`) for
the clients. See docs/adr/0028."""

import resource
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from api.outlets import Outlet, Outlets
from shared import log
from shared.errors import ServiceError
from shared.job_events import JobEvents
from shared.job_store import Event
from shared.redis_store import RedisStore

MOST_LISTENERS = 2048
LAST_ANSWER = "ananse.last_answer"
"""What a request's environment holds where streams can be handed over: called before the head is written, it
says that no other answer follows on this connection."""
WAIT_S = 1.0
LOOK_S = 5.0
"""So long a job is silent before its record is asked whether it is over: who deletes a job tells nobody."""
_PACE_S = 0.02
"""Events that come in between go out together."""
_AGAIN_S = 1.0

_log = log.get_logger()

Write = Callable[[Event], str]
EventId = tuple[int, int]


@dataclass(eq=False, slots=True)
class Listener:
    """One client on its way through the events of a job. `last` is the id of the one it was told last.

    Whoever holds it calls `leave` once, when it is over.
    """

    job_id: str
    last: EventId
    is_chunked: bool
    leave: Callable[[], None]
    is_handed_over: bool = False
    outlet: Outlet | None = None


class HandedOver(BaseException):
    """Stands for an answer that goes on elsewhere: passes through the server's code, which lets go of the
    connection then. No Exception, for those are answered."""

    def __init__(self, listener: Listener) -> None:
        super().__init__()
        self.listener = listener


@dataclass(eq=False, slots=True)
class _Feed:
    """A job that is listened to."""

    listeners: set[Listener] = field(default_factory=set)
    told_at: float = field(default_factory=time.monotonic)

    def has_slow(self) -> bool:
        return any(_outlet(listener).is_full for listener in self.listeners)

    def read_to(self) -> EventId | None:
        """Up to here all have been told who can be told more now."""
        ready = (listener.last for listener in self.listeners if not _outlet(listener).is_full)
        return min(ready, default=None)


class Listening:
    """`write` makes an event's text, `is_end` knows the last one; `places` bounds how many may listen."""

    def __init__(
        self,
        store: RedisStore,
        stopping: threading.Event,
        write: Write,
        is_end: Callable[[Event], bool],
        patience_s: float,
    ) -> None:
        self.places = threading.BoundedSemaphore(_most_listeners())
        self._events = JobEvents(store, f"nudge-{uuid.uuid4().hex}")
        self._stopping = stopping
        self._write = write
        self._is_end = is_end
        self._outlets = Outlets(stopping, patience_s, self._hung_up)
        self._feeds: dict[str, _Feed] = {}
        self._listeners: dict[Outlet, Listener] = {}
        self._changed = threading.Condition()
        self._reader: threading.Thread | None = None

    def take(self, listener: Listener, outlet: Outlet) -> None:
        """From here on the client is served. Asks Redis, so that the reader hears of it at once."""
        listener.outlet = outlet
        with self._changed:
            self._feeds.setdefault(listener.job_id, _Feed()).listeners.add(listener)
            self._listeners[outlet] = listener
            self._outlets.add(outlet)
            if self._reader is None or not self._reader.is_alive():
                # Not before: the process that takes us in is forked.
                self._reader = threading.Thread(target=self._read, name="listening", daemon=True)
                self._reader.start()
            self._changed.notify()
        with suppress(ServiceError):
            # Without it, it is heard of when the wait at hand is over.
            self._events.nudge()

    def _hung_up(self, outlet: Outlet) -> None:
        """Told once of each, whoever ended it."""
        with self._changed:
            listener = self._listeners.pop(outlet)
            feed = self._feeds[listener.job_id]
            feed.listeners.discard(listener)
            if not feed.listeners:
                del self._feeds[listener.job_id]
        listener.leave()

    def _read(self) -> None:
        looked_at = time.monotonic()
        over: set[str] = set()
        while not self._stopping.is_set():
            try:
                told = self._events.wait(self._cursors(), _PACE_S if over else WAIT_S)
                self._tell(told)
                self._end(over - set(told))
                over = set()
                if time.monotonic() - looked_at >= LOOK_S:
                    looked_at = time.monotonic()
                    over = self._events.over(self._silent(looked_at - LOOK_S))
            except ServiceError as error:
                # Redis is away: the clients keep their lines, what they miss they get when it is back.
                _log.warning("listening_failed", code=error.code)
                self._stopping.wait(_AGAIN_S)
            self._stopping.wait(_PACE_S)

    def _cursors(self) -> Mapping[str, str]:
        """Waits while nobody listens."""
        with self._changed:
            while not self._feeds and not self._stopping.is_set():
                self._changed.wait(WAIT_S)
            read = {job_id: feed.read_to() for job_id, feed in self._feeds.items()}
        return {job_id: f"{to[0]}-{to[1]}" for job_id, to in read.items() if to}

    def _tell(self, told: Mapping[str, tuple[Event, ...]]) -> None:
        for job_id, events in told.items():
            try:
                texts = [(id_of(one.id), self._write(one).encode(), self._is_end(one)) for one in events]
            except ValueError:
                # Written by another version. The clients come again, perhaps to one that can read it.
                self._end({job_id})
                continue
            with self._changed:
                if feed := self._feeds.get(job_id):
                    _pass_on(self._outlets, feed, texts)
        self._outlets.wake()

    def _silent(self, since: float) -> list[str]:
        with self._changed:
            return [
                job_id
                for job_id, feed in self._feeds.items()
                if feed.told_at <= since and not feed.has_slow()
            ]

    def _end(self, job_ids: set[str]) -> None:
        with self._changed:
            feeds = [self._feeds[job_id] for job_id in job_ids if job_id in self._feeds]
            for listener in [listener for feed in feeds for listener in feed.listeners]:
                self._outlets.end(_outlet(listener))
        if job_ids:
            self._outlets.wake()


def _most_listeners() -> int:
    """A quarter of the file handles: as many again stay for connections, and all those once more for files
    and Redis (`gunicorn_conf.py`)."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(MOST_LISTENERS, soft // 4) if soft >= 0 else MOST_LISTENERS


def id_of(text: str) -> EventId:
    milliseconds, _, number = text.partition("-")
    return int(milliseconds), int(number or 0)


def _pass_on(outlets: Outlets, feed: _Feed, texts: list[tuple[EventId, bytes, bool]]) -> None:
    """To each listener what it has not had. Who cannot take more now is told the rest when it can: the job is
    read again from there."""
    feed.told_at = time.monotonic()
    for listener in feed.listeners:
        outlet = _outlet(listener)
        for event_id, text, is_end in texts:
            if event_id <= listener.last:
                continue
            if outlet.is_full:
                break
            outlets.tell(outlet, text)
            listener.last = event_id
            if is_end:
                outlets.end(outlet)


def _outlet(listener: Listener) -> Outlet:
    assert listener.outlet is not None
    return listener.outlet
