"""How much a fleet costs Redis while it does nothing but live: heartbeats, and looks for work."""

import statistics
import time
from collections.abc import Callable, Iterator

from benchmarks.scale_ground import Figure, Ground, Meter, fill, ground, percentiles, say, timed, worker
from shared.fleet import BEAT_S, LOOK_S, Fleet, WorkerState, capacity
from shared.ledger import PREPARE_QUEUE, Hint, Ledger
from shared.redis_store import RedisStore
from shared.task_queue import Dispatcher

MOST_TIMED = 1000


class NoBroker:
    """Hints go nowhere: what is measured is the ledger."""

    def send(self, queue: str, hint: Hint) -> None:
        pass


class WholeFleet:
    """A dispatch and a heartbeat as they were before the sums of slots were kept (ADR 18), made of parts that
    are still there."""

    def __init__(self, store: RedisStore) -> None:
        self._store = store
        self._fleet = Fleet(store)
        self._ledger = Ledger(store)

    def dispatch(self) -> None:
        workers = self._fleet.live()
        for queue in self._ledger.queues():
            self._ledger.dispatch(queue, capacity(workers, queue), 20)

    def beat(self, _: WorkerState) -> None:
        """Its two writes are left out: what it read is what grows."""
        self.dispatch()


class SummedFleet:
    """What the service does today."""

    def __init__(self, store: RedisStore) -> None:
        self._fleet = Fleet(store)
        self._dispatcher = Dispatcher(Ledger(store), self._fleet, NoBroker())

    def dispatch(self) -> None:
        self._dispatcher.dispatch()

    def beat(self, state: WorkerState) -> None:
        if self._fleet.beat(state).looks:
            self._dispatcher.dispatch()


def fleets(sizes: tuple[int, ...], waiting: int) -> Iterator[Figure]:
    """Every slot is taken and `waiting` steps wait, so each dispatch looks and sends nothing, as most do."""
    with ground() as here:
        fill(here.server.url, range(waiting), tenants=100)
        there = 0
        for size in sizes:
            say(f"fleets: {size} workers")
            for number in range(there, size):
                Fleet(here.store).beat(worker(number))
            there = size
            _fill_slots(here)
            for name, one in (("before", WholeFleet(here.store)), ("now", SummedFleet(here.store))):
                times = MOST_TIMED if name == "now" else max(10, min(MOST_TIMED, 20_000 // size))
                _keep_alive(here)
                yield from _dispatch_figures(here, size, name, one.dispatch, times)
                _keep_alive(here)
                yield from _beat_figures(here, size, name, one.beat, times)
            _keep_alive(here)
            yield from percentiles(
                f"Fleet.live(), {size} workers",
                timed(lambda _: Fleet(here.store).live(), range(max(5, MOST_TIMED // size))),
                "what the API reads once a second, and a scrape",
            )


def _fill_slots(here: Ground) -> None:
    """Fewer may wait than there are slots: then all of them are sent."""
    dispatcher = Dispatcher(Ledger(here.store), Fleet(here.store), NoBroker(), hint_s=3600)
    while dispatcher.dispatch([PREPARE_QUEUE]):
        pass


def _keep_alive(here: Ground) -> None:
    """As if all of them had just beaten: what is slow to measure is not to let them fall silent."""
    names = here.store.client.zrange(here.store.key("fleet"), 0, -1)
    pipe = here.store.client.pipeline(transaction=False)
    pipe.zadd(here.store.key("fleet"), dict.fromkeys(names, (time.time() + 3600) * 1000))
    for name in names:
        pipe.expire(here.store.key("worker", name), 3600)
    pipe.execute()


def _dispatch_figures(
    here: Ground, size: int, name: str, dispatch: Callable[[], None], times: int
) -> Iterator[Figure]:
    meter = Meter(here.store.client)
    took_ms = timed(lambda _: dispatch(), range(times))
    spent = meter.spent()
    what = f"{len(took_ms)} looks at all queues, nothing to send"
    yield from percentiles(f"Dispatch, {size} workers, {name}", took_ms, what)
    yield Figure(
        f"Redis per dispatch, {size} workers, {name}", spent.cpu_s / len(took_ms) * 1e6, "µs", "CPU, " + what
    )


def _beat_figures(
    here: Ground, size: int, name: str, beat: Callable[[WorkerState], None], beats: int
) -> Iterator[Figure]:
    """A part of a round of the fleet's heartbeats, as fast as they go; as many of them look for work as would
    if they came in their time."""
    per_look = max(1, round(size / BEAT_S * LOOK_S))
    states = [worker(number) for number in range(min(size, beats))]
    looked = here.store.key("looked")
    here.store.client.set(looked, "round", px=3_600_000)
    meter = Meter(here.store.client)
    took_ms = []
    for number in range(beats):
        if number % per_look == 0:
            here.store.client.delete(looked)
        took_ms += timed(beat, [states[number % len(states)]])
        if number % per_look == 0:
            here.store.client.set(looked, "round", px=3_600_000)
    spent = meter.spent()
    here.store.client.delete(looked)
    per_s = size / BEAT_S
    yield Figure(
        f"Share of Redis for heartbeats, {size} workers, {name}",
        spent.cpu_s / beats * per_s * 100,
        "%",
        f"of a core, from the CPU of {beats} beats, at one every {BEAT_S:g} s; above 100 it cannot be done",
    )
    yield Figure(
        f"Time of a heartbeat, {size} workers, {name}",
        statistics.mean(took_ms),
        "ms",
        f"mean of {beats}, in the worker",
    )
