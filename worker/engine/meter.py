"""What an engine has done and how much it may do at once. No threads: the engine holds its lock around it."""

from dataclasses import dataclass, field

RECOVERY_WINDOWS = 64
"""After so many windows in a row that fitted, as many slots as before memory ran out are tried again."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """What the engine has done since it was made, and where it stands now.

    `batches` are passes through the model, `rows` the slots used in all of them, `batch_fill` the mean share
    of `batch_size` they had, 0 to 1. `batch_limit` is the number of slots now, below `batch_size` after
    memory ran out; `overflows` are passes that memory was not enough for. `stuck_for_s` is how long the model
    has been at its current pass, 0 when it is idle; `loading_for_s` how long it has been on its way into
    memory. `lost` says why it cannot be loaded again.
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
    slots_used: int = 0


@dataclass(slots=True)
class Limit:
    """Most windows at once: halved when memory runs out, doubled again after a while."""

    most: int
    now: int
    fitted: int = 0

    def ended(self, windows: int) -> bool:
        """Whether the limit has grown."""
        self.fitted += windows
        if self.now == self.most or self.fitted < RECOVERY_WINDOWS:
            return False
        self.now, self.fitted = min(self.most, self.now * 2), 0
        return True

    def overflowed(self, windows: int) -> None:
        # Half of them, rounded up: slots that are kept make their number odd.
        self.now, self.fitted = (min(self.now, windows) + 1) // 2, 0


@dataclass(slots=True)
class Meter:
    """Running totals. `changed_at` is when the thread last went from idle to busy or back, `passed_at` when
    the last pass began or ended."""

    changed_at: float
    passed_at: float = 0.0
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
        self.is_busy, self.changed_at, self.passed_at = is_busy, now, now

    def passes(self, rows: int, now: float) -> None:
        self.batches += 1
        self.rows += rows
        self.passed_at = now

    def spent_s(self, is_busy: bool, now: float) -> float:
        return self.seconds[is_busy] + (now - self.changed_at if is_busy == self.is_busy else 0.0)
