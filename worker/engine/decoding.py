"""How an attempt at a window is judged, and which temperature is next. No torch: the loop is `whisper`'s."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

# The original release's thresholds; measured on TEXT, where the reference implementation measures them.
MAX_COMPRESSION_RATIO = 2.4
MIN_LOGPROB = -1.0
MIN_NO_SPEECH = 0.6

TOKENS_AT_LEAST = 16
TOKENS_PER_SECOND = 12

LONGEST_CYCLE = 16
CYCLES = 4
LEAST_CYCLED = 24
"""Tokens of a loop, before it is called one."""


@dataclass(frozen=True, slots=True)
class Written:
    """One attempt at a window as it was written, its end included if it has one. A log-probability is not a
    number where the model did not choose: at an end that the cap forced."""

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Draft:
    """One attempt at a window. `logprobs` belong to `tokens`; `avg_logprob` counts the end token too, if it
    came."""

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    avg_logprob: float
    text: str
    temperature: float

    @property
    def compression_ratio(self) -> float:
        return compression_ratio(self.text)

    @property
    def is_repetitive(self) -> bool:
        return self.compression_ratio > MAX_COMPRESSION_RATIO

    @property
    def is_doubtful(self) -> bool:
        return self.is_repetitive or self.avg_logprob < MIN_LOGPROB


def is_silent(draft: Draft, no_speech_prob: float) -> bool:
    """Both must agree: either sign alone loses speech."""
    return no_speech_prob > MIN_NO_SPEECH and draft.avg_logprob < MIN_LOGPROB


def max_tokens(duration_s: float, prompt: Sequence[int], positions: int) -> int:
    """Nobody speaks faster than this, so a repeating loop ends early. `positions` is the decoder's length."""
    return min(positions - len(prompt), TOKENS_AT_LEAST + int(TOKENS_PER_SECOND * duration_s))


@dataclass(slots=True)
class Attempts:
    """At one window: doubtful drafts are tried again at the next temperature, silent ones are not."""

    temperatures: Sequence[float]
    no_speech_prob: float = 0.0
    best: Draft | None = None
    made: int = field(default=0)

    @property
    def temperature(self) -> float:
        """Of the attempt that is being made."""
        return self.temperatures[self.made]

    @property
    def is_last(self) -> bool:
        return self.made + 1 >= len(self.temperatures)

    def goes_on(self, draft: Draft) -> bool:
        """Takes in the attempt that was being made; whether there is to be another."""
        self.best = _better(self.best, draft)
        if not draft.is_doubtful or is_silent(draft, self.no_speech_prob) or self.is_last:
            return False
        self.made += 1
        return True


def _better(old: Draft | None, new: Draft) -> Draft:
    if old is None or not new.is_doubtful:
        return new
    return max(old, new, key=lambda draft: (not draft.is_repetitive, draft.avg_logprob))


def to_draft(written: Written, eos: int, text: str, temperature: float) -> Draft:
    """`text` is that of what was written."""
    counted = [value for value in written.logprobs if value == value]
    length = len(written.tokens) - (written.tokens[-1:] == (eos,))
    return Draft(
        tokens=written.tokens[:length],
        logprobs=written.logprobs[:length],
        avg_logprob=sum(counted) / len(counted) if counted else 0.0,
        text=text,
        temperature=temperature,
    )


def has_run_into_a_loop(tokens: Sequence[int], text: str) -> bool:
    """Whether an unfinished draft can only be refused: it ends in one cycle over and over, and is so
    repetitive already that no end would save it."""
    is_cycle = any(_ends_in_cycle(tokens, period) for period in range(1, LONGEST_CYCLE + 1))
    return is_cycle and compression_ratio(text) > MAX_COMPRESSION_RATIO


def _ends_in_cycle(tokens: Sequence[int], period: int) -> bool:
    length = max(LEAST_CYCLED, period * CYCLES)
    tail = tokens[-length:]
    return len(tail) == length and tail[period:] == tail[:-period]


def compression_ratio(text: str) -> float:
    written = text.encode()
    return len(written) / len(zlib.compress(written)) if written else 0.0
