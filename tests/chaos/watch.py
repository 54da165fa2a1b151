"""Looks on while a test runs: how much memory a worker takes, and how often a client hears of its job."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise

import psutil

from shared.job_store import JobStore

_LOOK_S = 0.05
_BLOCK_S = 0.5


class Memory:
    """The most a process had in memory since this was made, over what it had at first."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._base_bytes = self._peak_bytes = self._process.memory_info().rss

    @property
    def grown_bytes(self) -> int:
        return self._peak_bytes - self._base_bytes

    def look(self) -> None:
        with suppress(psutil.Error):
            self._peak_bytes = max(self._peak_bytes, self._process.memory_info().rss)


class Progress:
    """When a client that follows the job heard of progress; it has followed since this was made."""

    def __init__(self, jobs: JobStore, job_id: str) -> None:
        self._jobs = jobs
        self._job_id = job_id
        self._last = "0"
        self._heard_at = [time.monotonic()]

    @property
    def heard(self) -> int:
        return len(self._heard_at) - 1

    @property
    def longest_silence_s(self) -> float:
        return max(after - before for before, after in pairwise(self._heard_at))

    def look(self) -> None:
        for event in self._jobs.events(self._job_id, self._last, _BLOCK_S):
            self._last = event.id
            if event.kind == "progress":
                self._heard_at.append(time.monotonic())


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
