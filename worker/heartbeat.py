"""Tells the fleet that this worker lives and what it holds, and hears whether it is to drain."""

import os
import resource
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from shared.errors import ServiceError
from shared.fleet import BEAT_S, Orders, WorkerState
from shared.log import get_logger
from worker.beat_file import BeatFile
from worker.context import Context
from worker.engine.meter import Statistics
from worker.intake import Intake
from worker.watchdog import Watchdog, rss_bytes

_log = get_logger()


class Heartbeat:
    """A thread that beats every BEAT_S until closed."""

    def __init__(self, context: Context, intake: Intake | None = None) -> None:
        self._context = context
        self._intake = intake or Intake()
        self._watchdog = Watchdog(context)
        self._file = BeatFile(context.settings, context.name)
        self._started_at = time.time()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        """The first beat comes at once, and with it the waiting work."""
        self._watchdog.begin()
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
            self._watchdog.look()

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

    def _note(self, change: Callable[[], None]) -> None:
        """Work goes on without the file: only who watches it is told less."""
        try:
            change()
        except OSError as error:
            _log.warning("beat_file_failed", reason=error.strerror)


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
        guards=context.guards,
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
        "slots_used": one.slots_used,
        "waiting": one.waiting,
        "is_loaded": float(one.is_loaded),
    }
