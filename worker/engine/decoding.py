"""From encoded windows to tokens: language, rules, temperatures. One encoder pass serves them all.

The loop over steps is Transformers' `generate`; what a step may choose, and with which probability, is
decided here.
"""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig
from transformers.cache_utils import DynamicCache, EncoderDecoderCache
from transformers.generation import GenerationMixin, LogitsProcessorList
from transformers.modeling_outputs import BaseModelOutput

from worker.engine.doctor import Tokens
from worker.engine.listening import Encoded

# The original release's thresholds; measured on TEXT, where the reference implementation measures them.
MAX_COMPRESSION_RATIO = 2.4
MIN_LOGPROB = -1.0
MIN_NO_SPEECH = 0.6

TOKENS_AT_LEAST = 16
TOKENS_PER_SECOND = 12


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
        written = self.text.encode()
        return len(written) / len(zlib.compress(written)) if written else 0.0

    @property
    def is_repetitive(self) -> bool:
        return self.compression_ratio > MAX_COMPRESSION_RATIO

    @property
    def is_doubtful(self) -> bool:
        return self.is_repetitive or self.avg_logprob < MIN_LOGPROB


@dataclass(frozen=True, slots=True)
class Row:
    """How a window is decoded: what stands before its text, its most tokens, and its seed for sampling."""

    prompt: tuple[int, ...]
    max_tokens: int
    seed: int


def is_silent(draft: Draft, no_speech_prob: float) -> bool:
    """Both must agree: either sign alone loses speech."""
    return no_speech_prob > MIN_NO_SPEECH and draft.avg_logprob < MIN_LOGPROB


def max_tokens(duration_s: float, prompt: Sequence[int], positions: int) -> int:
    """Nobody speaks faster than this, so a repeating loop ends early. `positions` is the decoder's length."""
    return min(positions - len(prompt), TOKENS_AT_LEAST + int(TOKENS_PER_SECOND * duration_s))


def decode_with_fallback(
    decode: Callable[[Sequence[int], float], list[Draft]],
    no_speech_probs: Sequence[float],
    temperatures: Sequence[float],
) -> list[Draft]:
    """The best draft of each row. Doubtful rows, and only they, are decoded again at the next temperature;
    silent ones are not. `decode(rows, temperature)` answers in the order of `rows`."""
    best: dict[int, Draft] = {}
    pending = list(range(len(no_speech_probs)))
    for temperature in temperatures:
        drafts = dict(zip(pending, decode(pending, temperature), strict=True))
        best |= {row: _better(best.get(row), draft) for row, draft in drafts.items()}
        pending = [
            row
            for row, draft in drafts.items()
            if draft.is_doubtful and not is_silent(draft, no_speech_probs[row])
        ]
        if not pending:
            break
    return [best[row] for row in range(len(no_speech_probs))]


def _better(old: Draft | None, new: Draft) -> Draft:
    if old is None or not new.is_doubtful:
        return new
    return max(old, new, key=lambda draft: (not draft.is_repetitive, draft.avg_logprob))


class Rules:
    """Chooses each row's next token, in the form of a logits processor: scores come back with one token left.

    Choosing here, and not in `generate`, makes sampling depend on the window alone and never on its
    neighbours, and notes the log-probabilities without keeping [steps, rows, vocabulary] scores.
    """

    def __init__(
        self,
        tokens: Tokens,
        rows: Sequence[Row],
        *,
        temperature: float,
        timestamps: bool,
        device: torch.device,
    ) -> None:
        self._tokens = tokens
        self._start = len(rows[0].prompt)
        self._temperature = temperature
        self._timestamps = timestamps
        self._ids = torch.arange(tokens.vocabulary, device=device)
        self._is_timestamp = (self._ids >= tokens.timestamps.start) & (self._ids < tokens.timestamps.stop)
        self._is_text = (
            (self._ids < tokens.eos) | (self._ids >= tokens.timestamps.stop)
        ) & ~self._is_timestamp
        self._never = self._forbidden()
        self._caps = torch.tensor([row.max_tokens for row in rows], device=device)
        self._dice = [_dice(row.seed, temperature, device) for row in rows] if temperature > 0 else []
        self._ended = torch.zeros(len(rows), dtype=torch.bool, device=device)
        self.chosen: list[Tensor] = []
        self.logprobs: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        written = input_ids[:, self._start :]
        scores = scores.masked_fill(self._never, float("-inf"))
        if written.shape[1] == 0:
            scores[:, list(self._tokens.begin_suppressed)] = float("-inf")
        if self._timestamps:
            scores = self._pair_timestamps(written, scores)
        return self._choose(scores, steps=written.shape[1])

    def _forbidden(self) -> Tensor:
        """No text, no end and no timestamp: the prompt's own tokens never belong in a transcript."""
        never = ~(self._is_text | self._is_timestamp)
        never[self._tokens.eos] = False
        never[list(self._tokens.suppressed)] = True
        if not self._timestamps:
            never |= self._is_timestamp
        return never

    def _pair_timestamps(self, written: Tensor, scores: Tensor) -> Tensor:
        """Timestamps come in pairs, never run back, and stand where they are likelier than any one word."""
        if written.shape[1] == 0:
            latest = self._tokens.timestamps.start + self._tokens.max_initial_timestamp
            return scores.masked_fill(~self._is_timestamp | (self._ids > latest), float("-inf"))
        stamped = self._is_timestamp[written]
        last = stamped[:, -1]
        before_last = stamped[:, -2] if written.shape[1] > 1 else torch.ones_like(last)
        newest = torch.where(stamped, written, self._tokens.timestamps.start - 1).amax(1)
        # A closing timestamp may be opened again at the same time; otherwise time moves on.
        earliest = torch.where(last & ~before_last, newest, newest + 1).unsqueeze(1)
        forbidden = self._is_timestamp & (self._ids < earliest)
        forbidden |= self._is_timestamp & (last & before_last).unsqueeze(1)
        forbidden |= self._is_text & (last & ~before_last).unsqueeze(1)
        scores = scores.masked_fill(forbidden, float("-inf"))
        stamp_score = scores.masked_fill(~self._is_timestamp, float("-inf")).logsumexp(-1)
        word_score = scores.masked_fill(self._is_timestamp, float("-inf")).amax(-1)
        return scores.masked_fill(
            (stamp_score > word_score).unsqueeze(1) & ~self._is_timestamp, float("-inf")
        )

    def _choose(self, scores: Tensor, steps: int) -> Tensor:
        logprobs = scores.log_softmax(-1)
        choice = (logprobs / self._temperature + self._noise(scores) if self._dice else scores).argmax(-1)
        capped = steps >= self._caps
        choice = choice.masked_fill(capped | self._ended, self._tokens.eos)
        chance = logprobs.gather(1, choice.unsqueeze(1)).squeeze(1)
        # NaN marks what was not chosen by the model: the ends that caps force, and padding.
        self.logprobs.append(chance.masked_fill(capped | self._ended, float("nan")))
        self.chosen.append(choice)
        self._ended |= choice == self._tokens.eos
        return torch.full_like(scores, float("-inf")).scatter_(1, choice.unsqueeze(1), 0.0)

    def _noise(self, scores: Tensor) -> Tensor:
        """Gumbel noise, one generator per row: the largest sum is a draw from the softmax."""
        noise = torch.empty_like(scores)
        for row, dice in enumerate(self._dice):
            noise[row].exponential_(generator=dice)
        return -noise.log()


def _dice(seed: int, temperature: float, device: torch.device) -> torch.Generator:
    return torch.Generator(device).manual_seed(seed * 101 + round(temperature * 100))


def decode(
    model: Any,
    encoded: Encoded,
    rows: Sequence[Row],
    tokens: Tokens,
    *,
    temperature: float,
    timestamps: bool,
    to_text: Callable[[Sequence[int]], str],
) -> list[Draft]:
    """One pass over all rows, whose prompts have equal length."""
    rules = Rules(tokens, rows, temperature=temperature, timestamps=timestamps, device=encoded.states.device)
    # Called on the mixin: Whisper's own `generate` would seek, detect and encode again (docs/adr/0003).
    GenerationMixin.generate(
        model,
        encoder_outputs=BaseModelOutput(last_hidden_state=encoded.states),
        decoder_input_ids=torch.tensor([row.prompt for row in rows], device=encoded.states.device),
        past_key_values=EncoderDecoderCache(DynamicCache(), encoded.cross),
        logits_processor=LogitsProcessorList([rules]),
        generation_config=GenerationConfig(
            max_new_tokens=max(row.max_tokens for row in rows),
            eos_token_id=tokens.eos,
            pad_token_id=tokens.eos,
            decoder_start_token_id=tokens.sot,
            do_sample=False,
            use_cache=True,
        ),
    )
    chosen = torch.stack(rules.chosen, 1).tolist()
    logprobs = torch.stack(rules.logprobs, 1).tolist()
    return [_draft(*row, tokens, temperature, to_text) for row in zip(chosen, logprobs, strict=True)]


def _draft(
    chosen: list[int],
    logprobs: list[float],
    tokens: Tokens,
    temperature: float,
    to_text: Callable[[Sequence[int]], str],
) -> Draft:
    length = chosen.index(tokens.eos) if tokens.eos in chosen else len(chosen)
    written = tuple(chosen[:length])
    counted = [value for value in logprobs[: length + 1] if value == value]
    return Draft(
        tokens=written,
        logprobs=tuple(logprobs[:length]),
        avg_logprob=sum(counted) / len(counted) if counted else 0.0,
        text=to_text([token for token in written if tokens.is_text(token)]),
        temperature=temperature,
    )
