"""When a job will be done: from what is before it, what it owes, and the speed of live workers."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from shared.errors import StoreUnavailable
from shared.fleet import Fleet, WorkerState
from shared.job import Job, Status
from shared.job_store import Ahead

_FRESH_S = 1.0
_AGAIN_S = 5.0


@dataclass(frozen=True, slots=True)
class Estimate:
    """`files` and `ahead_s` of audio go before the job, None when it does not wait; `eta_s` until it is
    done, None when nobody can tell."""

    files: int | None = None
    ahead_s: float | None = None
    eta_s: float | None = None


@dataclass(frozen=True, slots=True)
class Speed:
    """Audio seconds per second: of all live workers together, and of one."""

    all: float
    one: float


class Speeds:
    """What live workers do, asked of Redis once a second at most: thousands may poll."""

    def __init__(self, fleet: Fleet, clock: Callable[[], float] = time.monotonic) -> None:
        self._fleet = fleet
        self._clock = clock
        self._lock = threading.Lock()
        self._read_at = -_FRESH_S
        self._workers: tuple[WorkerState, ...] = ()
        self._known: dict[str, float] = {}
        self._attempts = 0
        self._has_failed = False

    def of(self, model: str) -> Speed | None:
        """None while no worker serves the model, or none was ever measured."""
        workers, known = self._recent()
        serving = [w for w in workers if not w.draining and any(card.name == model for card in w.models)]
        speeds = [speed for w in serving if (speed := w.rtfx.get(model) or known.get(model))]
        return Speed(sum(speeds), sum(speeds) / len(speeds)) if speeds else None

    def workers(self) -> tuple[WorkerState, ...]:
        """Those that were live a second ago. While none was, each call asks anew: that costs little."""
        return self._recent()[0]

    def _recent(self) -> tuple[tuple[WorkerState, ...], dict[str, float]]:
        seen = self._attempts
        with self._lock:
            # Who waited for another's attempt shares what came of it: a line of attempts at a Redis that does
            # not answer would keep the last for as long as all of them together.
            if self._attempts == seen and self._is_old():
                self._read()
            if self._has_failed:
                raise StoreUnavailable(retry_after_s=_AGAIN_S)
            return self._workers, self._known

    def _is_old(self) -> bool:
        return self._has_failed or not self._workers or self._clock() - self._read_at >= _FRESH_S

    def _read(self) -> None:
        self._has_failed = True
        try:
            self._workers, self._known = self._fleet.live(), self._fleet.speeds()
            self._read_at, self._has_failed = self._clock(), False
        finally:
            self._attempts += 1


def estimate(job: Job, ahead: Ahead, speed: Speed | None, now: datetime) -> Estimate:
    """One part is one worker's, so a file that has not been cut goes at the speed of one."""
    if job.status is Status.QUEUED:
        eta_s = ahead.audio_s / speed.all + ahead.own_s / speed.one if speed else None
        return Estimate(ahead.files, round(ahead.audio_s, 3), _rounded(eta_s))
    pace_s = _pace_s(job, now)
    if pace_s is None and speed:
        pace_s = ahead.own_s / speed.one
    return Estimate(eta_s=_rounded(pace_s))


def retry_after_s(owed_s: float, most_s: float, speed: Speed | None) -> float:
    """When the backlog should be under its bound again; a guess between five seconds and an hour."""
    return min(3600.0, max(5.0, (owed_s - most_s) / speed.all)) if speed else 60.0


def _pace_s(job: Job, now: datetime) -> float | None:
    """The pace so far has all in it: other jobs, other workers, the recording itself."""
    if not (job.started_at and job.total_s and job.done_s > 0):
        return None
    elapsed_s = max(0.0, (now - job.started_at).total_seconds())
    return max(0.0, elapsed_s * (job.total_s - job.done_s) / job.done_s)


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)
