"""What the measurements of `benchmarks.scale` stand on: a Redis, what it spends, and jobs that wait."""

import hashlib
import itertools
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from shared.fleet import WorkerState
from shared.job import Options
from shared.job_store import JobStore, NewJob
from shared.ledger import DELIVER_QUEUE, LONG_PREPARE_QUEUE, PREPARE_QUEUE
from shared.media import Media
from shared.models import Abilities, ModelCard, long_queue_of, queue_of
from shared.redis_store import RedisStore, connect
from tests.support.redis_server import RedisServer, require_binary, running

MODEL = "small"
PROCESSES = 2
AUDIO_S = 30.0

_LANGUAGES = tuple(f"{first}{second}" for first in "abcdefghi" for second in "abcdefghijk")
_PATIENCE_S = 60.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Figure:
    """A row of the report; `what` says what `value` is of."""

    name: str
    value: float
    unit: str
    what: str

    @property
    def text(self) -> str:
        digits = 0 if self.value >= 1000 else 1 if self.value >= 10 else 2 if self.value >= 0.1 else 4
        return f"{self.value:,.{digits}f} {self.unit}".rstrip()


@dataclass(frozen=True, slots=True)
class Ground:
    """A real Redis that keeps its file, as the service's own does."""

    server: RedisServer
    store: RedisStore

    @property
    def jobs(self) -> JobStore:
        return JobStore(self.store)

    def used_bytes(self) -> int:
        return int(self.store.client.info("memory")["used_memory"])

    def empty(self) -> None:
        self.store.client.flushall()


@contextmanager
def ground(*arguments: str, fsync: str = "everysec") -> Iterator[Ground]:
    with (
        running(require_binary(), "--appendonly", "yes", "--appendfsync", fsync, *arguments) as server,
        connect(server.url, timeout_s=_PATIENCE_S) as client,
    ):
        yield Ground(server, RedisStore(client))


@dataclass(frozen=True, slots=True)
class Spent:
    """What Redis did between two looks; `share` is of one core, `script_us` the mean time in a script."""

    seconds: float
    cpu_s: float
    commands: int
    scripts: int
    script_us: float

    @property
    def share(self) -> float:
        return self.cpu_s / self.seconds


class Meter:
    """Looks at Redis when it is made, and again at `spent`."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._before = self._look()

    def spent(self) -> Spent:
        at, cpu_s, commands, scripts, us = (
            after - before for after, before in zip(self._look(), self._before, strict=True)
        )
        return Spent(at, cpu_s, int(commands), int(scripts), us / scripts if scripts else 0.0)

    def _look(self) -> tuple[float, float, float, float, float]:
        told = self._client.info("all")
        run = told.get("cmdstat_evalsha", {"calls": 0, "usec": 0})
        # Its own thread: rewriting the file is another's.
        cpu_s = told["used_cpu_user_main_thread"] + told["used_cpu_sys_main_thread"]
        return time.monotonic(), cpu_s, told["total_commands_processed"], run["calls"], run["usec"]


def timed(act: Callable[[T], object], over: Iterable[T]) -> list[float]:
    """Milliseconds that each call took, one after another."""
    took = []
    for one in over:
        began = time.perf_counter()
        act(one)
        took.append((time.perf_counter() - began) * 1000)
    return took


def percentiles(name: str, took_ms: Sequence[float], what: str) -> Iterator[Figure]:
    p50, p99 = np.percentile(took_ms, (50, 99))
    yield Figure(f"{name}, p50", float(p50), "ms", what)
    yield Figure(f"{name}, p99", float(p99), "ms", what)


def worker(number: int, model: str = MODEL) -> WorkerState:
    """As a worker with the default slots and a model of a hundred languages describes itself."""
    abilities = Abilities(_LANGUAGES, ("transcribe", "translate"), True, True, True, True)
    card = ModelCard(model, f"openai/whisper-{model}", "0" * 40, "cuda", "bfloat16", 241_734_912, abilities)
    slots = {PREPARE_QUEUE: 2, LONG_PREPARE_QUEUE: 2, DELIVER_QUEUE: 4}
    slots |= {queue_of(model): 8, long_queue_of(model): 8}
    counts = {"windows": 10_000, "audio_s": 250_000.5, "busy_s": 5_000.1, "idle_s": 1_000.1, "waiting": 0}
    return WorkerState(
        f"host-{number}-1", (card,), slots, f"host-{number}", 1, 3, rtfx={model: 50.0}, engine={model: counts}
    )


def new_job(number: int, tenants: int, models: int = 1) -> NewJob:
    job_id = f"job_{hashlib.sha256(str(number).encode()).hexdigest()[:26]}"
    options = Options(model=MODEL if models == 1 else f"{MODEL}-{number % models}")
    media = Media("recording of a meeting.mp3", 480_000, hashlib.sha256(job_id.encode()).hexdigest())
    tenant = f"tenant-{number % tenants}"
    return NewJob(job_id, tenant, options, media, request_id=f"req_{number:024}", audio_s=AUDIO_S)


def fill(url: str, numbers: range, tenants: int, models: int = 1) -> None:
    """Jobs that wait for their first step, each made by the ledger's own script, by a few processes."""
    context = multiprocessing.get_context("fork")
    parts = [numbers[start::PROCESSES] for start in range(PROCESSES)]
    fillers = [context.Process(target=_fill, args=(url, part, tenants, models)) for part in parts]
    for filler in fillers:
        filler.start()
    for filler in fillers:
        filler.join()
        assert filler.exitcode == 0


def _fill(url: str, numbers: range, tenants: int, models: int) -> None:
    with connect(url, timeout_s=_PATIENCE_S) as client:
        jobs = JobStore(RedisStore(client))
        for number in numbers:
            jobs.create_again(new_job(number, tenants, models), 0.0)


def chunks(over: Iterable[T], size: int) -> Iterator[list[T]]:
    rest = iter(over)
    while chunk := list(itertools.islice(rest, size)):
        yield chunk


def say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)
