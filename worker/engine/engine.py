"""Owns the one thread that owns the model: it waits, takes a batch, runs it and settles the futures.

Which windows make a batch is the scheduler's business; what happens to them in the model is the runner's.
"""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from shared.errors import JobError, ModelError, NoWorker, OutOfMemory
from shared.log import get_logger
from worker.engine.residence import Resident
from worker.engine.scheduler import Scheduler
from worker.engine.values import Hypothesis, ModelCard, ModelUnavailable, Runner, Window

RECOVERY_BATCHES = 16
"""After so many full batches in a row that fitted, a shrunken batch grows by one window again."""

log = get_logger()


@dataclass(frozen=True, slots=True)
class Statistics:
    """What the engine has done since it was made, and where it stands now.

    `batch_fill` is the mean share of `batch_size` used, 0 to 1. `batch_limit` is below `batch_size` after
    memory ran out; `rows` are all windows of all batches, `overflows` batches that memory was not enough for.
    `stuck_for_s` is how long the model has been at its current batch, 0 when it is idle; `loading_for_s` how
    long it has been on its way into memory. `lost` says why it cannot be loaded again.
    """

    windows: int
    failed: int
    batches: int
    rows: int
    overflows: int
    audio_s: float
    busy_s: float
    idle_s: float
    batch_fill: float
    batch_limit: int
    waiting: int
    waiting_s: float
    stuck_for_s: float
    is_loaded: bool = True
    loading_for_s: float = 0.0
    lost: str = ""


@dataclass(frozen=True, slots=True)
class _Ticket:
    window: Window
    future: Future[Hypothesis]


@dataclass(slots=True)
class _Limit:
    """Most windows in a batch: halved when memory runs out, grown again slowly."""

    most: int
    now: int
    fitted: int = 0

    def ran(self, windows: int) -> None:
        self.fitted += windows >= self.now
        if self.fitted >= RECOVERY_BATCHES:
            self.now, self.fitted = min(self.most, self.now + 1), 0

    def overflowed(self, windows: int) -> None:
        self.now, self.fitted = max(1, min(self.now, windows // 2)), 0


@dataclass(slots=True)
class _Meter:
    """Running totals. `changed_at` is when the thread last went from idle to busy or back."""

    changed_at: float
    is_busy: bool = False
    windows: int = 0
    failed: int = 0
    batches: int = 0
    rows: int = 0
    overflows: int = 0
    audio_s: float = 0.0
    seconds: dict[bool, float] = field(default_factory=lambda: {True: 0.0, False: 0.0})

    def turn(self, is_busy: bool, now: float) -> None:
        self.seconds[self.is_busy] += now - self.changed_at
        self.is_busy, self.changed_at = is_busy, now

    def spent_s(self, is_busy: bool, now: float) -> float:
        return self.seconds[is_busy] + (now - self.changed_at if is_busy == self.is_busy else 0.0)


class Engine:
    """Runs the windows of all jobs through one runner, `batch_size` at most at a time.

    `submit`, `cancel`, `statistics` and `close` may be called from any thread. A future ends with its
    hypothesis, with OutOfMemory or ModelError, cancelled, or with NoWorker when the model cannot be loaded
    again. `clock` gives seconds that never go back.

    A resident is loaded by the engine's thread, at once; with nothing to do for `idle_s` it leaves memory and
    comes back with the next window (0: never).
    """

    def __init__(
        self,
        runner: Runner | Resident,
        batch_size: int,
        clock: Callable[[], float] = time.monotonic,
        *,
        idle_s: float = 0.0,
    ) -> None:
        self._resident = runner if isinstance(runner, Resident) else Resident.of(runner)
        self._idle_s = idle_s
        self._came: Future[ModelCard] = Future()
        self._lost = ""
        self._clock = clock
        self._limit = _Limit(most=batch_size, now=batch_size)
        self._meter = _Meter(changed_at=clock())
        self._scheduler: Scheduler[_Ticket] = Scheduler()
        self._changed = threading.Condition()
        self._is_closed = False
        self._thread = threading.Thread(target=self._loop, name="engine", daemon=True)
        self._thread.start()

    def card(self) -> ModelCard:
        """The model's, once it has been loaded. Raises ModelUnavailable when it cannot be had."""
        return self._came.result()

    def submit(self, job: str, window: Window) -> Future[Hypothesis]:
        """Queues `window` on behalf of `job`. After `close` the future comes back cancelled."""
        future: Future[Hypothesis] = Future()
        with self._changed:
            if self._lost:
                future.set_exception(NoWorker())
                return future
            if not self._is_closed:
                self._scheduler.add(job, window, _Ticket(window, future))
                self._changed.notify()
                return future
        future.cancel()
        return future

    def cancel(self, job: str) -> int:
        """Cancels the futures of the job's waiting windows; returns how many.

        Windows in the model at this moment finish.
        """
        with self._changed:
            dropped = self._scheduler.drop(job)
        _cancel(dropped)
        return len(dropped)

    def close(self, timeout_s: float) -> bool:
        """Cancels what waits and lets the batch in the model finish; False if that took longer."""
        _cancel(self._shut())
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def statistics(self) -> Statistics:
        with self._changed:
            now, meter, limit = self._clock(), self._meter, self._limit
            return Statistics(
                windows=meter.windows,
                failed=meter.failed,
                batches=meter.batches,
                rows=meter.rows,
                overflows=meter.overflows,
                audio_s=meter.audio_s,
                busy_s=meter.spent_s(True, now),
                idle_s=meter.spent_s(False, now),
                batch_fill=meter.rows / (meter.batches * limit.most) if meter.batches else 0.0,
                batch_limit=limit.now,
                waiting=len(self._scheduler),
                waiting_s=self._scheduler.waiting_s,
                stuck_for_s=now - meter.changed_at if meter.is_busy else 0.0,
                is_loaded=self._resident.is_in,
                loading_for_s=self._resident.loading_for_s,
                lost=self._lost,
            )

    def _loop(self) -> None:
        try:
            self._load()
            while (batch := self._next_batch()) is not None:
                self._settle(batch)
        finally:
            # Nobody may wait for ever for a thread that is being torn down.
            _cancel(self._shut())

    def _load(self) -> None:
        try:
            with self._resident.hold():
                pass
        except BaseException as error:
            self._came.set_exception(error)
            if not isinstance(error, ModelUnavailable):
                raise
        else:
            self._came.set_result(self._resident.card)

    def _next_batch(self) -> list[_Ticket] | None:
        """Waits for work; None when the engine is closed."""
        while not self._wait_for_work():
            self._resident.rest()
        with self._changed:
            taken = [] if self._is_closed else self._scheduler.take(self._limit.now)
        if not taken:
            return None
        return [ticket for ticket in taken if ticket.future.set_running_or_notify_cancel()]

    def _wait_for_work(self) -> bool:
        """False when there was none for so long that the model may leave memory."""
        patience_s = self._idle_s if self._idle_s and self._resident.is_in else None
        with self._changed:
            return self._changed.wait_for(lambda: self._is_closed or bool(len(self._scheduler)), patience_s)

    def _settle(self, batch: list[_Ticket]) -> None:
        if not batch:
            return
        try:
            with self._resident.hold() as runner:
                self._run(batch, runner)
        except ModelUnavailable as error:
            self._lose(str(error), batch)
        except Exception:
            log.exception("model_not_loaded")
            self._lose("It failed as no model should.", batch)
        finally:
            for ticket in batch:
                if not ticket.future.done():
                    ticket.future.set_exception(ModelError())

    def _lose(self, reason: str, batch: Sequence[_Ticket]) -> None:
        """Takes no more windows; those it has are for another worker."""
        log.error("model_lost", reason=reason)
        with self._changed:
            self._lost = reason
            waiting = self._scheduler.drop_all()
        running = [ticket for ticket in waiting if ticket.future.set_running_or_notify_cancel()]
        for ticket in (*batch, *running):
            if not ticket.future.done():
                ticket.future.set_exception(NoWorker())

    def _run(self, batch: list[_Ticket], runner: Runner) -> None:
        """Runs `batch`, in pieces where it cannot run whole."""
        outcome = self._attempt([ticket.window for ticket in batch], runner)
        if not isinstance(outcome, JobError):
            for ticket, hypothesis in zip(batch, outcome, strict=True):
                ticket.future.set_result(hypothesis)
        elif len(batch) == 1:
            with self._changed:
                self._meter.failed += 1
            batch[0].future.set_exception(outcome)
        else:
            # A batch that does not fit is halved; one that fails is run window by window, so that a
            # window the model cannot bear harms only itself.
            size = len(batch) // 2 if isinstance(outcome, OutOfMemory) else 1
            for start in range(0, len(batch), size):
                self._run(batch[start : start + size], runner)

    def _attempt(self, windows: Sequence[Window], runner: Runner) -> list[Hypothesis] | JobError:
        """One call of the runner. The failure is returned, not raised and not chained: a live traceback
        holds the tensors of the frames in it, and the next attempt needs their memory."""
        self._begin(len(windows))
        try:
            hypotheses = runner.run(windows)
            if len(hypotheses) != len(windows):
                raise ValueError(f"{len(hypotheses)} hypotheses for {len(windows)} windows")
        except MemoryError:
            log.warning("batch_out_of_memory", windows=len(windows))
            self._end(0.0, done=0, overflowed=len(windows))
            return OutOfMemory()
        except Exception:
            log.exception("batch_failed", windows=len(windows))
            self._end(0.0, done=0)
            return ModelError()
        self._end(sum(window.duration_s for window in windows), done=len(windows))
        return hypotheses

    def _begin(self, rows: int) -> None:
        with self._changed:
            self._meter.turn(True, self._clock())
            self._meter.batches += 1
            self._meter.rows += rows

    def _end(self, audio_s: float, done: int, overflowed: int = 0) -> None:
        with self._changed:
            self._meter.turn(False, self._clock())
            self._meter.windows += done
            self._meter.audio_s += audio_s
            if overflowed:
                self._meter.overflows += 1
                self._limit.overflowed(overflowed)
            elif done:
                self._limit.ran(done)

    def _shut(self) -> list[_Ticket]:
        """Takes no more windows; returns those that were waiting."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
            return self._scheduler.drop_all()


def _cancel(tickets: Sequence[_Ticket]) -> None:
    """Outside of the lock, because a future runs its callbacks in the thread that cancels it."""
    for ticket in tickets:
        ticket.future.cancel()
