"""How far each file is: a bar for each that is under way, redrawn on a terminal; plain lines elsewhere."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from shutil import get_terminal_size
from typing import TextIO

_WIDTH = 24
_NAME = 28
_PLAIN_STEP = 0.25
_REDRAW_S = 0.1
_ERASE_LINE = "\x1b[2K"


class Bar:
    """One file's. `show` may be called from any thread, as often as one likes."""

    def __init__(self, bars: "Bars", name: str) -> None:
        self._bars = bars
        self.name = "".join(character if character.isprintable() else "?" for character in name)
        self.stage, self.fraction = "waiting", 0.0
        self.told_stage, self.told_fraction = "", -1.0

    def show(self, stage: str, fraction: float) -> None:
        self.stage, self.fraction = stage, min(max(fraction, 0.0), 1.0)
        self._bars.draw(self)


class Bars:
    """On standard error unless another is given; `wanted` False shows nothing."""

    def __init__(self, stream: TextIO | None = None, *, wanted: bool = True) -> None:
        self._stream = stream or sys.stderr
        self._wanted = wanted
        self._redraws = wanted and self._stream.isatty()
        self._lock = threading.Lock()
        self._live: list[Bar] = []
        self._drawn = 0
        self._drawn_at = 0.0

    @contextmanager
    def bar(self, name: str) -> Iterator[Bar]:
        """Its last line stays on the screen."""
        bar = Bar(self, name)
        with self._lock:
            self._live.append(bar)
        try:
            yield bar
        finally:
            with self._lock:
                self._live.remove(bar)
                if self._redraws:
                    self._wipe()
                    self._stream.write(self._line(bar) + "\n")
                    self._redraw()

    def draw(self, bar: Bar) -> None:
        with self._lock:
            if self._redraws:
                if time.monotonic() - self._drawn_at >= _REDRAW_S:
                    self._wipe()
                    self._redraw()
            elif self._wanted and (
                bar.stage != bar.told_stage or bar.fraction >= bar.told_fraction + _PLAIN_STEP
            ):
                bar.told_stage, bar.told_fraction = bar.stage, bar.fraction
                self._stream.write(f"{bar.name}: {bar.stage} {bar.fraction:.0%}\n")
                self._stream.flush()

    def _wipe(self) -> None:
        if self._drawn:
            self._stream.write(
                f"\x1b[{self._drawn}A" + f"{_ERASE_LINE}\n" * self._drawn + f"\x1b[{self._drawn}A"
            )
        self._drawn = 0

    def _redraw(self) -> None:
        self._stream.write("".join(self._line(bar) + "\n" for bar in self._live))
        self._drawn, self._drawn_at = len(self._live), time.monotonic()
        self._stream.flush()

    def _line(self, bar: Bar) -> str:
        filled = round(bar.fraction * _WIDTH)
        name = bar.name if len(bar.name) <= _NAME else f"…{bar.name[1 - _NAME :]}"
        line = f"{name:<{_NAME}} [{'#' * filled}{'-' * (_WIDTH - filled)}] {bar.fraction:4.0%} {bar.stage}"
        return line[: get_terminal_size().columns - 1]
