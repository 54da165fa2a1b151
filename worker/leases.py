"""Holding steps: one thread beats for all claims of this worker, and long work asks it whether to go on."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from shared.errors import ServiceError
from shared.ledger import Claim, Fenced, Ledger
from shared.log import bound, get_logger

_ALONE_S = 60.0

_log = get_logger()


class HandBack(Exception):
    """The step is to go back to its queue, through no fault of its own."""


class Draining(HandBack):
    """This worker is stopping, or was told to take nothing more."""


class Yielding(HandBack):
    """Others wait for their first slot."""


class Crowded(HandBack):
    """A step that workers died on is to be alone here."""


class Held:
    """A claim with somebody beating for it, whose lines say what `carried` holds."""

    def __init__(self, claim: Claim, is_alone: bool, look: Callable[["Held"], None]) -> None:
        self.claim = claim
        self.is_alone = is_alone
        self.carried = {"job_id": claim.job_id, "step": claim.step}
        self._look = look
        self._lost: Fenced | None = None

    def check(self) -> None:
        """To be called between windows. Raises Fenced when the step is lost, HandBack when it must go."""
        if self._lost is not None:
            raise self._lost
        self._look(self)

    @property
    def is_delivery(self) -> bool:
        return self.claim.step.startswith("deliver")

    def lose(self, reason: Fenced) -> None:
        self._lost = reason


class Leases:
    """Beats for every held claim, three times within a lease. `fetched` counts the messages that came,
    `errors` the beats that Redis did not hear.

    `draining` is for good: the worker stops. `drained` is until further notice, by an operator's word.
    """

    def __init__(self, ledger: Ledger, lease_s: float) -> None:
        self._ledger = ledger
        self._pause_s = lease_s / 3
        self._held: set[Held] = set()
        self._lock = threading.Condition()
        self._is_reserved = False
        self._stopped = threading.Event()
        self.draining = threading.Event()
        self.drained = threading.Event()
        self.fetched = 0
        self.errors = 0
        self._thread = threading.Thread(target=self._beat_all, name="leases", daemon=True)
        self._thread.start()

    @contextmanager
    def hold(self, claim: Claim, is_alone: bool = False) -> Iterator[Held]:
        """`is_alone` is for what was claimed within `alone`."""
        held = Held(claim, is_alone, self._look)
        with self._lock:
            self._held.add(held)
        try:
            yield held
        finally:
            with self._lock:
                self._held.discard(held)
                self._lock.notify_all()

    @contextmanager
    def alone(self) -> Iterator[bool]:
        """Waits until this worker holds nothing but deliveries, and has it take nothing else meanwhile. For a
        step that workers died on: what it does, it does to itself. Gives whether it came to that in time.
        """
        with self._lock:
            is_mine = self._lock.wait_for(lambda: not self._is_reserved, _ALONE_S)
            self._is_reserved = True
            is_empty = is_mine and self._lock.wait_for(self._holds_deliveries_only, _ALONE_S)
        try:
            yield is_empty
        finally:
            with self._lock:
                self._is_reserved = self._is_reserved and not is_mine
                self._lock.notify_all()

    def _holds_deliveries_only(self) -> bool:
        return all(held.is_delivery for held in self._held)

    def wait_for_company(self) -> None:
        """While a step is alone here, no other is begun."""
        with self._lock:
            self._lock.wait_for(lambda: not self._is_reserved, _ALONE_S)

    @property
    def is_reserved(self) -> bool:
        """Whether a step is alone here."""
        return self._is_reserved

    @property
    def is_draining(self) -> bool:
        """Whether nothing is claimed any more, and what is held goes back."""
        return self.draining.is_set() or self.drained.is_set()

    def _look(self, held: Held) -> None:
        if self.is_draining:
            raise Draining()
        if self._is_reserved and not held.is_alone and not held.is_delivery:
            raise Crowded()

    @property
    def count(self) -> int:
        with self._lock:
            return len(self._held)

    def close(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _beat_all(self) -> None:
        while not self._stopped.wait(self._pause_s):
            with self._lock:
                held = list(self._held)
            for one in held:
                with bound(**one.carried):
                    self._beat(one)

    def _beat(self, held: Held) -> None:
        try:
            self._ledger.beat(held.claim)
        except Fenced as error:
            held.lose(error)
        except ServiceError as error:
            # Redis is away: the lease may lapse, and then the fence decides.
            self.errors += 1
            _log.warning("beat_failed", code=error.code)
        except Exception:
            # This thread beats for every step of the worker: nothing may end it.
            _log.exception("beat_failed")
