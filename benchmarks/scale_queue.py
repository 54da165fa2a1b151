"""What waiting work costs: memory, time of each act as the queue grows, a restart, a fleet that dies."""

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from redis.exceptions import RedisError

from benchmarks.scale_fleet import NoBroker
from benchmarks.scale_ground import (
    Figure,
    Ground,
    Meter,
    fill,
    ground,
    new_job,
    percentiles,
    say,
    timed,
    worker,
)
from shared.fleet import Fleet, WorkerState
from shared.job import Status
from shared.job_store import Filters
from shared.ledger import FINISH, MOST_SWEPT, PREPARE, PREPARE_QUEUE, Claim, Ledger, part_step
from shared.task_queue import Dispatcher
from tests.support.worker_hand import window

TUNED = ("--hash-max-listpack-value", "1024", "--stream-node-max-bytes", "1024")
"""As the Redis that `ananse up` starts."""

PLAIN = ("--hash-max-listpack-value", "64", "--stream-node-max-bytes", "4096")
WORDS = "word " * 40
USED = {"name": "small", "revision": "0" * 40, "device": "cuda", "dtype": "bfloat16"}
PART_BODY = '{"windows": [[0, 0.0, 29.5, 14.75]], "seconds": 29.5}'


def queues(sizes: tuple[int, ...], tenants: int, models: int, calls: int) -> Iterator[Figure]:
    """The same acts with ever more waiting behind them."""
    with ground(*TUNED) as here:
        empty, there = here.used_bytes(), 0
        Fleet(here.store).beat(worker(0))
        for size in sizes:
            say(f"queues: {size} waiting, {tenants} tenants, {models} models")
            began = time.monotonic()
            fill(here.server.url, range(there, size), tenants, models)
            filled_s = time.monotonic() - began
            yield Figure(
                f"{_of(size, tenants, models)}: created", (size - there) / filled_s, "/s", "by two processes"
            )
            there = size
            yield Figure(
                f"{_of(size, tenants, models)}: memory of a job",
                (here.used_bytes() - empty) / size,
                "bytes",
                "queued, all indexes and lines included",
            )
            for name, act, what in _acts(here, size, tenants, models):
                yield from _act_figures(here, f"{_of(size, tenants, models)}: {name}", act, calls, what)
        yield from _restart(here, sizes[-1])


def _of(size: int, tenants: int, models: int) -> str:
    return f"{size:,} waiting, {tenants:,} tenants, {models} models"


def _act_figures(
    here: Ground, name: str, act: Callable[[int], object], calls: int, what: str
) -> Iterator[Figure]:
    meter = Meter(here.store.client)
    took_ms = timed(act, range(calls))
    spent = meter.spent()
    yield from percentiles(name, took_ms, what)
    yield Figure(f"{name}, Redis", spent.cpu_s / calls * 1e6, "µs", "CPU of a call")


def _acts(
    here: Ground, size: int, tenants: int, models: int
) -> Iterator[tuple[str, Callable[[int], object], str]]:
    ledger, jobs = Ledger(here.store), here.jobs
    taken: list[str] = []

    def dispatch(_: int) -> None:
        busy = here.store.client.zcard(here.store.key("busy", PREPARE_QUEUE))
        taken.extend(hint.job_id for hint in ledger.dispatch(PREPARE_QUEUE, busy + 1, 3600))

    def back(number: int) -> None:
        ledger.release(ledger.claim(taken[number], PREPARE, "worker"))

    last = [new_job(size - 1 - number, tenants, models).id for number in range(min(size, 100))]
    yield "dispatch of one step", dispatch, "with a ZCARD before it"
    yield "claim and release", back, "of the steps that were sent"
    yield "position in the queue", lambda n: jobs.ahead(last[n % len(last)]), "of the youngest jobs"
    yield "page of 20", lambda n: jobs.page(f"tenant-{n % tenants}", Filters()), "newest first"
    yield "look of the sweeper", lambda _: [ledger.sweep(queue) for queue in ledger.queues()], "all queues"
    yield "audio owed", lambda _: jobs.owed_s(), "at each submit"


def _restart(here: Ground, size: int) -> Iterator[Figure]:
    say(f"restart with {size} waiting")
    client = here.store.client
    client.bgrewriteaof()
    began = time.monotonic()
    while client.info("persistence")["aof_rewrite_in_progress"]:
        time.sleep(0.1)
    yield Figure(f"{size:,} waiting: file rewritten", time.monotonic() - began, "s", "beside the work")
    file_bytes = client.info("persistence")["aof_current_size"]
    yield Figure(f"{size:,} waiting: append-only file", file_bytes / 2**20, "MiB", "just rewritten")
    here.server.kill()
    began = time.monotonic()
    try:
        here.server.start()
    except RedisError:
        # It reads longer than a test waits for a server.
        _wait_until_read(client)
    yield Figure(f"{size:,} waiting: restart", time.monotonic() - began, "s", "kill -9 until it answers")
    assert client.scard(here.store.key("tenants")), "nothing was read"


def _wait_until_read(client: Any) -> None:
    while True:
        try:
            client.ping()
            return
        except RedisError:
            time.sleep(0.1)


def memory(jobs: int, windows: int) -> Iterator[Figure]:
    """Of one job in each state, with Redis as it comes and as `ananse up` sets it."""
    for name, settings in (("as it comes", PLAIN), ("tuned", TUNED)):
        say(f"memory: Redis {name}")
        with ground(*settings) as here:
            # The first one brings the scripts and the sets that all jobs share.
            fill(here.server.url, range(jobs, jobs + 1), tenants=100)
            _end(Ledger(here.store), _at_work(Ledger(here.store), new_job(jobs, 100).id, windows))
            marks = [here.used_bytes()]
            fill(here.server.url, range(jobs), tenants=100)
            marks.append(here.used_bytes())
            ids = [new_job(number, 100).id for number in range(jobs)]
            parts = [_at_work(Ledger(here.store), job_id, windows) for job_id in ids]
            marks.append(here.used_bytes())
            for part in parts:
                _end(Ledger(here.store), part)
            marks.append(here.used_bytes())
            for job_id in ids:
                here.store.client.delete(here.store.key("events", job_id))
            marks.append(here.used_bytes())
        states = (
            "queued",
            f"running, {windows} windows of 40 words",
            "ended, within its hour",
            "ended, after it",
        )
        for state, mark in zip(states, marks[1:], strict=True):
            yield Figure(
                f"Memory of a job, {state}, Redis {name}", (mark - marks[0]) / jobs, "B", f"mean of {jobs:,}"
            )


def _at_work(ledger: Ledger, job_id: str, windows: int) -> Claim:
    prepare = ledger.claim(job_id, PREPARE, "host-1-1")
    ledger.offer_part(prepare, 0, "small", PART_BODY, windows * 30.0)
    ledger.prepared(prepare, 1, {"decode_s": 0.5, "warnings": []})
    part = ledger.claim(job_id, part_step(0), "host-1-1")
    for index in range(windows):
        ledger.checkpoint(part, window(index, index * 30.0, index * 30.0 + 30.0, WORDS), 30.0)
    return part


def _end(ledger: Ledger, part: Claim) -> None:
    ledger.finish_part(part)
    finish = ledger.claim(part.job_id, FINISH, "host-1-1")
    ledger.end(finish, Status.COMPLETED, {"model": USED}, webhook=None, retention_s=604_800)


def takeovers(sizes: tuple[int, ...]) -> Iterator[Figure]:
    """A fleet dies with all its slots taken. Its leases have lapsed: how long until all is back in line, and
    how long Redis does nothing else for it."""
    for workers in sizes:
        steps = workers * 16
        say(f"takeovers: {workers} workers with {steps} steps")
        with ground(*TUNED) as here:
            fill(here.server.url, range(steps), tenants=100)
            dispatcher = Dispatcher(Ledger(here.store), Fleet(here.store), NoBroker(), hint_s=3600)
            Fleet(here.store).beat(_giant(steps))
            while dispatcher.dispatch([PREPARE_QUEUE]):
                pass
            ledger, busy = Ledger(here.store), here.store.key("busy", PREPARE_QUEUE)
            assert here.store.client.zcard(busy) == steps
            _lapse(here, busy)
            took_ms = timed(ledger.sweep, [PREPARE_QUEUE] * (steps // MOST_SWEPT + 1))
            assert here.store.client.zcard(busy) == 0
        what = f"{steps:,} steps, {len(took_ms)} calls of `sweep` one after another"
        yield Figure(f"Dead fleet of {workers} back in line", sum(took_ms) / 1000, "s", what)
        yield Figure(f"Dead fleet of {workers}, longest call", max(took_ms), "ms", what)
        yield Figure(f"Dead fleet of {workers}, mean call", statistics.mean(took_ms), "ms", what)


def _giant(steps: int) -> WorkerState:
    return replace(worker(0), slots={PREPARE_QUEUE: steps})


def _lapse(here: Ground, busy: str) -> None:
    names = here.store.client.zrange(busy, 0, -1)
    for start in range(0, len(names), 1000):
        here.store.client.zadd(busy, dict.fromkeys(names[start : start + 1000], 1))
