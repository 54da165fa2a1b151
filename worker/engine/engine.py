"""Owns the one thread that owns the model: it waits, fills slots, lets the model step, settles futures.

Which window has the next slot is the scheduler's business; what happens to it in the model is the runner's.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import count

from shared.errors import JobError, ModelError, NoWorker, OutOfMemory
from shared.log import get_logger
from worker.engine.meter import Limit, Meter, Statistics
from worker.engine.residence import Resident
from worker.engine.scheduler import KEPT_SHARE, Scheduler
from worker.engine.values import Ended, Hypothesis, ModelCard, ModelUnavailable, Runner, Window

log = get_logger()


SHARED_STEPS = 24
"""While express windows are in the model the others rest, but for one step in so many. A step of all, or a
layer of a long window, takes ten times or more of one that is the express windows' alone, so that the others
still have about half of the time."""


@dataclass(slots=True, eq=False)
class _Ticket:
    """A future that is not running may be cancelled by whoever waits for it, at any time: a slot whose window
    nobody wants is free by the next pass."""

    job: str
    window: Window
    future: Future[Hypothesis]
    is_express: bool = False


class Engine:
    """Runs the windows of all jobs through one runner, `batch_size` at most at a time.

    `submit`, `cancel`, `statistics` and `close` may be called from any thread. A future ends with its
    hypothesis, with OutOfMemory or ModelError, cancelled, or with NoWorker when the model cannot be loaded
    again. It may be cancelled until it ends. `clock` gives seconds that never go back.

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
        self._limit = Limit(most=batch_size, now=batch_size)
        self._meter = Meter(changed_at=clock())
        self._scheduler: Scheduler[_Ticket] = Scheduler()
        self._numbers = count()
        self._seated: dict[int, _Ticket] = {}
        self._again: deque[_Ticket] = deque()
        self._steps_alone = 0
        self._is_one_by_one = False
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
                self._scheduler.add(job, window, _Ticket(job, window, future))
                self._changed.notify()
                return future
        future.cancel()
        return future

    def cancel(self, job: str) -> int:
        """Cancels the futures of the job's windows, those in the model too; returns how many."""
        with self._changed:
            dropped = self._scheduler.drop(job)
            held = [ticket for ticket in (*self._seated.values(), *self._again) if ticket.job == job]
        return _cancel([*dropped, *held])

    def close(self, timeout_s: float) -> bool:
        """Cancels what waits and lets what is in the model finish; False if that took longer."""
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
                waiting=len(self._scheduler) + len(self._again),
                waiting_s=self._scheduler.waiting_s + sum(one.window.duration_s for one in self._again),
                stuck_for_s=now - meter.passed_at if meter.is_busy else 0.0,
                is_loaded=self._resident.is_in,
                loading_for_s=self._resident.loading_for_s,
                lost=self._lost,
                slots_used=len(self._seated),
            )

    def _loop(self) -> None:
        try:
            self._load()
            while self._wait_for_work():
                self._work()
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

    def _wait_for_work(self) -> bool:
        """Until a window that somebody wants is at hand; False when the engine is closed."""
        while True:
            patience_s = self._idle_s if self._idle_s and self._resident.is_in else None
            with self._changed:
                is_time = self._changed.wait_for(self._may_go_on, patience_s)
                if self._is_closed:
                    return False
                if not self._again:
                    self._again.extend(self._take(1))
                self._drop_unwanted()
                if self._again:
                    return True
            if not is_time:
                self._resident.rest()

    def _may_go_on(self) -> bool:
        return self._is_closed or bool(self._again) or bool(len(self._scheduler))

    def _work(self) -> None:
        """Holds the model until nothing is left in it."""
        try:
            with self._resident.hold() as runner:
                self._turn(is_busy=True)
                while self._fill(runner):
                    self._step(runner)
            if self._resident.is_wanted:
                self._resident.rest()
        except ModelUnavailable as error:
            self._lose(str(error))
        except Exception:
            log.exception("model_not_loaded")
            self._lose("It failed as no model should.")
        finally:
            for ticket in self._leave():
                _fail(ticket, ModelError())
            self._turn(is_busy=False)

    def _fill(self, runner: Runner) -> bool:
        """Empties the slots whose windows nobody wants and fills the free ones; whether any is in use."""
        for number in [number for number, ticket in self._seated.items() if ticket.future.cancelled()]:
            runner.unseat(number)
            with self._changed:
                del self._seated[number]
        with self._changed:
            self._drop_unwanted()
            coming = {next(self._numbers): ticket for ticket in self._next()}
            # At once: who cancels its job's windows must find them.
            self._seated |= coming
        for number, ticket in coming.items():
            try:
                runner.seat(number, ticket.window)
            except Exception:
                log.exception("window_not_seated")
                with self._changed:
                    self._meter.failed += 1
                    del self._seated[number]
                _fail(ticket, ModelError())
        return bool(self._seated)

    def _next(self) -> list[_Ticket]:
        """Who is to be seated now: first those that were in a pass that failed."""
        if self._is_one_by_one and not self._seated:
            self._is_one_by_one = bool(self._again)
        # One by one: somebody among them harms the others.
        most = 1 if self._is_one_by_one else self._limit.now
        free = max(0, most - len(self._seated))
        taken = [self._again.popleft() for _ in range(min(free, len(self._again)))]
        if not self._is_one_by_one and not self._is_closed and not self._resident.is_wanted:
            kept = self._limit.now // KEPT_SHARE
            taken += self._take(free - len(taken), kept)
        return [ticket for ticket in taken if not ticket.future.cancelled()]

    def _take(self, free: int, kept: int = 0) -> list[_Ticket]:
        taken = self._scheduler.take(free, kept)
        for ticket, is_express in taken:
            ticket.is_express = is_express
        return [ticket for ticket, _ in taken]

    def _step(self, runner: Runner) -> None:
        """One call of the runner. What it raises is neither kept nor chained: a live traceback holds the
        tensors of the frames in it, and the next pass needs their memory."""
        self._begin()
        failure: JobError | None = None
        try:
            ended = runner.step(self._urgent())
        except MemoryError:
            log.warning("batch_out_of_memory", windows=len(self._seated))
            failure = OutOfMemory()
        except Exception:
            log.exception("batch_failed", windows=len(self._seated))
            failure = ModelError()
        if failure is None:
            self._settle(ended, runner)
        else:
            self._clear(failure, runner)

    def _urgent(self) -> list[int]:
        """Whose step this is; nobody's in particular if it is everybody's. A job that has more waiting is not
        helped by a hurry of its first windows."""
        with self._changed:
            express = [
                number
                for number, ticket in self._seated.items()
                if ticket.is_express and not self._scheduler.has_more(ticket.job)
            ]
        is_alone = 0 < len(express) < len(self._seated) and self._steps_alone < SHARED_STEPS - 1
        self._steps_alone = self._steps_alone + 1 if is_alone else 0
        return express if is_alone else []

    def _settle(self, ended: Sequence[Ended], runner: Runner) -> None:
        tickets = []
        with self._changed:
            for one in ended:
                ticket = self._seated.pop(one.number)
                tickets.append((ticket, one.hypothesis))
                self._meter.windows += 1
                self._meter.audio_s += ticket.window.duration_s
            has_grown = self._limit.ended(len(ended))
        for ticket, hypothesis in tickets:
            if ticket.future.set_running_or_notify_cancel():
                ticket.future.set_result(hypothesis)
        if has_grown:
            self._resize(runner)

    def _clear(self, failure: JobError, runner: Runner) -> None:
        """Takes all windows out after a pass that failed. Those that were too many are fewer next time, in
        fewer slots; those of whom one is poison go in one by one. Who was alone, in the only slot if memory
        was short, has failed."""
        for number in self._seated:
            runner.unseat(number)
        seated = self._leave()
        is_overflow = isinstance(failure, OutOfMemory)
        is_hopeless = len(seated) == 1 and (not is_overflow or self._limit.now == 1)
        with self._changed:
            self._meter.overflows += is_overflow
            self._meter.failed += is_hopeless
            if not is_hopeless:
                self._again.extendleft(reversed(seated))
                self._is_one_by_one = self._is_one_by_one or not is_overflow
                if is_overflow:
                    self._limit.overflowed(len(seated))
        if is_hopeless:
            _fail(seated[0], failure)
        elif is_overflow:
            self._resize(runner)

    def _resize(self, runner: Runner) -> None:
        try:
            runner.resize(self._limit.now)
        except MemoryError:
            with self._changed:
                self._meter.overflows += 1
                self._limit.overflowed(max(2, self._limit.now))
            log.warning("slots_out_of_memory", slots=self._limit.now)
            runner.resize(self._limit.now)

    def _drop_unwanted(self) -> None:
        """With the lock held."""
        self._again = deque(ticket for ticket in self._again if not ticket.future.cancelled())

    def _leave(self) -> list[_Ticket]:
        with self._changed:
            seated, self._seated = list(self._seated.values()), {}
        return seated

    def _lose(self, reason: str) -> None:
        """Takes no more windows; those it has are for another worker."""
        log.error("model_lost", reason=reason)
        with self._changed:
            self._lost = reason
            waiting = [*self._again, *self._scheduler.drop_all()]
            self._again.clear()
        for ticket in (*self._leave(), *waiting):
            _fail(ticket, NoWorker())

    def _turn(self, *, is_busy: bool) -> None:
        with self._changed:
            self._meter.turn(is_busy, self._clock())

    def _begin(self) -> None:
        with self._changed:
            self._meter.passes(len(self._seated), self._clock())

    def _shut(self) -> list[_Ticket]:
        """Takes no more windows; returns those that were waiting."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
            waiting = [*self._again, *self._scheduler.drop_all()]
            self._again.clear()
        return waiting


def _fail(ticket: _Ticket, error: Exception) -> None:
    if ticket.future.set_running_or_notify_cancel():
        ticket.future.set_exception(error)


def _cancel(tickets: Sequence[_Ticket]) -> int:
    """Outside of the lock, because a future runs its callbacks in the thread that cancels it."""
    return sum(ticket.future.cancel() for ticket in tickets)
