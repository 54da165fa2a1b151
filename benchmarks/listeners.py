"""What listeners cost: many event streams on one API process, `python -m benchmarks.listeners`.

Each listener is a plain socket; a third of them are cut in the middle and come again with the last id they
saw. The run fails when one of them misses an event or hears one twice.
"""

import argparse
import asyncio
import random
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from shared.blobs import open_blobs
from shared.fleet import Fleet
from shared.job_store import JobStore
from shared.ledger import Claim, Ledger
from shared.redis_store import RedisStore, connect
from shared.settings import Settings
from tests.support.api_server import ApiServer, api_server
from tests.support.jobs import submit
from tests.support.redis_server import redis_server, require_binary
from tests.support.worker_hand import MODEL, WorkerHand, window

WINDOW_S = 30.0
_TEXT = "We are having a picnic with my family on Friday. " * 8
_EVENTS = 2
"""Of a window: its segments, and how far the job is."""
_MOST_HEARD_PER_S = 2000.0
"""The listeners here are one Python process, which cannot read much more."""
_AT_ONCE = 50
_COME_S = 120.0
_END_S = 180.0
_SPARE_FILES = 200


@dataclass(frozen=True, slots=True)
class Case:
    """`windows_per_s` are those of all jobs together; each gives two events, to all who listen to its job."""

    listeners: int
    jobs: int
    windows_per_s: float
    talking_s: float
    idle_s: float


@dataclass(slots=True)
class Listener:
    """What one client has heard: ids in order, and how many seconds after Redis had them."""

    job_id: str
    ids: list[str] = field(default_factory=list)
    delays_s: list[float] = field(default_factory=list)
    is_over: bool = False
    is_cut: bool = False
    writer: asyncio.StreamWriter | None = None

    async def listen(self, url: str) -> None:
        """To the job's end, over as many connections as it takes."""
        while not self.is_over:
            await self._connection(url)
            if not self.is_over and not self.is_cut:
                raise AssertionError(f"a stream of {self.job_id} ended before its job")
            self.is_cut = False

    def cut(self) -> None:
        if self.writer and not self.is_over:
            self.is_cut = True
            self.writer.transport.abort()

    async def _connection(self, url: str) -> None:
        place = urlsplit(url)
        reader, self.writer = await asyncio.open_connection(place.hostname, place.port)
        last = f"Last-Event-ID: {self.ids[-1]}\r\n" if self.ids else ""
        self.writer.write(f"GET /v1/jobs/{self.job_id}/events HTTP/1.1\r\nHost: x\r\n{last}\r\n".encode())
        try:
            await self._read(reader)
        except (OSError, asyncio.IncompleteReadError):
            if not self.is_cut:
                raise
        finally:
            self.writer.close()

    async def _read(self, reader: asyncio.StreamReader) -> None:
        status = await reader.readline()
        assert b" 200 " in status, status
        # A chunk of no length ends the answer; a line may be cut with its connection.
        while (line := await reader.readline()) not in (b"0\r\n", b""):
            if line.startswith(b"id: ") and line.endswith(b"\n"):
                self._hear(line[4:].decode().strip())
        self.is_over = line == b"0\r\n"

    def _hear(self, event_id: str) -> None:
        self.ids.append(event_id)
        self.delays_s.append(time.time() - int(event_id.partition("-")[0]) / 1000)


@dataclass(frozen=True, slots=True)
class Figures:
    case: Case
    memory_kib: float
    threads: int
    idle_share: float
    heard: int
    cpu_us: float
    p50_ms: float
    p95_ms: float
    resumed: int

    def row(self) -> str:
        return (
            f"| {self.case.listeners} | {self.case.jobs} | {self.memory_kib:.0f} KiB | {self.threads} | "
            f"{self.idle_share:.1%} | {self.heard} | {self.cpu_us:.0f} µs | {self.p50_ms:.0f} ms | "
            f"{self.p95_ms:.0f} ms | {self.resumed} |"
        )


COLUMNS = (
    "Listeners",
    "Jobs",
    "Memory of one",
    "Threads of the API",
    "Of a core while nothing happens",
    "Events heard",
    "CPU of one",
    "Delay p50",
    "Delay p95",
    "Cut and resumed",
)


def main() -> None:
    asked = _asked()
    _let_open(4 * asked.listeners + _SPARE_FILES)
    print(f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|", flush=True)
    for jobs in asked.jobs or sorted({1, max(asked.listeners // 10, 1), asked.listeners}):
        most = _MOST_HEARD_PER_S * jobs / (_EVENTS * asked.listeners)
        case = Case(asked.listeners, jobs, min(asked.windows_per_s, most), asked.talking_s, asked.idle_s)
        with _stage(asked.threads) as (api, hand, store):
            print(asyncio.run(measure(case, api, hand, store)).row(), flush=True)


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--listeners", type=int, default=500)
    parser.add_argument("--jobs", type=int, action="append", help="that the listeners share among them")
    parser.add_argument("--windows-per-s", type=float, default=20, help="of all jobs together, at most")
    parser.add_argument("--talking-s", type=float, default=20)
    parser.add_argument("--idle-s", type=float, default=20)
    parser.add_argument("--threads", type=int, help="ANANSE_API_THREADS of the API")
    return parser.parse_args()


def _let_open(files: int) -> None:
    """Both ends of every connection are on this machine."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < files:
        sys.exit(f"{files} open files are needed; this machine lets a process have {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))


@contextmanager
def _stage(threads: int | None) -> Iterator[tuple[ApiServer, WorkerHand, RedisStore]]:
    with (
        tempfile.TemporaryDirectory() as folder,
        redis_server(require_binary()) as url,
        connect(url) as redis,
    ):
        settings = Settings(redis_url=url, blob_url=f"file://{folder}/blobs", state_dir=Path(folder))
        if threads:
            settings = settings.model_copy(update={"api_threads": threads})
        store = RedisStore(redis)
        hand = WorkerHand(Ledger(store), Fleet(store), open_blobs(settings))
        with api_server(settings) as api:
            yield api, hand, store


@dataclass(slots=True)
class Scene:
    """Jobs at work, and who listens to them. `said` counts the windows of all jobs, which take turns."""

    case: Case
    hand: WorkerHand
    parts: dict[str, Claim]
    listeners: list[Listener]
    tasks: list["asyncio.Task[None]"] = field(default_factory=list)
    said: int = 0

    async def come(self, url: str) -> None:
        for begin in range(len(self.tasks), len(self.listeners), _AT_ONCE):
            new = self.listeners[begin : begin + _AT_ONCE]
            self.tasks += [asyncio.create_task(one.listen(url)) for one in new]
            await self.until(lambda new=new: all(one.ids for one in new), _COME_S)

    async def talk(self, count: int, unlucky: Sequence[Listener] = ()) -> None:
        """So many windows, until all have heard them; who is unlucky is cut halfway."""
        job_ids, began = list(self.parts), time.monotonic()
        before, told = self.heard(), 0
        for number in range(count):
            await asyncio.sleep(max(began + number / self.case.windows_per_s - time.monotonic(), 0))
            job_id, index = job_ids[self.said % len(job_ids)], self.said // len(job_ids)
            said = window(index, index * WINDOW_S, (index + 1) * WINDOW_S, _TEXT)
            await asyncio.to_thread(self.hand.keep, self.parts[job_id], said)
            self.said += 1
            told += _EVENTS * sum(one.job_id == job_id for one in self.listeners)
            if number == count // 2:
                for one in unlucky:
                    one.cut()
        await self.until(lambda: self.heard() >= before + told, _END_S)

    async def end(self) -> None:
        for part in self.parts.values():
            await asyncio.to_thread(_end, self.hand, part.job_id, part)
        async with asyncio.timeout(_END_S):
            await asyncio.gather(*self.tasks)

    def heard(self) -> int:
        return sum(len(one.ids) for one in self.listeners)

    async def until(self, condition: Callable[[], object], seconds: float) -> None:
        """Raises what a listener died of."""
        async with asyncio.timeout(seconds):
            while not condition():
                for task in self.tasks:
                    if task.done():
                        task.result()
                await asyncio.sleep(0.02)


async def measure(case: Case, api: ApiServer, hand: WorkerHand, store: RedisStore) -> Figures:
    process, count = psutil.Process(api.pid), int(case.windows_per_s * case.talking_s)
    parts = {job_id: _begun(store, hand, job_id) for job_id in map("job_{:026}".format, range(case.jobs))}
    listeners = [Listener([*parts][number % case.jobs]) for number in range(case.listeners)]
    # A first one brings in what all of them need.
    await _first(Scene(case, hand, parts, [Listener(listeners[0].job_id)]), api.url)
    before_bytes = process.memory_info().rss
    scene = Scene(case, hand, parts, listeners)
    await scene.come(api.url)
    memory_bytes = process.memory_info().rss - before_bytes
    idle_share = await _share(process, case.idle_s)
    for one in listeners:
        one.delays_s.clear()
    heard_before, cpu_before, began = scene.heard(), _cpu_s(process), time.monotonic()
    await scene.talk(count)
    cpu_s = _cpu_s(process) - cpu_before - idle_share * (time.monotonic() - began)
    heard = scene.heard() - heard_before
    delays_ms = [1000 * delay for one in listeners for delay in one.delays_s]
    unlucky = random.Random(8).sample(listeners, len(listeners) // 3)
    await scene.talk(count // 4, unlucky)
    threads = process.num_threads()
    await scene.end()
    _require_all_heard(store, listeners)
    return Figures(
        case,
        memory_bytes / 1024 / case.listeners,
        threads,
        idle_share,
        heard,
        1e6 * max(cpu_s, 0.0) / heard,
        statistics.median(delays_ms),
        statistics.quantiles(delays_ms, n=20)[-1],
        len(unlucky),
    )


async def _first(scene: Scene, url: str) -> None:
    await scene.come(url)
    scene.tasks[0].cancel()
    await asyncio.gather(*scene.tasks, return_exceptions=True)


def _begun(store: RedisStore, hand: WorkerHand, job_id: str) -> Claim:
    submit(store, job_id, model=MODEL, audio_s=WINDOW_S)
    (part,) = hand.cut(hand.begin(job_id), part_s=1e6)
    return part


def _end(hand: WorkerHand, job_id: str, part: Claim) -> None:
    said = window(0, 0.0, WINDOW_S, _TEXT)
    hand.store_part(part, said)
    hand.end(job_id, said)


def _require_all_heard(store: RedisStore, listeners: Sequence[Listener]) -> None:
    """Each has all of its job's events, once and in order."""
    jobs = JobStore(store)
    told = {
        job_id: [row[0] for row in store.client.xrange(store.key("events", job_id))]
        for job_id in {one.job_id for one in listeners}
    }
    assert all(jobs.get(job_id).status.is_terminal for job_id in told)
    wrong = [one for one in listeners if one.ids != told[one.job_id]]
    short = sum(len(told[one.job_id]) - len(one.ids) for one in wrong)
    assert not wrong, f"{len(wrong)} of {len(listeners)} listeners missed {short} events"


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


async def _share(process: psutil.Process, seconds: float) -> float:
    before, began = _cpu_s(process), time.monotonic()
    await asyncio.sleep(seconds)
    return (_cpu_s(process) - before) / (time.monotonic() - began)


if __name__ == "__main__":
    main()
