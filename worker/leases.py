"""Holding steps: one thread beats for all claims of this worker, and long work asks it whether to go on."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from shared.errors import ServiceError
from shared.ledger import Claim, Fenced, Ledger
from shared.log import get_logger

_log = get_logger()


class HandBack(Exception):
    """The step is to go back to its queue, through no fault of its own."""


class Draining(HandBack):
    """This worker is stopping."""


class Yielding(HandBack):
    """Others wait for their first slot."""


class Held:
    """A claim with somebody beating for it."""

    def __init__(self, claim: Claim, draining: threading.Event) -> None:
        self.claim = claim
        self._draining = draining
        self._lost: Fenced | None = None

    def check(self) -> None:
        """To be called between windows. Raises Fenced when the step is lost, Draining when it is to be
        handed back."""
        if self._lost is not None:
            raise self._lost
        if self._draining.is_set():
            raise Draining()

    def lose(self, reason: Fenced) -> None:
        self._lost = reason


class Leases:
    """Beats for every held claim, three times within a lease."""

    def __init__(self, ledger: Ledger, lease_s: float) -> None:
        self._ledger = ledger
        self._pause_s = lease_s / 3
        self._held: set[Held] = set()
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self.draining = threading.Event()
        self._thread = threading.Thread(target=self._beat_all, name="leases", daemon=True)
        self._thread.start()

    @contextmanager
    def hold(self, claim: Claim) -> Iterator[Held]:
        held = Held(claim, self.draining)
        with self._lock:
            self._held.add(held)
        try:
            yield held
        finally:
            with self._lock:
                self._held.discard(held)

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
            _log.warning("beat_failed", job_id=held.claim.job_id, step=held.claim.step, code=error.code)
        except Exception:
            # This thread beats for every step of the worker: nothing may end it.
            _log.exception("beat_failed", job_id=held.claim.job_id, step=held.claim.step)
