"""What a row may write next, and with which probability: the rules of timestamps, suppression and sampling.

All on tensors over the slots, with no look back at what was written: a few state vectors stand for it.
Nothing in a choice waits for a card to answer.
"""

import torch
from torch import Tensor

from worker.engine.doctor import Tokens

NEVER = float("-inf")

_STATE = ("_count", "_cap", "_newest", "_last", "_last_is_stamp", "_before_is_stamp")


class Rules:
    """State of `slots` rows. A row's choice depends on its own logits, state and seed, never on others."""

    def __init__(
        self,
        tokens: Tokens,
        slots: int,
        *,
        timestamps: bool,
        device: torch.device,
    ) -> None:
        self._tokens = tokens
        self._timestamps = timestamps
        self._device = device
        self._never = self._forbidden()
        self._begin = torch.tensor(tokens.begin_suppressed, dtype=torch.long, device=device)
        self._stamps = torch.arange(tokens.timestamps.start, tokens.timestamps.stop, device=device)
        self._slots = slots
        self._count = self._column(torch.long)
        self._cap = self._column(torch.long)
        self._newest = self._column(torch.long)
        self._last = self._column(torch.long)
        self._last_is_stamp = self._column(torch.bool)
        self._before_is_stamp = self._column(torch.bool)
        self._hot: dict[int, tuple[float, torch.Generator]] = {}

    def begin(self, row: int, *, max_tokens: int, temperature: float, seed: int) -> None:
        """The next choice is the first of an attempt."""
        self._count[row] = 0
        self._cap[row] = max_tokens
        self._newest[row] = self._tokens.timestamps.start - 1
        # As after half a pair: the first token must be a timestamp, and what follows it must not.
        self._last_is_stamp[row] = True
        self._before_is_stamp[row] = False
        self._hot.pop(row, None)
        if temperature > 0:
            dice = torch.Generator(self._device).manual_seed(seed * 101 + round(temperature * 100))
            self._hot[row] = (temperature, dice)

    def resize(self, slots: int) -> None:
        """Keeps as many of the first rows as there are slots."""
        kept = min(slots, self._slots)
        self._hot = {row: heat for row, heat in self._hot.items() if row < kept}
        self._slots = slots
        for name in _STATE:
            old = getattr(self, name)
            new = old.new_zeros(slots)
            new[:kept] = old[:kept]
            setattr(self, name, new)

    def move(self, source: int, target: int) -> None:
        for name in _STATE:
            state = getattr(self, name)
            state[target] = state[source]
        self._hot.pop(target, None)
        if source in self._hot:
            self._hot[target] = self._hot.pop(source)

    def choose(self, logits: Tensor, first: int = 0) -> tuple[Tensor, Tensor]:
        """The next token of each of the rows from `first` on, from logits [rows, vocabulary], and its
        log-probability: not a number where the model did not choose, at an end that the cap forced."""
        rows = slice(first, first + len(logits))
        scores = logits.float() + self._never
        count = self._count[rows]
        is_first = (count == 0).unsqueeze(1)
        if len(self._begin):
            scores[:, self._begin] = scores[:, self._begin].masked_fill(is_first, NEVER)
        if self._timestamps:
            self._pair(scores, rows, is_first)
        logprobs = scores.log_softmax(-1)
        choice = scores.argmax(-1)
        for row, (temperature, dice) in self._hot.items():
            if rows.start <= row < rows.stop:
                choice[row - first] = _drawn(logprobs[row - first], temperature, dice)
        is_over = count >= self._cap[rows]
        choice = choice.masked_fill(is_over, self._tokens.eos)
        chance = logprobs.gather(1, choice.unsqueeze(1)).squeeze(1)
        self._note(rows, choice)
        return choice, chance.masked_fill(is_over, float("nan"))

    def last(self, rows: slice) -> Tensor:
        """What was chosen last in each of `rows`, wherever they have been moved since."""
        return self._last[rows]

    def _pair(self, scores: Tensor, rows: slice, is_first: Tensor) -> None:
        """Timestamps come in pairs, never run back, and stand where they are likelier than any one word."""
        tokens = self._tokens
        start, stop = tokens.timestamps.start, tokens.timestamps.stop
        last, before = self._last_is_stamp[rows], self._before_is_stamp[rows]
        is_half = last & ~before
        # A closing timestamp may be opened again at the same time; otherwise time moves on.
        earliest = self._newest[rows] + (~is_half)
        stamps = scores[:, start:stop]
        stamps.masked_fill_((self._stamps < earliest.unsqueeze(1)) | (last & before).unsqueeze(1), NEVER)
        scores[:, start + tokens.max_initial_timestamp + 1 : stop].masked_fill_(is_first, NEVER)
        end = scores[:, tokens.eos].masked_fill(is_first.squeeze(1), NEVER)
        word = scores[:, : tokens.eos].amax(-1)
        beyond = scores[:, stop:]
        if beyond.shape[1]:
            word = torch.maximum(word, beyond.amax(-1))
        word = torch.maximum(word.masked_fill(is_half, NEVER), end)
        is_stamp = stamps.logsumexp(-1) > word
        no_word = (is_half | is_stamp).unsqueeze(1)
        scores[:, : tokens.eos].masked_fill_(no_word, NEVER)
        beyond.masked_fill_(no_word, NEVER)
        scores[:, tokens.eos] = end.masked_fill(is_stamp, NEVER)

    def _note(self, rows: slice, choice: Tensor) -> None:
        stamps = self._tokens.timestamps
        is_stamp = (choice >= stamps.start) & (choice < stamps.stop)
        self._newest[rows] = torch.where(is_stamp, choice, self._newest[rows])
        self._before_is_stamp[rows] = self._last_is_stamp[rows]
        self._last_is_stamp[rows] = is_stamp
        self._last[rows] = choice
        self._count[rows] += 1

    def _column(self, dtype: torch.dtype) -> Tensor:
        return torch.zeros(self._slots, dtype=dtype, device=self._device)

    def _forbidden(self) -> Tensor:
        """Added to scores: no text, no end and no timestamp means never; the prompt's own tokens never belong
        in a transcript."""
        tokens = self._tokens
        never = torch.ones(tokens.vocabulary, dtype=torch.bool)
        never[: tokens.eos + 1] = False
        never[tokens.timestamps.stop :] = False
        never[tokens.timestamps.start : tokens.timestamps.stop] = not self._timestamps
        never[list(tokens.suppressed)] = True
        mask = torch.zeros(tokens.vocabulary).masked_fill_(never, NEVER)
        return mask.to(self._device)


def _drawn(logprobs: Tensor, temperature: float, dice: torch.Generator) -> Tensor:
    """Gumbel noise: the largest sum is a draw from the softmax."""
    noise = torch.empty_like(logprobs).exponential_(generator=dice)
    return (logprobs / temperature - noise.log()).argmax()
