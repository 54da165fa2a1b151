"""Decides which waiting window has the next free slot. Policy only: no torch, no threads, no clock.

Time is counted in turns (one window taken is one turn) and fairness in seconds of audio. Each job carries
the seconds it has been given; who has been given least is next. That shares out what deficit round robin
does, and windows of mixed lengths need no rounds.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from worker.engine.values import Window

Ticket = TypeVar("Ticket")

EXPRESS_WINDOWS = 2
"""So many first windows of every job go before all others: a short clip is done by then."""

PATIENCE_TURNS = 64
"""A job passed over for so long is next, whoever else waits."""

RESERVED_SHARE = 4
"""One slot in so many goes to a window that is not express, if there is one."""

KEPT_SHARE = 8
"""One slot in so many is for express windows only: a short clip need not wait until a long window ends."""

LEAST_COST_S = 1.0
"""However short, a window takes a slot and a pass of the encoder."""

MEMORY_TURNS = 512
"""A job that comes back within so many turns is still the same job, not a newcomer."""


@dataclass(slots=True)
class _Backlog(Generic[Ticket]):
    """One job's waiting windows, in order, and what it has had so far."""

    number: int
    given_s: float = 0.0
    seen_turn: int = 0
    taken: int = 0
    waiting: deque[tuple[Window, Ticket]] = field(default_factory=deque)

    @property
    def is_express(self) -> bool:
        return self.taken < EXPRESS_WINDOWS

    @property
    def place(self) -> tuple[int, float, int]:
        """Smallest goes first: the fewest windows while express, then the least audio, then age."""
        return min(self.taken, EXPRESS_WINDOWS), self.given_s, self.number


class Scheduler(Generic[Ticket]):
    """The waiting windows of all jobs. A ticket is whatever the caller wants back with its window's turn.

    Promises: every window is taken once; a job's windows in the order they were added; a newcomer's first
    window is one of the next few unless other newcomers came before it; no job waits for ever; a slot that
    is not kept for express windows stays empty only when no window waits.
    """

    def __init__(self) -> None:
        self._backlogs: dict[str, _Backlog[Ticket]] = {}
        self._arrivals = 0
        self._turn = 0
        self._floor_s = 0.0
        self._patience_led = False
        self._express_run = 0

    def __len__(self) -> int:
        """Windows waiting."""
        return sum(len(backlog.waiting) for backlog in self._backlogs.values())

    @property
    def waiting_s(self) -> float:
        """Seconds of audio waiting."""
        return sum(window.duration_s for b in self._backlogs.values() for window, _ in b.waiting)

    def add(self, job: str, window: Window, ticket: Ticket) -> None:
        backlog = self._backlogs.get(job)
        if backlog is None:
            self._arrivals += 1
            backlog = _Backlog(number=self._arrivals)
            self._backlogs[job] = backlog
        if not backlog.waiting:
            # Who comes, or comes back after a pause, starts level with the others: nobody saves up turns.
            backlog.given_s = max(backlog.given_s, self._level_s())
            backlog.seen_turn = self._turn
        backlog.waiting.append((window, ticket))

    def has_more(self, job: str) -> bool:
        """Whether windows of the job wait."""
        backlog = self._backlogs.get(job)
        return backlog is not None and bool(backlog.waiting)

    def take(self, free: int, kept: int = 0) -> list[tuple[Ticket, bool]]:
        """Tickets for so many free slots, and whether each is of an express window; fewer when fewer windows
        wait. The last `kept` of them are for express windows only."""
        taken: list[tuple[Ticket, bool]] = []
        while len(taken) < free:
            waiting = [backlog for backlog in self._backlogs.values() if backlog.waiting]
            if free - len(taken) <= kept:
                waiting = [backlog for backlog in waiting if backlog.is_express]
            if not waiting:
                break
            self._turn += 1
            taken.append(self._pop(self._next(waiting)))
        self._forget()
        return taken

    def drop(self, job: str) -> list[Ticket]:
        """Forgets `job`; returns the tickets of the windows it still had waiting."""
        backlog = self._backlogs.pop(job, None)
        return [ticket for _, ticket in backlog.waiting] if backlog else []

    def drop_all(self) -> list[Ticket]:
        """Forgets every job; returns the tickets of all windows waiting."""
        return [ticket for job in list(self._backlogs) for ticket in self.drop(job)]

    def _next(self, waiting: list[_Backlog[Ticket]]) -> _Backlog[Ticket]:
        """Whose turn it is."""
        overdue = [b for b in waiting if b.taken and self._turn - b.seen_turn > PATIENCE_TURNS]
        # Every other turn at most, or many overdue jobs would starve the newcomers, who go in by age anyway.
        self._patience_led = bool(overdue) and not self._patience_led
        if self._patience_led:
            return min(overdue, key=lambda backlog: (backlog.seen_turn, backlog.number))
        is_reserved = self._express_run >= RESERVED_SHARE - 1
        long = [backlog for backlog in waiting if not backlog.is_express] if is_reserved else []
        return min(long or waiting, key=lambda backlog: backlog.place)

    def _pop(self, backlog: _Backlog[Ticket]) -> tuple[Ticket, bool]:
        window, ticket = backlog.waiting.popleft()
        is_express = backlog.is_express
        self._express_run = self._express_run + 1 if is_express else 0
        backlog.taken += 1
        backlog.given_s += max(window.duration_s, LEAST_COST_S)
        backlog.seen_turn = self._turn
        return ticket, is_express

    def _level_s(self) -> float:
        """Where a newcomer starts: with the one who has been given least. Never falls."""
        given = [backlog.given_s for backlog in self._backlogs.values() if backlog.waiting]
        self._floor_s = max(self._floor_s, min(given, default=self._floor_s))
        return self._floor_s

    def _forget(self) -> None:
        oldest = self._turn - MEMORY_TURNS
        gone = [job for job, b in self._backlogs.items() if not b.waiting and b.seen_turn < oldest]
        for job in gone:
            del self._backlogs[job]
