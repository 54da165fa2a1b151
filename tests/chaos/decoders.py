"""The decoder children of a worker: who they work for, and their sudden ends."""

import json
import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from worker.engine.audio import DECODER

_LOOK_S = 0.002


@dataclass(frozen=True, slots=True)
class Decoder:
    """`fd` is its number for the recording it was handed."""

    pid: int
    fd: int

    @property
    def job_id(self) -> str:
        """The recording lies in its job's folder. Raises OSError when the decoder has ended."""
        return Path(os.readlink(f"/proc/{self.pid}/fd/{self.fd}")).parent.name


def decoders(worker_pid: int) -> list[Decoder]:
    """Those past the moment at which they are still copies of the worker."""
    found = []
    with suppress(psutil.Error):
        for child in psutil.Process(worker_pid).children():
            with suppress(psutil.Error):
                command = child.cmdline()
                if str(DECODER) in command:
                    found.append(Decoder(child.pid, json.loads(command[-1])["fd"]))
    return found


class DecoderKiller(threading.Thread):
    """Sends `number` to the first so many decoders of each job in `most`."""

    def __init__(self, pid: int, number: signal.Signals, most: Mapping[str, int]) -> None:
        super().__init__(daemon=True)
        self.killed: Counter[str] = Counter()
        self._worker = pid
        self._number = number
        self._most = most
        self._seen: set[int] = set()
        self._stopped = threading.Event()

    def run(self) -> None:
        while not self._stopped.wait(_LOOK_S):
            for decoder in decoders(self._worker):
                with suppress(OSError):
                    self._end(decoder.pid, decoder.job_id)

    def close(self) -> None:
        self._stopped.set()
        self.join()

    def _end(self, pid: int, job_id: str) -> None:
        if pid in self._seen or self.killed[job_id] >= self._most.get(job_id, 0):
            return
        self._seen.add(pid)
        os.kill(pid, self._number)
        self.killed[job_id] += 1


@contextmanager
def killing_decoders(pid: int, number: signal.Signals, most: Mapping[str, int]) -> Iterator[DecoderKiller]:
    killer = DecoderKiller(pid, number, most)
    killer.start()
    try:
        yield killer
    finally:
        killer.close()
