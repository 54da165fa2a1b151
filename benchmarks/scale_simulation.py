"""A fleet at work, in its own time: workers beat, claim, checkpoint and end as the clock has them, played by
a few processes on the real ledger."""

import heapq
import itertools
import multiprocessing
import random
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks.scale_ground import MODEL, PROCESSES, Figure, Meter, fill, ground, percentiles, say, worker
from benchmarks.scale_queue import PART_BODY, TUNED, WORDS
from shared.fleet import BEAT_S, Fleet
from shared.job import Status
from shared.ledger import FINISH, PREPARE, Claim, Hint, Ledger
from shared.redis_store import RedisStore, connect
from shared.task_queue import Dispatcher
from tests.support.worker_hand import window

WINDOWS = 20
WINDOW_S = 4.0
"""A slot's: with eight slots a worker does sixty seconds of audio in a second."""

DECODE_S = 0.5
LEASE_S = 30.0

Took = dict[str, list[float]]


class Hinted:
    def __init__(self) -> None:
        self.hints: dict[str, deque[Hint]] = defaultdict(deque)

    def send(self, queue: str, hint: Hint) -> None:
        self.hints[queue].append(hint)


class Play:
    """Workers of one process. What one dispatches, any of them may take, as from a broker."""

    def __init__(self, client: Any, numbers: range) -> None:
        store = RedisStore(client)
        self._fleet = Fleet(store)
        self._ledger = Ledger(store, LEASE_S)
        self._tasks = Hinted()
        self._dispatcher = Dispatcher(self._ledger, self._fleet, self._tasks, hint_s=60)
        self._states = {number: worker(number) for number in numbers}
        self._held: dict[int, set[Claim]] = {number: set() for number in numbers}
        self._free = {queue: deque() for queue in worker(0).slots}
        for number, state in self._states.items():
            for queue, slots in state.slots.items():
                self._free[queue].extend([number] * slots)
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self.took: Took = defaultdict(list)
        self.is_measured = False

    def run(self, warm_s: float, seconds: float) -> None:
        began = time.monotonic()
        for number in self._states:
            self._at(began + random.uniform(0, BEAT_S), lambda number=number: self._beat(number))
            self._at(began + random.uniform(0, LEASE_S / 3), lambda number=number: self._renew(number))
        while self._due[0][0] < began + warm_s + seconds:
            due, _, act = heapq.heappop(self._due)
            self.is_measured = time.monotonic() > began + warm_s
            time.sleep(max(0.0, due - time.monotonic()))
            if self.is_measured:
                self.took["lag"].append((time.monotonic() - due) * 1000)
            act()
            self._take()

    def _at(self, due: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._due, (due, next(self._order), act))

    def _in(self, seconds: float, act: Callable[[], None]) -> None:
        self._at(time.monotonic() + seconds * random.uniform(0.8, 1.2), act)

    def _timed(self, name: str, act: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        given = act()
        if self.is_measured:
            self.took[name].append((time.perf_counter() - began) * 1000)
        return given

    def _dispatch(self, number: int) -> None:
        self._timed("dispatch", lambda: self._dispatcher.dispatch(self._states[number].slots))

    def _beat(self, number: int) -> None:
        if self._timed("heartbeat", lambda: self._fleet.beat(self._states[number])).looks:
            self._timed("dispatch", self._dispatcher.dispatch)
        self._at(time.monotonic() + BEAT_S, lambda: self._beat(number))

    def _renew(self, number: int) -> None:
        for claim in self._held[number]:
            self._timed("beat", lambda claim=claim: self._ledger.beat(claim))
        self._at(time.monotonic() + LEASE_S / 3, lambda: self._renew(number))

    def _take(self) -> None:
        for queue, hints in self._tasks.hints.items():
            while hints and self._free[queue]:
                self._begin(queue, hints.popleft(), self._free[queue].popleft())

    def _begin(self, queue: str, hint: Hint, number: int) -> None:
        name = self._states[number].name
        claim = self._timed("claim", lambda: self._ledger.claim(hint.job_id, hint.step, name))
        if not claim.is_held:
            self._free[queue].append(number)
            return
        self._held[number].add(claim)
        if hint.step == PREPARE:
            self._in(DECODE_S, lambda: self._cut(queue, claim, number))
        elif hint.step == FINISH:
            self._end(queue, claim, number)
        else:
            self._in(WINDOW_S, lambda: self._window(queue, claim, number, 0))

    def _cut(self, queue: str, claim: Claim, number: int) -> None:
        audio_s = WINDOWS * 30.0
        self._timed("offer_part", lambda: self._ledger.offer_part(claim, 0, MODEL, PART_BODY, audio_s))
        self._timed("prepared", lambda: self._ledger.prepared(claim, 1, {"decode_s": DECODE_S}))
        self._done(queue, claim, number)

    def _window(self, queue: str, claim: Claim, number: int, index: int) -> None:
        result = window(index, index * 30.0, index * 30.0 + 30.0, WORDS)
        self._timed("checkpoint", lambda: self._ledger.checkpoint(claim, result, 30.0))
        if index + 1 < WINDOWS:
            self._in(WINDOW_S, lambda: self._window(queue, claim, number, index + 1))
            return
        self._timed("finish_part", lambda: self._ledger.finish_part(claim))
        self._done(queue, claim, number)

    def _end(self, queue: str, claim: Claim, number: int) -> None:
        self._timed(
            "end", lambda: self._ledger.end(claim, Status.COMPLETED, {}, webhook=None, retention_s=3600)
        )
        self._done(queue, claim, number)

    def _done(self, queue: str, claim: Claim, number: int) -> None:
        self._held[number].discard(claim)
        self._free[queue].append(number)
        self._dispatch(number)


def _play(url: str, numbers: range, warm_s: float, seconds: float, told: Any) -> None:
    with connect(url, timeout_s=60) as client:
        play = Play(client, numbers)
        play.run(warm_s, seconds)
        told.put(dict(play.took))


def simulation(fleets: tuple[int, ...], warm_s: float, seconds: float) -> Iterator[Figure]:
    context = multiprocessing.get_context("fork")
    for size in fleets:
        waiting = max(200, size * 30)
        say(f"simulation: {size} workers at work, {waiting} jobs")
        with ground(*TUNED) as here:
            fill(here.server.url, range(waiting), tenants=100)
            told = context.Queue()
            players = [
                context.Process(
                    target=_play,
                    args=(here.server.url, range(start, size, PROCESSES), warm_s, seconds, told),
                )
                for start in range(PROCESSES)
            ]
            for player in players:
                player.start()
            time.sleep(warm_s)
            meter = Meter(here.store.client)
            time.sleep(seconds)
            spent = meter.spent()
            heard = [told.get() for _ in players]
            for player in players:
                player.join()
                assert player.exitcode == 0
        took: Took = defaultdict(list)
        for one in heard:
            for name, times in one.items():
                took[name] += times
        yield from _figures(size, took, spent.share, seconds)


def _figures(size: int, took: Took, share: float, seconds: float) -> Iterator[Figure]:
    name = f"{size:,} workers at work"
    windows_per_s = len(took["checkpoint"]) / seconds
    what = f"each slot a window of 30 s every {WINDOW_S:g} s, parts of {WINDOWS}; {PROCESSES} players"
    yield Figure(f"{name}: share of Redis", share * 100, "%", "of a core; " + what)
    yield Figure(f"{name}: windows", windows_per_s, "/s", what)
    yield Figure(f"{name}: audio", windows_per_s * 30, "s/s", "seconds of audio in a second")
    acts = sum(len(times) for act, times in took.items() if act != "lag") / seconds
    yield Figure(
        f"{name}: acts", acts, "/s", "heartbeats, beats, claims, checkpoints, dispatches and the rest"
    )
    for act in ("dispatch", "claim", "checkpoint", "heartbeat"):
        if took[act]:
            yield from percentiles(f"{name}: {act}", took[act], f"{len(took[act]) / seconds:.1f}/s")
    lag = float(np.percentile(took["lag"], 99))
    yield Figure(f"{name}: lag, p99", lag, "ms", "of the players behind their time; much of it is theirs")
