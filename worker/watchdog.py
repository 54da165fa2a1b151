"""Ends the process when its model hangs, when it no longer hears of work, when a model is lost, or when it
has grown too much. Whoever restarts failures starts a new one."""

import os
import signal
import time
from pathlib import Path

from shared.devices import CPU
from shared.errors import ServiceError
from shared.log import get_logger
from worker.context import Context

EXIT_STUCK = 70
EXIT_DEAF = 71

LOAD_TIMEOUT_S = 1800.0
"""A model that is on its way into memory for longer will never be there."""

_VALUE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}

_log = get_logger()


class Watchdog:
    """Looks when it is told to, by one thread."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._hearing = Hearing(context.settings.deaf_s)
        self._own_bytes_at_start = 0

    def begin(self) -> None:
        """The worker is as large now as it should be."""
        self._own_bytes_at_start = own_bytes(self._context)

    def look(self) -> None:
        """Ends the process when it should not go on. Never raises."""
        try:
            self._end_if_stuck()
            self._end_if_deaf()
            self._end_if_lost()
            self._end_if_grown()
        except Exception:
            # Who looks also beats: nothing may end that thread.
            _log.exception("watch_failed")

    def _end_if_stuck(self) -> None:
        """A model call cannot be interrupted from outside; the supervisor starts a new process."""
        for model, (engine, _) in self._context.engines.items():
            now = engine.statistics()
            if now.stuck_for_s > self._context.settings.batch_timeout_s or now.loading_for_s > LOAD_TIMEOUT_S:
                _log.error(
                    "model_stuck",
                    model=model,
                    stuck_s=round(now.stuck_for_s, 1),
                    loading_s=round(now.loading_for_s, 1),
                )
                os._exit(EXIT_STUCK)

    def _end_if_lost(self) -> None:
        """A model that cannot be loaded again is a start-up mistake by now: the next process says which."""
        lost = [model for model, (engine, _) in self._context.engines.items() if engine.statistics().lost]
        if lost and not self._is_draining:
            _log.error("worker_lost_model", models=lost)
            self._leave()

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
        context = self._context
        if any(engine.statistics().loading_for_s for engine, _ in context.engines.values()):
            return  # The file and what is made of it are in memory together for a while.
        most, grown = context.settings.memory_growth_bytes, own_bytes(context) - self._own_bytes_at_start
        if most and grown > most + remembered_bytes(context) and not context.leases.draining.is_set():
            _log.warning("worker_grown", grown_bytes=grown)
            self._leave()

    def _leave(self) -> None:
        """As if told to stop: what is held goes back between two windows."""
        self._context.leases.draining.set()
        os.kill(os.getpid(), signal.SIGTERM)

    @property
    def _is_draining(self) -> bool:
        return self._context.leases.is_draining


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


def remembered_bytes(context: Context) -> int:
    """What models may still come to by right: the silence they remember, as they meet it."""
    return sum(int(card.details.get("silence_bytes", "0")) for _, card in context.engines.values())


def own_bytes(context: Context) -> int:
    """Of this process, less the weights that are in it at the moment: models may come and go."""
    weights = sum(
        card.parameters * _VALUE_BYTES.get(card.dtype, 0)
        for engine, card in context.engines.values()
        if card.device == CPU and engine.statistics().is_loaded
    )
    return rss_bytes() - weights
