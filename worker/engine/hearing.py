"""The encoder on a card: several windows in one pass, on a stream beside that of the steps.

A pass is handed to the card, and looked for between two steps; where nothing is written meanwhile, the card
waits for it, and not the host.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from worker.engine.listening import encode
from worker.engine.seats import Seat


@dataclass(frozen=True, slots=True, eq=False)
class _Underway:
    seats: tuple[Seat, ...]
    states: Tensor
    end: torch.cuda.Event | None


class Hearing:
    """One pass at a time. Called from one thread only, in inference mode."""

    def __init__(self, model: Any, mel: Any) -> None:
        self._model, self._mel = model, mel
        self._stream = _beside(model.device) if model.device.type == "cuda" else None
        self._underway: _Underway | None = None

    @property
    def has_begun(self) -> bool:
        return self._underway is not None

    @property
    def is_underway(self) -> bool:
        """Steps may go on meanwhile."""
        end = self._underway.end if self._underway else None
        return end is not None and not bool(end.query())  # type: ignore[no-untyped-call]

    def begin(self, seats: Sequence[Seat]) -> None:
        with torch.cuda.stream(self._stream):
            states = encode(self._model, self._mel, [seat.window.pcm for seat in seats])
            self._underway = _Underway(tuple(seats), states, self._mark())

    def collect(self) -> list[tuple[Seat, Tensor]]:
        """States [positions, width] of each, for what the steps' stream does from now on."""
        underway, self._underway = self._underway, None
        if underway is None:
            return []
        if self._stream is not None and underway.end is not None:
            steps = torch.cuda.current_stream(self._model.device)
            steps.wait_event(underway.end)
            # They were given memory of the other stream, which would use it for its next pass too early.
            underway.states.record_stream(steps)
        return list(zip(underway.seats, underway.states, strict=True))

    def forget(self) -> None:
        self._underway = None

    def _mark(self) -> torch.cuda.Event | None:
        """Happens when everything asked of this stream so far has."""
        return None if self._stream is None else self._stream.record_event()


def _beside(device: torch.device) -> torch.cuda.Stream:
    """A stream for what comes after all that was asked for so far."""
    stream: torch.cuda.Stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream(device))
    return stream
