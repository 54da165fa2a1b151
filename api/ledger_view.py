"""The whole service at one moment, for those who look on: what waits, who works, what is owed. Read from
Redis in bounded time, however many jobs there are, and every FRESH_S at most, however many ask."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shared.errors import DependencyError, StoreUnavailable
from shared.fleet import Fleet, WorkerState, capacity
from shared.redis_store import RedisStore
from shared.task_queue import Messages

FRESH_S = 2.0


@dataclass(frozen=True, slots=True)
class Queue:
    """Steps in their line, those that may not begin yet, those that were sent or are held; how long the first
    has waited; steps that live workers take at once; messages in the broker."""

    waiting: int
    later: int
    busy: int
    oldest_s: float
    slots: int
    messages: int


@dataclass(frozen=True, slots=True)
class Load:
    """Of one model. Seconds of audio of jobs nobody has begun, and of those that are being worked on; live
    workers that take new work; audio seconds per second of one worker, as last measured, and of all."""

    waiting_s: float
    running_s: float
    workers: int
    speed: float
    fleet_speed: float

    @property
    def backlog_s(self) -> float:
        return self.waiting_s + self.running_s


@dataclass(frozen=True, slots=True)
class View:
    """`ended` counts jobs by status, code and model; `swept_at` is in seconds, 0 when nobody ever swept."""

    queues: Mapping[str, Queue]
    loads: Mapping[str, Load]
    workers: int
    draining: int
    unsaved: int
    leases_expired: int
    hints_resent: int
    ended: Mapping[tuple[str, str, str], int]
    swept_at: float
    redis_used_bytes: int
    redis_max_bytes: int


class LedgerView:
    """`models` are always shown, others while they owe something or a worker serves them."""

    def __init__(
        self,
        store: RedisStore,
        fleet: Fleet,
        messages: Messages,
        models: Sequence[str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._fleet = fleet
        self._messages = messages
        self._models = tuple(models)
        self._clock = clock
        self._lock = threading.Lock()
        self._looked_at = -FRESH_S
        self._seen: View | DependencyError = StoreUnavailable()

    def look(self) -> View:
        """Raises StoreUnavailable, within one timeout of the store, and again at once until it is time to
        look anew: a Redis that stands still is not to hold up everybody who asks."""
        with self._lock:
            if self._clock() - self._looked_at >= FRESH_S:
                try:
                    self._seen = self._read()
                except DependencyError as error:
                    self._seen = error
                self._looked_at = self._clock()
            if isinstance(self._seen, DependencyError):
                raise StoreUnavailable(retry_after_s=FRESH_S) from self._seen
            return self._seen

    def _read(self) -> View:
        _, unsaved, used, most, queues, backlog, fresh, counters, ended, swept_ms = self._store.run("view")
        workers, speeds = self._fleet.live(), self._fleet.speeds()
        counts = dict(_pairs(counters))
        return View(
            queues=self._queues(queues, workers),
            loads=self._loads(dict(_pairs(backlog)), dict(_pairs(fresh)), workers, speeds),
            workers=len(workers),
            draining=sum(worker.draining for worker in workers),
            unsaved=unsaved,
            leases_expired=counts.get("leases_expired", 0),
            hints_resent=counts.get("hints_resent", 0),
            ended={_outcome(name): count for name, count in sorted(_pairs(ended))},
            swept_at=swept_ms / 1000,
            redis_used_bytes=used,
            redis_max_bytes=most,
        )

    def _queues(self, rows: Sequence[Sequence[Any]], workers: Sequence[WorkerState]) -> dict[str, Queue]:
        """Those that ever held a step, and those that a live worker serves."""
        known = {queue: (0, 0, 0, 0) for worker in workers for queue in worker.slots}
        known |= {row[0]: tuple(row[1:]) for row in rows}
        queues = {}
        for name, (waiting, later, busy, oldest_ms) in sorted(known.items()):
            slots, messages = capacity(workers, name), self._messages.waiting([name])
            queues[name] = Queue(waiting, later, busy, oldest_ms / 1000, slots, messages)
        return queues

    def _loads(
        self,
        backlog: Mapping[str, int],
        fresh: Mapping[str, int],
        workers: Sequence[WorkerState],
        speeds: Mapping[str, float],
    ) -> dict[str, Load]:
        owing = {model for model, amount_ms in backlog.items() if amount_ms}
        served = {card.name for worker in workers for card in worker.models}
        loads = {}
        for model in sorted({*self._models, *owing, *served}):
            serving = [w for w in workers if not w.draining and any(card.name == model for card in w.models)]
            known = speeds.get(model, 0.0)
            waiting_s, owed_s = fresh.get(model, 0) / 1000, backlog.get(model, 0) / 1000
            loads[model] = Load(
                waiting_s=min(waiting_s, owed_s),
                running_s=max(0.0, owed_s - waiting_s),
                workers=len(serving),
                speed=known,
                fleet_speed=sum(worker.rtfx.get(model) or known for worker in serving),
            )
        return loads


def _pairs(flat: Sequence[str]) -> Iterator[tuple[str, int]]:
    return ((name, int(value)) for name, value in zip(flat[::2], flat[1::2], strict=True))


def _outcome(name: str) -> tuple[str, str, str]:
    status, code, model = name.split("|", 2)
    return status, code, model
