"""Tells the fleet that this worker lives and what it holds, and hears whether it is to drain; and ends the
process when its model hangs, when it no longer hears of work, or when it has grown too much."""

import os
import resource
import signal
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from shared.devices import CPU
from shared.errors import ServiceError
from shared.fleet import BEAT_S, Orders, WorkerState
from shared.log import get_logger
from worker.beat_file import BeatFile
from worker.context import Context
from worker.engine.engine import Statistics
from worker.intake import Intake

EXIT_STUCK = 70
EXIT_DEAF = 71

LOAD_TIMEOUT_S = 1800.0
"""A model that is on its way into memory for longer will never be there."""

_VALUE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}

_log = get_logger()


class Heartbeat:
    """A thread that beats every BEAT_S until closed."""

    def __init__(self, context: Context, intake: Intake | None = None) -> None:
        self._context = context
        self._intake = intake or Intake()
        self._hearing = Hearing(context.settings.deaf_s)
        self._file = BeatFile(context.settings, context.name)
        self._started_at = time.time()
        self._own_bytes_at_start = 0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        """The first beat comes at once, and with it the waiting work."""
        self._own_bytes_at_start = own_bytes(self._context)
        self._forget_the_last_one()
        self.beat()
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
            self.beat()
            self.watch()

    def beat(self) -> None:
        """Never raises."""
        try:
            orders = self._tell()
            if orders.drains != self._context.leases.drained.is_set():
                self._turn()
                orders = self._tell()
            self._note(self._file.touch)
            if orders.looks:
                self._context.dispatcher.dispatch()
        except ServiceError as error:
            self._context.metrics.heartbeat_failed()
            _log.warning("heartbeat_failed", code=error.code)
        except Exception:
            # Without this thread the worker would be taken for dead.
            _log.exception("heartbeat_failed")

    def _tell(self) -> Orders:
        return self._context.fleet.beat(replace(state(self._context), started_at=self._started_at))

    def _turn(self) -> None:
        """From work to draining, or back."""
        drained = self._context.leases.drained
        if drained.is_set():
            drained.clear()
            self._intake.open()
            _log.info("worker_undrained")
        else:
            self._intake.shut()
            drained.set()
            _log.info("worker_drained", held=self._context.leases.count)

    def _forget_the_last_one(self) -> None:
        """In a container that is started again a worker has the name of the one before, who may have been
        told to drain."""
        try:
            self._context.fleet.undrain([self._context.name])
        except ServiceError as error:
            _log.warning("undrain_failed", code=error.code)

    def watch(self) -> None:
        """Ends the process when it should not go on. Never raises."""
        try:
            self._end_if_stuck()
            self._end_if_deaf()
            self._end_if_lost()
            self._end_if_grown()
        except Exception:
            # As above: nothing may end this thread.
            _log.exception("watch_failed")

    def _note(self, change: Callable[[], None]) -> None:
        """Work goes on without the file: only who watches it is told less."""
        try:
            change()
        except OSError as error:
            _log.warning("beat_file_failed", reason=error.strerror)

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
        if most and grown > most and not context.leases.draining.is_set():
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


def own_bytes(context: Context) -> int:
    """Of this process, less the weights that are in it at the moment: models may come and go."""
    weights = sum(
        card.parameters * _VALUE_BYTES.get(card.dtype, 0)
        for engine, card in context.engines.values()
        if card.device == CPU and engine.statistics().is_loaded
    )
    return rss_bytes() - weights


def state(context: Context) -> WorkerState:
    statistics = {name: engine.statistics() for name, (engine, _) in context.engines.items()}
    return WorkerState(
        name=context.name,
        models=tuple(card for _, card in context.engines.values()),
        slots=context.slots,
        host=socket.gethostname(),
        pid=os.getpid(),
        busy=context.leases.count,
        draining=context.leases.is_draining,
        rss_bytes=rss_bytes(),
        peak_rss_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        rtfx={name: round(one.audio_s / one.busy_s, 1) for name, one in statistics.items() if one.busy_s},
        engine={name: _engine_numbers(one) for name, one in statistics.items()},
        device=next((card.device for _, card in context.engines.values()), ""),
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
        "is_loaded": float(one.is_loaded),
    }
