"""Which workers are alive, what they serve and how much they can hold: known from their own heartbeats."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from pydantic import TypeAdapter

from shared.models import ModelCard
from shared.redis_store import RedisStore

ALIVE_S = 15.0
BEAT_S = 3.0
_DRAINED_S = 86_400.0
"""So long the word to drain outlives the last beat of the worker it is for."""


@dataclass(frozen=True, slots=True)
class WorkerState:
    """`slots` counts the steps of each queue the worker takes at once; `rtfx` is measured speed by model,
    audio seconds per second; `engine` holds each engine's own counts since its start. A `draining` worker
    takes no new work; `started_at` is its own clock's, in seconds since 1970."""

    name: str
    models: tuple[ModelCard, ...]
    slots: dict[str, int]
    host: str = ""
    pid: int = 0
    busy: int = 0
    draining: bool = False
    peak_rss_bytes: int = 0
    rtfx: dict[str, float] = field(default_factory=dict)
    engine: dict[str, dict[str, float]] = field(default_factory=dict)
    started_at: float = 0.0
    rss_bytes: int = 0


class Fleet:
    """Heartbeats in Redis; a worker that is silent for ALIVE_S is no longer there."""

    def __init__(self, store: RedisStore) -> None:
        self._store = store

    def beat(self, worker: WorkerState) -> bool:
        """Whether the worker is to drain: take no new work and hand back what it holds."""
        with self._store.guarded():
            pipe = self._store.client.pipeline()
            pipe.sadd(self._store.key("workers"), worker.name)
            pipe.set(
                self._store.key("worker", worker.name),
                _state.dump_json(worker).decode(),
                px=int(ALIVE_S * 1000),
            )
            for model, rtfx in worker.rtfx.items():
                pipe.hset(self._store.key("speeds"), model, rtfx)
            pipe.getex(self._store.key("drain", worker.name), px=int(_DRAINED_S * 1000))
            return pipe.execute()[-1] is not None

    def drain(self, names: Iterable[str]) -> None:
        """These are to drain, from their next beat on until `undrain` or their end."""
        with self._store.guarded():
            for name in names:
                self._store.client.set(self._store.key("drain", name), "1", px=int(_DRAINED_S * 1000))

    def undrain(self, names: Iterable[str]) -> None:
        with self._store.guarded():
            for name in names:
                self._store.client.delete(self._store.key("drain", name))

    def speeds(self) -> dict[str, float]:
        """The last speed measured for each model, whoever measured it: for workers that have yet to begin."""
        with self._store.guarded():
            speeds: dict[str, str] = self._store.client.hgetall(self._store.key("speeds"))
        return {model: float(speed) for model, speed in speeds.items()}

    def leave(self, name: str) -> None:
        with self._store.guarded():
            pipe = self._store.client.pipeline()
            pipe.srem(self._store.key("workers"), name)
            pipe.delete(self._store.key("worker", name), self._store.key("drain", name))
            pipe.execute()

    def live(self) -> tuple[WorkerState, ...]:
        with self._store.guarded():
            names: list[str] = sorted(self._store.client.smembers(self._store.key("workers")))
            if not names:
                return ()
            texts: list[str | None] = self._store.client.mget(
                [self._store.key("worker", name) for name in names]
            )
            silent = [name for name, text in zip(names, texts, strict=True) if text is None]
            if silent:
                self._store.client.srem(self._store.key("workers"), *silent)
        return tuple(_state.validate_json(text) for text in texts if text is not None)


def capacity(workers: Iterable[WorkerState], queue: str) -> int:
    """Steps of `queue` that all workers together take at once."""
    return sum(worker.slots.get(queue, 0) for worker in workers if not worker.draining)


_state: TypeAdapter[WorkerState] = TypeAdapter(WorkerState)
