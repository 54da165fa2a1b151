"""Which models are in memory: a model comes when it is needed, goes when nobody has used it for a while, and
makes room for another where not all of them fit.

No torch here: how a model is loaded and what it gives back is the runner's business.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from shared.log import get_logger
from worker.engine.values import ModelCard, ModelUnavailable, Runner

LULL_S = 2.0
"""Who has had no window for so long is not at work and may be put out."""

STAY_S = 60.0
"""Who is at work is not put out before it has been in for so long: loading must not eat up the time."""

LOOK_S = 0.2

Load = Callable[[], Runner]
"""Raises ModelUnavailable, or MemoryError when there is no room."""

_log = get_logger()


class Resident:
    """A model that may be in memory or not. `hold`, `rest` are for the one thread that runs it; the others
    of its residence put it out only between two holds."""

    def __init__(self, load: Load, residence: "Residence", clock: Callable[[], float]) -> None:
        self._load = load
        self._residence = residence
        self._clock = clock
        self._runner: Runner | None = None
        self._card: ModelCard | None = None
        self._in_use = threading.Lock()
        self._came_at = 0.0
        self._used_at = 0.0
        self._loading_since: float | None = None
        self._is_wanted = False

    @classmethod
    def of(cls, runner: Runner) -> "Resident":
        """One that is in and stays."""
        return Residence().add(lambda: runner)

    @property
    def card(self) -> ModelCard:
        """Of the model as it was first loaded, whether it is in memory now or not."""
        if self._card is None:
            raise RuntimeError("the model has not been loaded yet")
        return self._card

    @property
    def is_in(self) -> bool:
        return self._runner is not None

    @property
    def is_wanted(self) -> bool:
        """Whether another waits for its place: who holds it is to come to an end, and rest."""
        return self._is_wanted

    @property
    def used_at(self) -> float:
        return self._used_at

    @property
    def loading_for_s(self) -> float:
        """How long it has been loading, 0 when it is not; waiting for room counts."""
        since = self._loading_since
        return 0.0 if since is None else self._clock() - since

    @contextmanager
    def hold(self) -> Iterator[Runner]:
        """The model in memory, for as long as the block. Raises ModelUnavailable when it cannot be had."""
        while True:
            if self._runner is None:
                self._come()
            with self._in_use:
                if self._runner is None:
                    continue  # Put out again before its turn came.
                self._used_at = self._clock()
                try:
                    yield self._runner
                finally:
                    self._used_at = self._clock()
                return

    def rest(self) -> None:
        """Leaves memory."""
        with self._in_use:
            self._leave("room" if self._is_wanted else "idle")

    def make_room(self) -> bool:
        """Leaves memory if it may; whether it did."""
        now = self._clock()
        is_at_work = self._in_use.locked() or now - self._used_at < LULL_S
        if is_at_work and now - self._came_at < STAY_S:
            return False
        if not self._in_use.acquire(blocking=False):
            self._is_wanted = True
            return False
        try:
            self._leave("room")
        finally:
            self._in_use.release()
        return True

    def load(self) -> Runner:
        """Raises MemoryError, or ModelUnavailable when it cannot be had, or is not what it was."""
        began = self._clock()
        runner = self._load()
        card = runner.card
        if self._card is not None and card.revision != self._card.revision:
            runner.close()
            raise ModelUnavailable(f"The files of model {card.name} are not those it was started with.")
        self._card = self._card or card
        _log.info(
            "model_loaded", model=card.name, device=card.device, seconds=round(self._clock() - began, 2)
        )
        return runner

    def _come(self) -> None:
        self._loading_since = self._clock()
        try:
            self._runner = self._residence.admit(self)
            self._came_at = self._used_at = self._clock()
        finally:
            self._loading_since = None

    def _leave(self, reason: str) -> None:
        runner, self._runner = self._runner, None
        self._is_wanted = False
        if runner is not None:
            runner.close()
            _log.info("model_unloaded", model=self.card.name, reason=reason)


class Residence:
    """The models of one device. At most `most` are in memory at once, 0 for as many as fit."""

    def __init__(self, most: int = 0, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._clock = clock
        self._residents: list[Resident] = []
        self._door = threading.Lock()
        self._never = threading.Event()

    def add(self, load: Load) -> Resident:
        self._residents.append(Resident(load, self, self._clock))
        return self._residents[-1]

    def admit(self, newcomer: Resident) -> Runner:
        """Loads it, once there is room; one at a time. Raises ModelUnavailable."""
        with self._door:
            while self._most and len(self._others(newcomer)) >= self._most:
                self._put_one_out(newcomer)
            while True:
                try:
                    return newcomer.load()
                except MemoryError as error:
                    reason = str(error)
                # Not while the error is handled: its traceback holds what was loaded so far.
                if not self._put_one_out(newcomer):
                    raise ModelUnavailable(f"There is not enough memory: {reason or 'none is left'}.")

    def _put_one_out(self, newcomer: Resident) -> bool:
        """Waits until the one whose last use is longest ago may go; False when nobody else is in."""
        while others := self._others(newcomer):
            if any(one.make_room() for one in sorted(others, key=lambda one: one.used_at)):
                return True
            self._never.wait(LOOK_S)
        return False

    def _others(self, newcomer: Resident) -> list[Resident]:
        return [one for one in self._residents if one is not newcomer and one.is_in]
