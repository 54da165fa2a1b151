"""Holding steps: one thread beats for all claims of this worker, and long work asks it whether to go on."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from shared.errors import ServiceError
from shared.ledger import Claim, Fenced, Ledger
from shared.log import get_logger

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
    """A claim with somebody beating for it."""

    def __init__(self, claim: Claim, look: Callable[["Held"], None]) -> None:
        self.claim = claim
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
        self._loner: Held | None = None
        self._stopped = threading.Event()
        self.draining = threading.Event()
        self.drained = threading.Event()
        self.fetched = 0
        self.errors = 0
        self._thread = threading.Thread(target=self._beat_all, name="leases", daemon=True)
        self._thread.start()

    @contextmanager
    def hold(self, claim: Claim) -> Iterator[Held]:
        held = Held(claim, self._look)
        with self._lock:
            self._held.add(held)
        try:
            yield held
        finally:
            with self._lock:
                self._held.discard(held)
                self._loner = None if self._loner is held else self._loner
                self._lock.notify_all()

    def be_alone(self, held: Held) -> None:
        """Waits until this worker holds no other step but deliveries; it takes none meanwhile. For a step
        that workers died on: what it does, it does to itself. Raises Crowded when another is alone here."""
        with self._lock:
            if self._loner is not None:
                raise Crowded()
            self._loner = held
            self._lock.wait_for(lambda: all(one is held or one.is_delivery for one in self._held), _ALONE_S)

    def wait_for_company(self) -> None:
        """While a step is alone here, no other is begun."""
        with self._lock:
            self._lock.wait_for(lambda: self._loner is None, _ALONE_S)

    @property
    def is_reserved(self) -> bool:
        """Whether a step is alone here."""
        return self._loner is not None

    @property
    def is_draining(self) -> bool:
        """Whether nothing is claimed any more, and what is held goes back."""
        return self.draining.is_set() or self.drained.is_set()

    def _look(self, held: Held) -> None:
        loner = self._loner
        if self.is_draining:
            raise Draining()
        if loner is not None and loner is not held and not held.is_delivery:
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
                self._beat(one)

    def _beat(self, held: Held) -> None:
        try:
            self._ledger.beat(held.claim)
        except Fenced as error:
            held.lose(error)
        except ServiceError as error:
            # Redis is away: the lease may lapse, and then the fence decides.
            self.errors += 1
            _log.warning("beat_failed", job_id=held.claim.job_id, step=held.claim.step, code=error.code)
        except Exception:
            # This thread beats for every step of the worker: nothing may end it.
            _log.exception("beat_failed", job_id=held.claim.job_id, step=held.claim.step)
