"""Which workers are alive, what they serve and how much they can hold: known from their own heartbeats."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field

from pydantic import TypeAdapter

from shared.models import ModelCard
from shared.redis_store import RedisStore

ALIVE_S = 15.0
BEAT_S = 3.0
LOOK_S = 1.0
DECODER_GUARDS = 4
"""Of the decoder's sandbox, where a machine grants all; their names are the worker's."""
_DRAINED_S = 86_400.0
"""So long the word to drain outlives the last beat of the worker it is for."""


@dataclass(frozen=True, slots=True)
class WorkerState:
    """`slots` counts the steps of each queue the worker takes at once; `rtfx` is measured speed by model,
    audio seconds per second; `engine` holds each engine's own counts since its start, and whether its model
    `is_loaded` at the moment. A `draining` worker takes no new work; `started_at` is its own clock's, in
    seconds since 1970. `guards` are those of its decoder's sandbox, see docs/media.md."""

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
    device: str = ""
    guards: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Orders:
    """What a heartbeat is answered with.

    A worker looks for waiting work when it came up, its slots changed, or nobody was asked to for LOOK_S: a
    thousand that all looked would leave Redis time for nothing else. One that drains takes no new work and
    hands back what it holds.
    """

    looks: bool
    drains: bool


class Fleet:
    """Heartbeats in Redis; a worker that is silent for ALIVE_S is no longer there."""

    def __init__(self, store: RedisStore) -> None:
        self._store = store

    def beat(self, worker: WorkerState) -> Orders:
        """Tells that `worker` lives, and answers what it is to do now."""
        looks, drains = self._store.run(
            "alive",
            worker.name,
            _state.dump_json(worker).decode(),
            int(ALIVE_S * 1000),
            json.dumps({} if worker.draining else worker.slots),
            json.dumps({model: str(rtfx) for model, rtfx in worker.rtfx.items()}),
            int(LOOK_S * 1000),
            int(_DRAINED_S * 1000),
        )
        return Orders(bool(looks), bool(drains))

    def slots(self) -> dict[str, int]:
        """Steps of each queue that all live workers together take at once. Costs the same for one worker and
        for thousands; `live` does not."""
        words: list[str] = self._store.run("slots")
        return {queue: int(amount) for queue, amount in zip(words[::2], words[1::2], strict=True)}

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
        self._store.run("left", name)

    def count(self) -> int:
        """How many are live."""
        with self._store.guarded():
            seconds, microseconds = self._store.client.time()
            now_ms = int(seconds) * 1000 + int(microseconds) // 1000
            return int(self._store.client.zcount(self._store.key("fleet"), f"({now_ms}", "+inf"))

    def live(self) -> tuple[WorkerState, ...]:
        """In the order of their names, with all they say: for looks now and then, not for every request."""
        with self._store.guarded():
            names: list[str] = sorted(self._store.client.zrange(self._store.key("fleet"), 0, -1))
            if not names:
                return ()
            texts: list[str | None] = self._store.client.mget(
                [self._store.key("worker", name) for name in names]
            )
        return tuple(_state.validate_json(text) for text in texts if text is not None)


def capacity(workers: Iterable[WorkerState], queue: str) -> int:
    """Steps of `queue` that all workers together take at once."""
    return sum(worker.slots.get(queue, 0) for worker in workers if not worker.draining)


_state: TypeAdapter[WorkerState] = TypeAdapter(WorkerState)
