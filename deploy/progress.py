"""How far a job is: one line redrawn on a terminal, plain lines elsewhere."""

from typing import TextIO

_WIDTH = 30
_PLAIN_STEP = 0.25


class Progress:
    """`done` ends the line; nothing may be written to the stream in between."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._redraws = stream.isatty()
        self._shown_stage = ""
        self._shown_fraction = -1.0

    def show(self, stage: str, fraction: float) -> None:
        fraction = min(max(fraction, 0.0), 1.0)
        if self._redraws:
            filled = round(fraction * _WIDTH)
            bar = "#" * filled + "-" * (_WIDTH - filled)
            self._stream.write(f"\r  [{bar}] {fraction:4.0%}  {stage:<14}")
        elif stage != self._shown_stage or fraction >= self._shown_fraction + _PLAIN_STEP:
            self._stream.write(f"  {fraction:4.0%}  {stage}\n")
            self._shown_stage, self._shown_fraction = stage, fraction
        self._stream.flush()

    def done(self) -> None:
        if self._redraws:
            self._stream.write("\n")
            self._stream.flush()
