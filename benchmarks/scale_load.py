"""Jobs from submit to end through the real ledger, as fast as a few processes can: what one Redis carries,
what it costs to write at once, and what several servers carry together."""

import multiprocessing
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any

from benchmarks.scale_ground import MODEL, PROCESSES, Figure, Meter, fill, ground, new_job, say, worker
from benchmarks.scale_queue import PART_BODY, TUNED, USED, WORDS
from shared.fleet import Fleet
from shared.job import Status
from shared.job_store import JobStore
from shared.ledger import FINISH, PREPARE, PREPARE_QUEUE, Hint, Ledger
from shared.models import long_queue_of, queue_of
from shared.redis_store import RedisStore, connect
from shared.task_queue import Dispatcher
from tests.support.worker_hand import window

MEDIA = {"name": "recording of a meeting.mp3", "size_bytes": 480_000, "sha256": "0" * 64}
MEDIA |= {"duration_s": 30.0, "container": "mp3", "codec": "mp3"}
LANGUAGE = {"code": "en", "confidence": 0.98}
_NEW = 10_000_000
"""Numbers from here on are of jobs that were not filled in before."""


class Hinted:
    """Hands this process the steps that its own dispatches send."""

    def __init__(self) -> None:
        self.hints: deque[Hint] = deque()

    def send(self, queue: str, hint: Hint) -> None:
        self.hints.append(hint)


class Hand:
    """A client and a worker in one: all that the service asks of Redis for a job, but for the broker."""

    def __init__(self, client: Any, name: str, windows: int, tenants: int) -> None:
        store = RedisStore(client)
        self._jobs = JobStore(store)
        self._ledger = Ledger(store)
        self._tasks = Hinted()
        self._dispatcher = Dispatcher(self._ledger, Fleet(store), self._tasks, hint_s=3600)
        self._store = store
        self._name = name
        self._windows = windows
        self._tenants = tenants

    def submit(self, number: int) -> None:
        new = new_job(number, self._tenants)
        self._jobs.create(new, 0.0)
        self._jobs.get(new.id)
        self._dispatcher.dispatch([PREPARE_QUEUE])

    def work(self) -> int:
        """Does every step it was sent; how many jobs ended."""
        ended = 0
        while self._tasks.hints:
            ended += self._perform(self._tasks.hints.popleft())
        return ended

    def _perform(self, hint: Hint) -> int:
        claim = self._ledger.claim(hint.job_id, hint.step, self._name)
        if not claim.is_held:
            return 0
        self._jobs.get(hint.job_id)
        if hint.step == PREPARE:
            self._ledger.note(claim, {"media": MEDIA})
            self._ledger.offer_part(claim, 0, MODEL, PART_BODY, 30.0)
            self._dispatcher.dispatch([queue_of(MODEL), long_queue_of(MODEL)])
            self._ledger.prepared(claim, 1, {"decode_s": 0.5, "warnings": []})
        elif hint.step == FINISH:
            self._ledger.end(claim, Status.COMPLETED, {"language": LANGUAGE}, webhook=None, retention_s=3600)
            self._store.run("saved", hint.job_id, "0")
        else:
            self._ledger.note(claim, {"model": USED})
            self._ledger.kept_windows(claim)
            for index in range(self._windows):
                self._ledger.checkpoint(claim, window(index, index, index + 1, WORDS), 30.0 / self._windows)
            self._ledger.finish_part(claim)
        self._dispatcher.dispatch(worker(0).slots)
        return int(hint.step == FINISH)


def _press(url: str, numbers: range, seconds: float, windows: int, tenants: int, ended: Any) -> None:
    with connect(url, timeout_s=60) as client:
        hand = Hand(client, f"host-{numbers.start}-1", windows, tenants)
        until = time.monotonic() + seconds
        count = 0
        for number in numbers:
            if time.monotonic() > until:
                break
            hand.submit(number)
            count += hand.work()
        ended.put(count)


def _pressed(urls: Sequence[str], processes: int, seconds: float, windows: int, tenants: int) -> int:
    """Jobs that ended, by processes that are shared out over the servers."""
    context = multiprocessing.get_context("fork")
    ended = context.SimpleQueue()
    pressing = [
        context.Process(
            target=_press,
            args=(
                urls[number % len(urls)],
                range(_NEW * (number + 1), _NEW * (number + 2)),
                seconds,
                windows,
                tenants,
                ended,
            ),
        )
        for number in range(processes)
    ]
    for one in pressing:
        one.start()
    for one in pressing:
        one.join()
        assert one.exitcode == 0
    return sum(ended.get() for _ in pressing)


def saturation(waiting: tuple[int, ...], seconds: float, windows: int) -> Iterator[Figure]:
    """Each new job goes through while `waiting` others stand behind it in line, or before it."""
    for fsync in ("everysec", "always"):
        for size in waiting:
            say(f"saturation: {size} waiting, appendfsync {fsync}")
            with ground(*TUNED, fsync=fsync) as here:
                fill(here.server.url, range(size), tenants=1000)
                Fleet(here.store).beat(worker(0))
                meter = Meter(here.store.client)
                jobs = _pressed([here.server.url], PROCESSES, seconds, windows, tenants=1000)
                spent = meter.spent()
            name = f"Whole jobs, {size:,} waiting, appendfsync {fsync}"
            what = f"{windows} windows each, {PROCESSES} processes that do nothing else, {jobs} jobs"
            yield Figure(name, jobs / seconds, "jobs/s", what)
            yield Figure(f"{name}: Redis", spent.cpu_s / jobs * 1e6, "µs", "CPU per job, without a broker")
            yield Figure(f"{name}: share of Redis", spent.share * 100, "%", "of a core")
            yield Figure(f"{name}: scripts", spent.scripts / jobs, "", "per job")
            yield Figure(f"{name}: time in a script", spent.script_us, "µs", "mean, as Redis counts it")


def shards(counts: tuple[int, ...], processes: int, seconds: float, windows: int) -> Iterator[Figure]:
    """The same load on several servers, each with clients of its own."""
    for count in counts:
        say(f"shards: {count} servers, {processes} processes")
        with ExitStack() as stack:
            grounds = [stack.enter_context(ground(*TUNED)) for _ in range(count)]
            for here in grounds:
                Fleet(here.store).beat(worker(0))
            meters = [Meter(here.store.client) for here in grounds]
            jobs = _pressed([here.server.url for here in grounds], processes, seconds, windows, tenants=1000)
            busiest = max(meter.spent().share for meter in meters)
        what = f"{processes} processes, {windows} windows a job; all share the processor"
        yield Figure(f"{count} Redis servers: whole jobs", jobs / seconds, "jobs/s", what)
        yield Figure(f"{count} Redis servers: share of the busiest", busiest * 100, "%", "of a core")
