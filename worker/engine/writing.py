"""One more token in every row: what the rows read next, the pass, and what it told of their windows.

On a card what a pass chose is read one pass late: the next one is begun meanwhile, and reads the choices
where they are. A row that had ended by then, or goes on elsewhere, has written one that nobody is told of.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from worker.engine.decoding import max_tokens
from worker.engine.rules import Rules
from worker.engine.seats import Seat
from worker.engine.step_graphs import StepGraphs
from worker.engine.text_decoder import Decoder


@dataclass(frozen=True, slots=True, eq=False)
class Mark:
    """What the model said to one token. `logits` [vocabulary] only to a window's first, which tells language
    and silence."""

    choice: int
    logprob: float
    logits: Tensor | None


@dataclass(frozen=True, slots=True, eq=False)
class _Pass:
    """Under way on the device, its answers on their way here. `courses` are those that its rows were on."""

    courses: dict[Seat, int]
    choices: Tensor
    logprobs: Tensor
    ears: dict[Seat, Tensor]
    arrived: torch.cuda.Event | None

    def holds(self, seat: Seat) -> bool:
        """Whether the seat goes on from here."""
        return self.courses.get(seat) == seat.course

    def marks(self) -> dict[Seat, Mark]:
        if self.arrived is not None:
            self.arrived.synchronize()
        told = zip(self.courses, self.choices.tolist(), self.logprobs.tolist(), strict=True)
        return {
            seat: Mark(choice, logprob, self.ears.get(seat))
            for seat, choice, logprob in told
            if self.holds(seat)
        }


class Writer:
    """`is_late`: what was chosen is read one pass later."""

    def __init__(
        self, decoder: Decoder | StepGraphs, rules: Rules, device: torch.device, *, is_late: bool
    ) -> None:
        self._decoder = decoder
        self._rules = rules
        self._device = device
        self._is_late = is_late
        self._underway: _Pass | None = None

    def write(self, seats: Sequence[Seat], first: int) -> dict[Seat, Mark]:
        """One more token in the rows from `first` on, which are those of `seats`. Returns what is known by
        now: of these rows, or of those before if that is told late."""
        begun = self._begun(seats, first)
        told, self._underway = (self._underway, begun) if self._is_late else (begun, None)
        return told.marks() if told else {}

    def _begun(self, seats: Sequence[Seat], first: int) -> _Pass:
        tokens, positions = zip(*map(self._next, seats), strict=True)
        for row, (seat, position) in enumerate(zip(seats, positions, strict=True), first):
            if position == len(seat.prompt) - 1:
                self._begin(row, seat)
        given, is_given, places = self._there(
            [[token or 0 for token in tokens], [token is not None for token in tokens], positions]
        )
        rows = slice(first, first + len(seats))
        logits = self._decoder.step(
            torch.where(is_given.bool(), given, self._rules.last(rows)),
            places,
            longest=max(positions) + 1,
            first=first,
        )
        choices, logprobs = self._rules.choose(logits, first)
        return _Pass(
            courses={seat: seat.course for seat in seats},
            choices=_home(choices),
            logprobs=_home(logprobs),
            ears={seat: _home(logits[row]) for row, seat in enumerate(seats) if not seat.prompt},
            arrived=self._event(),
        )

    def _next(self, seat: Seat) -> tuple[int | None, int]:
        """Which token it reads next, and where. None is what the pass under way chooses, whatever that is: if
        it is an end, or what stands before the text is not known yet, nothing comes of it."""
        if self._underway is None or not self._underway.holds(seat):
            return seat.token, seat.position
        position = min(seat.position + 1, self._decoder.positions - 1)
        return seat.forced[0] if seat.forced else None, position

    def _begin(self, row: int, seat: Seat) -> None:
        """The last token of the prompt is read now: what the model says then is text."""
        most = max_tokens(seat.window.duration_s, seat.prompt, self._decoder.positions)
        self._rules.begin(row, max_tokens=most, temperature=seat.attempts.temperature, seed=seat.seed)

    def _there(self, numbers: Sequence[Sequence[int]]) -> Tensor:
        """On the device. From pinned memory it goes there without waiting for what is under way."""
        here = torch.tensor(numbers)
        return here if self._device.type == "cpu" else here.pin_memory().to(self._device, non_blocking=True)

    def _event(self) -> torch.cuda.Event | None:
        """Happens when everything asked for so far has."""
        if self._device.type == "cpu":
            return None
        event: torch.cuda.Event = torch.cuda.current_stream(self._device).record_event()
        return event


def _home(tensor: Tensor) -> Tensor:
    """To be read once it has arrived; nothing that is written there later changes it."""
    return tensor.to("cpu", non_blocking=True, copy=True)
