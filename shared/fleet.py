"""Which workers are alive, what they serve and how much they can hold: known from their own heartbeats."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from pydantic import TypeAdapter

from shared.models import ModelCard
from shared.redis_store import RedisStore

ALIVE_S = 15.0
BEAT_S = 3.0


@dataclass(frozen=True, slots=True)
class WorkerState:
    """`slots` counts the steps of each queue the worker takes at once; `rtfx` is measured speed by model,
    audio seconds per second; `engine` holds each engine's own counts since its start, and whether its model
    `is_loaded` at the moment."""

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
    device: str = ""


class Fleet:
    """Heartbeats in Redis; a worker that is silent for ALIVE_S is no longer there."""

    def __init__(self, store: RedisStore) -> None:
        self._store = store

    def beat(self, worker: WorkerState) -> None:
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
            pipe.execute()

    def speeds(self) -> dict[str, float]:
        """The last speed measured for each model, whoever measured it: for workers that have yet to begin."""
        with self._store.guarded():
            speeds: dict[str, str] = self._store.client.hgetall(self._store.key("speeds"))
        return {model: float(speed) for model, speed in speeds.items()}

    def leave(self, name: str) -> None:
        with self._store.guarded():
            pipe = self._store.client.pipeline()
            pipe.srem(self._store.key("workers"), name)
            pipe.delete(self._store.key("worker", name))
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
