"""Tells the fleet that this worker lives and what it holds; and ends the process when its model hangs, when
it no longer hears of work, or when it has grown too much."""

import os
import resource
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

from shared.errors import ServiceError
from shared.fleet import BEAT_S, WorkerState
from shared.log import get_logger
from worker.beat_file import BeatFile
from worker.context import Context
from worker.engine.engine import Statistics

EXIT_STUCK = 70
EXIT_DEAF = 71

_log = get_logger()


class Heartbeat:
    """A thread that beats every BEAT_S until closed."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._hearing = Hearing(context.settings.deaf_s)
        self._file = BeatFile(context.settings, context.name)
        self._rss_at_start = 0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        """The first beat comes at once, and with it the waiting work."""
        self._rss_at_start = rss_bytes()
        self._beat()
        self._thread.start()

    def close(self) -> None:
        self._stopped.set()
        self._thread.join()
        self._note(self._file.remove)
        try:
            self._context.fleet.leave(self._context.name)
        except ServiceError as error:
            _log.warning("leave_failed", code=error.code)

    def _run(self) -> None:
        while not self._stopped.wait(BEAT_S):
            self._beat()
            self._end_if_stuck()
            self._end_if_deaf()
            self._end_if_grown()

    def _beat(self) -> None:
        try:
            self._context.fleet.beat(state(self._context))
            self._note(self._file.touch)
            self._context.dispatcher.dispatch()
        except ServiceError as error:
            _log.warning("heartbeat_failed", code=error.code)
        except Exception:
            # Without this thread the worker would be taken for dead.
            _log.exception("heartbeat_failed")

    def _note(self, change: Callable[[], None]) -> None:
        """Work goes on without the file: only who watches it is told less."""
        try:
            change()
        except OSError as error:
            _log.warning("beat_file_failed", reason=error.strerror)

    def _end_if_stuck(self) -> None:
        """A model call cannot be interrupted from outside; the supervisor starts a new process."""
        for model, (engine, _) in self._context.engines.items():
            stuck_s = engine.statistics().stuck_for_s
            if stuck_s > self._context.settings.batch_timeout_s:
                _log.error("model_stuck", model=model, stuck_s=round(stuck_s, 1))
                os._exit(EXIT_STUCK)

    def _end_if_deaf(self) -> None:
        """A broker that went away and came back has left workers that live, beat, and fetch nothing more."""
        context = self._context
        leases = context.leases
        may_fetch = leases.count < sum(context.slots.values()) and not leases.is_reserved
        try:
            waiting = context.messages.waiting(context.slots) if may_fetch and not self._is_draining else 0
        except ServiceError:
            return
        if self._hearing.is_deaf(waiting, context.leases.fetched, time.monotonic()):
            _log.error("worker_deaf", messages=waiting)
            os._exit(EXIT_DEAF)

    def _end_if_grown(self) -> None:
        """Leaks in libraries end so, between two windows. The supervisor starts a new process."""
        most, grown = self._context.settings.memory_growth_bytes, rss_bytes() - self._rss_at_start
        if most and grown > most and not self._is_draining:
            _log.warning("worker_grown", grown_bytes=grown)
            self._context.leases.draining.set()
            os.kill(os.getpid(), signal.SIGTERM)

    @property
    def _is_draining(self) -> bool:
        return self._context.leases.draining.is_set()


class Hearing:
    """Whether messages have waited for `deaf_s` of looks without one of them being fetched here."""

    def __init__(self, deaf_s: float) -> None:
        self._deaf_s = deaf_s
        self._fetched = -1
        self._since: float | None = None

    def is_deaf(self, waiting: int, fetched: int, now: float) -> bool:
        if not waiting or fetched != self._fetched:
            self._fetched, self._since = fetched, now if waiting else None
        elif self._since is None:
            self._since = now
        return self._since is not None and now - self._since >= self._deaf_s


def rss_bytes() -> int:
    """Of this process, now; 0 where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return 0


def state(context: Context) -> WorkerState:
    statistics = {name: engine.statistics() for name, (engine, _) in context.engines.items()}
    return WorkerState(
        name=context.name,
        models=tuple(card for _, card in context.engines.values()),
        slots=context.slots,
        host=socket.gethostname(),
        pid=os.getpid(),
        busy=context.leases.count,
        draining=context.leases.draining.is_set(),
        peak_rss_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        rtfx={name: round(one.audio_s / one.busy_s, 1) for name, one in statistics.items() if one.busy_s},
        engine={name: _engine_numbers(one) for name, one in statistics.items()},
    )


def _engine_numbers(one: Statistics) -> dict[str, float]:
    return {
        "windows": one.windows,
        "audio_s": round(one.audio_s, 1),
        "busy_s": round(one.busy_s, 1),
        "idle_s": round(one.idle_s, 1),
        "batch_fill": round(one.batch_fill, 3),
        "batch_limit": one.batch_limit,
        "waiting": one.waiting,
    }
