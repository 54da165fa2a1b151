"""A campaign: load and faults together, then quiet, then the comparison of what was promised with what is."""

import platform
import random
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.chaos.clients import Load, hook
from tests.chaos.cluster import Cluster, cluster
from tests.chaos.promises import TERMINAL, Book, Verdict, judge

KILLED = {"worker": 4, "child": 4, "api": 1, "redis": 1}
FORGETFUL = {"emptied": 1, "old": 1}
"""Shares of the faults: processes that are killed, or a Redis that loses what it knows."""

QUIET_S = 120.0
_EVERY_S = 10.0


@dataclass(frozen=True, slots=True)
class Plan:
    """A `kill -9` every `every_s`. The seed fixes recordings, cancels and the order of the faults."""

    jobs: int = 1000
    every_s: float = 3.0
    workers: int = 4
    clients: int = 24
    pace: float = 0.01
    seed: int = 1
    shares: Mapping[str, int] = field(default_factory=lambda: KILLED)


@dataclass(frozen=True, slots=True)
class Report:
    plan: Plan
    verdict: Verdict
    faults: Counter[str]
    statuses: Counter[str]
    attempts: Counter[int]
    load_s: float
    quiet_s: float
    webhooks: int

    @property
    def executions_per_job(self) -> float:
        return sum(attempt * jobs for attempt, jobs in self.attempts.items()) / max(1, self.attempts.total())

    @property
    def executions_again(self) -> int:
        """Beyond the first of each job."""
        return sum((attempt - 1) * jobs for attempt, jobs in self.attempts.items())

    def markdown(self) -> str:
        plan, memory_gb = self.plan, psutil.virtual_memory().total / 2**30
        rows = [(word.name, len(getattr(self.verdict, word.name))) for word in fields(Verdict)]
        lines = [
            f"# {plan.jobs} jobs, a fault every {plan.every_s:g} s",
            "",
            f"`python -m tests.chaos --jobs {plan.jobs} --every {plan.every_s:g} --workers {plan.workers}"
            f" --clients {plan.clients} --seed {plan.seed}{' --forgetful' * (plan.shares is FORGETFUL)}`",
            "",
            f"{psutil.cpu_count()} cores, {memory_gb:.0f} GB, {platform.system()}, Python"
            f" {platform.python_version()}. Redis with AOF (`everysec`), one API, {plan.workers} workers.",
            "",
            "| Verdict | |",
            "|---|---|",
            *(f"| {name} | {count} |" for name, count in rows),
            "",
            "| Run | |",
            "|---|---|",
            f"| jobs that ended | {', '.join(f'{n} {s}' for s, n in sorted(self.statuses.items()))} |",
            f"| faults | {', '.join(f'{n} {kind}' for kind, n in sorted(self.faults.items()))} |",
            f"| load and faults | {self.load_s:.0f} s |",
            f"| until all had ended, once it was quiet | {self.quiet_s:.1f} s |",
            f"| attempts per job | {self.executions_per_job:.3f} (most: {max(self.attempts, default=0)}) |",
            f"| webhooks that came | {self.webhooks} ids |",
        ]
        return "\n".join(lines) + "\n"


def run(plan: Plan, folder: Path, say: Callable[[str], None]) -> Report:
    book = Book()
    with (
        tempfile.TemporaryDirectory(prefix="ananse-chaos-") as redis_folder,
        cluster(folder, Path(redis_folder), plan.workers, plan.pace) as service,
        hook(book, plan.seed) as hook_url,
    ):
        load = Load(service.url, hook_url, book, plan.seed)
        right = load.right_texts()
        say(f"seed {plan.seed}: {len(right)} recordings read undisturbed")
        began = time.monotonic()
        with _faults(service, plan) as faults, _progress(load, plan, faults, say):
            load.run(plan.jobs, plan.clients)
        load_s = time.monotonic() - began
        records, quiet_s = _settled(service.url, book)
        texts = _texts(service.url, records)
        return Report(
            plan,
            judge(book, records, texts, right),
            faults,
            Counter(str(record["status"]) for record in records),
            Counter(int(record["attempt"]) for record in records if record["status"] == "completed"),
            load_s,
            quiet_s,
            len(book.hooks),
        )


@contextmanager
def _faults(service: Cluster, plan: Plan) -> Iterator[Counter[str]]:
    chance, done = random.Random(plan.seed), threading.Event()
    struck: Counter[str] = Counter()
    kinds = _dealt(plan.shares, chance)

    def strike() -> None:
        while not done.wait(plan.every_s):
            kind = next(kinds)
            struck[service.strike(kind, chance)] += 1
            if kind in FORGETFUL:
                struck["red"] += not _is_ready(service.url)

    thread = threading.Thread(target=strike, daemon=True)
    thread.start()
    try:
        yield struck
    finally:
        done.set()
        thread.join()


def _dealt(shares: Mapping[str, int], chance: random.Random) -> Iterator[str]:
    """In random order, and yet each kind as often as its share of every round: none is left out by chance."""
    while True:
        round_ = [kind for kind, share in shares.items() for _ in range(share)]
        chance.shuffle(round_)
        yield from round_


def _is_ready(url: str) -> bool:
    with suppress(httpx.TransportError):
        return httpx.get(f"{url}/readyz", timeout=10).status_code == 200
    return False


@contextmanager
def _progress(load: Load, plan: Plan, faults: Counter[str], say: Callable[[str], None]) -> Iterator[None]:
    done, began = threading.Event(), time.monotonic()

    def tell() -> None:
        while not done.wait(_EVERY_S):
            say(f"{time.monotonic() - began:5.0f} s  {load.done}/{plan.jobs} jobs  {dict(faults)}")

    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _settled(url: str, book: Book) -> tuple[list[dict[str, Any]], float]:
    """All jobs once they have ended and their webhooks are out, or after QUIET_S as they are."""
    began = time.monotonic()
    while True:
        records = _listed(url)
        is_open = any(
            record["status"] not in TERMINAL
            or (record.get("webhook") and record["webhook"]["status"] != "delivered")
            for record in records
        )
        if not is_open or time.monotonic() - began > QUIET_S:
            for record in records:
                book.saw(str(record["id"]), str(record["status"]))
            return records, time.monotonic() - began
        time.sleep(1)


def _listed(url: str) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = []
    cursor: str | None = None
    with httpx.Client(base_url=url, timeout=30) as client:
        while True:
            page = _read(client, "/v1/jobs", {"limit": "100"} | ({"cursor": cursor} if cursor else {}))
            records += page.json()["jobs"]
            cursor = page.json()["next_cursor"]
            if not cursor:
                return records


def _read(client: httpx.Client, path: str, query: dict[str, str]) -> httpx.Response:
    """The last fault may have left something that is being put right."""
    deadline = time.monotonic() + QUIET_S
    while True:
        with suppress(httpx.TransportError):
            answer = client.get(path, params=query)
            if answer.status_code < 500 or time.monotonic() > deadline:
                return answer.raise_for_status()
        if time.monotonic() > deadline:
            raise TimeoutError(f"{path} did not answer within {QUIET_S:g} s of quiet")
        time.sleep(1)


def _texts(url: str, records: list[dict[str, Any]]) -> dict[str, str]:
    with httpx.Client(base_url=url, timeout=30) as client:
        return {
            str(record["id"]): _read(client, record["links"]["transcript"], {"format": "text"}).text
            for record in records
            if record["status"] == "completed"
        }
