"""When it is looked for words, and for whose: several windows in one pass where that is less work."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from worker.engine import alignment
from worker.engine.alignment import Gaze, Heads, Said
from worker.engine.doctor import Tokens
from worker.engine.prompts import build_prompt
from worker.engine.seats import Seat
from worker.engine.text_decoder import Decoder
from worker.engine.values import Hypothesis

ON_A_CARD = 8
"""Windows in one pass: what takes time there is to ask for the pass, for one as for several. On a processor
two take twice the time of one (measured): there each has its own."""

PATIENCE_STEPS = 4
"""So long at most a window waits in its slot for others: a few hundredths of the time it was in there,
against a pass that takes about as long as a step of all."""


@dataclass(frozen=True, slots=True, eq=False)
class Standing:
    """A window whose text stands and is not silent, in its row still, with its sound."""

    row: int
    seat: Seat
    hypothesis: Hypothesis


class Looking:
    """`heads` of the decoder tell where it looks."""

    def __init__(self, decoder: Decoder, tokens: Tokens, heads: Heads, *, at_once: int) -> None:
        self._decoder = decoder
        self._tokens = tokens
        self._heads = heads
        self._at_once = at_once
        self._waited = 0

    def due(self, standing: Sequence[Standing], *, may_wait: bool) -> list[Sequence[Standing]]:
        """Who is looked at now, pass by pass. Asked at every step: with `may_wait` it is nobody for a few of
        them, while there is room for more in the pass."""
        if may_wait and 0 < len(standing) < self._at_once and self._waited < PATIENCE_STEPS:
            self._waited += 1
            return []
        self._waited = 0
        return [standing[first : first + self._at_once] for first in range(0, len(standing), self._at_once)]

    def look(self, standing: Sequence[Standing]) -> list[Gaze]:
        """In one pass."""
        began = time.perf_counter()
        rows = [one.row for one in standing]
        gazes = alignment.look(self._decoder, rows, [self._said(one) for one in standing], self._heads)
        for one in standing:
            one.seat.spent_s += (time.perf_counter() - began) / len(standing)
        return gazes

    def _said(self, one: Standing) -> Said:
        window = one.seat.window
        return Said(
            build_prompt(self._tokens, one.seat.language.token, window.options.task, timestamps=False),
            tuple(token for utterance in one.hypothesis.utterances for token in utterance.tokens),
            self._tokens.eos,
            window.duration_s,
        )
