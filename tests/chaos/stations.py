"""A worker process on a host of its own, and what its log says it did."""

import json
import time
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from shared.fleet import Fleet
from shared.settings import Settings
from tests.chaos.namespaces import Host
from tests.chaos.scene import has_ended
from tests.support.worker_process import PLAIN, WorkerProcess

_PACE = "0.06"
_MOMENT_S = 0.7
_ENDINGS = ("step_done", "step_fenced", "step_left_to_sweeper", "step_put_off", "step_handed_back")
"""How a claim may end, in the words of the worker's log."""


@dataclass(frozen=True, slots=True)
class Line:
    """What a worker logged about a step, at `at` seconds since the epoch: all hosts have the one clock."""

    at: float
    event: str
    job_id: str
    step: str

    @property
    def names(self) -> tuple[str, str]:
        return self.job_id, self.step


@dataclass
class Station:
    """A worker on its host. Its log says what it claimed and how that ended."""

    host: Host
    log: Path
    settings: Settings
    fleet: Fleet
    starts: int = 0
    _process: WorkerProcess | None = None
    _lines: list[Line] = field(default_factory=list)
    _read: int = 0

    def start(self, pace: str = _PACE) -> None:
        with self.host.inside():
            self._process = WorkerProcess(self.settings, self.fleet, self.log, (*PLAIN, "--pace", pace))
        self._process.wait_ready()
        self.starts += 1

    def start_if_ended(self) -> None:
        if self._process is not None and has_ended(self._process.pid):
            self._process.close()
            self.start()

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop()

    def close(self) -> None:
        if self._process is not None:
            self._process.close()

    def claims(self, since: float) -> list[Line]:
        return [line for line in self._all() if line.event == "step_claimed" and line.at >= since]

    def just_begun(self) -> Line | None:
        """A part it claimed a moment ago and still works on."""
        claims = self.claims(time.time() - _MOMENT_S)
        parts = [line for line in claims if line.step.startswith("part")]
        return next((line for line in parts if self.ending_of(line) is None), None)

    def has_logged(self, event: str) -> bool:
        return f'"{event}"' in self.log.read_text()

    def ending_of(self, claim: Line) -> Line | None:
        """What became of its claim; None while it still holds on to it."""
        later = (line for line in self._all() if line.names == claim.names and line.at >= claim.at)
        return next((line for line in later if line.event in _ENDINGS), None)

    def _all(self) -> list[Line]:
        with self.log.open("rb") as log:
            log.seek(self._read)
            whole, end, _ = log.read().rpartition(b"\n")
        self._read += len(whole) + len(end)
        self._lines += [line for text in whole.splitlines() if (line := _line(text)) is not None]
        return self._lines


def _line(text: bytes) -> Line | None:
    try:
        fields = json.loads(text)
        at = datetime.fromisoformat(fields["timestamp"]).timestamp()
        return Line(at, fields["event"], fields["job_id"], fields["step"])
    except (ValueError, KeyError, TypeError):
        # Celery's own lines, and those about no step.
        return None
