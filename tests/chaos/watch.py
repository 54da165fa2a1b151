"""Looks on while a test runs: how much memory a worker takes, and how often a client hears of its job."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil

from shared.job_store import JobStore

_LOOK_S = 0.05
_BLOCK_S = 0.5


class Memory:
    """`peak_bytes` is the most a process had in memory since, `base_bytes` what it had at first."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self.base_bytes = self.peak_bytes = self._process.memory_info().rss

    @property
    def grown_bytes(self) -> int:
        return self.peak_bytes - self.base_bytes

    def look(self) -> None:
        with suppress(psutil.Error):
            self.peak_bytes = max(self.peak_bytes, self._process.memory_info().rss)


class Progress:
    """When each event of progress came, and how many seconds of audio were known of by then."""

    def __init__(self, jobs: JobStore, job_id: str) -> None:
        self._jobs = jobs
        self._job_id = job_id
        self._last = "0"
        self.heard_at = [time.monotonic()]
        self.totals_s: list[float] = []

    @property
    def longest_silence_s(self) -> float:
        return max(after - before for before, after in zip(self.heard_at, self.heard_at[1:], strict=False))

    def look(self) -> None:
        for event in self._jobs.events(self._job_id, self._last, _BLOCK_S):
            self._last = event.id
            if event.kind == "progress":
                self.heard_at.append(time.monotonic())
                self.totals_s.append(json.loads(event.body)["total_s"])


@contextmanager
def watching(what: Memory | Progress) -> Iterator[None]:
    stopped = threading.Event()

    def look() -> None:
        while not stopped.wait(_LOOK_S):
            what.look()

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()
