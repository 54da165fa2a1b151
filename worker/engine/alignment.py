"""Word times: where the decoder's alignment heads looked while each token was written.

One teacher-forced pass over the finished text, with keys the decoder has already; the attention
implementation stays as it is. Method: openai/whisper `timing.py`.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shared.transcript import Word
from worker.engine.listening import Encoded
from worker.engine.utterances import Piece
from worker.engine.values import Utterance

SECONDS_PER_POSITION = 0.02
MEDIAN_WIDTH = 7
LONGEST_USUAL_WORD_S = 0.7
"""Words at the edge of a pause stretch into it; more than twice the usual length is cut back."""

Heads = Sequence[tuple[int, int]]


def warm_up() -> None:
    """Imports and compiles the path search, which takes seconds the first time."""
    _token_starts(np.random.default_rng(0).random((4, 8)))


def token_times(
    model: Any,
    encoded: Encoded,
    texts: Sequence[Sequence[int]],
    prompts: Sequence[Sequence[int]],
    durations_s: Sequence[float],
    heads: Heads,
    eos: int,
) -> list[tuple[NDArray[np.float64], list[float]]]:
    """For each row the start of each of its text tokens and of its end, in seconds, and the tokens'
    probabilities. `prompts` end where the text begins; rows without text must not be passed.
    """
    sequences = [(*prompt, *text, eos) for prompt, text in zip(prompts, texts, strict=True)]
    longest = max(map(len, sequences))
    padded = [(*sequence, *[eos] * (longest - len(sequence))) for sequence in sequences]
    queries: dict[int, Tensor] = {}
    with _captured_queries(model, sorted({layer for layer, _ in heads}), queries):
        states = model.model.decoder(
            input_ids=torch.tensor(padded, device=encoded.states.device),
            encoder_hidden_states=encoded.states,
            use_cache=False,
        ).last_hidden_state
    results = []
    for row, (text, prompt) in enumerate(zip(texts, prompts, strict=True)):
        positions = max(1, min(encoded.states.shape[1], round(durations_s[row] / SECONDS_PER_POSITION)))
        weights = _weights(model, encoded, queries, heads, row, len(sequences[row]), positions)
        starts = _token_starts(_smoothed(weights)[len(prompt) - 1 : -1])
        logits = model.proj_out(states[row, len(prompt) - 1 : len(prompt) + len(text) - 1]).float()
        chances = logits.softmax(-1).gather(1, torch.tensor(text, device=logits.device).unsqueeze(1))
        results.append((starts, chances.squeeze(1).tolist()))
    return results


@contextmanager
def _captured_queries(model: Any, layers: Sequence[int], queries: dict[int, Tensor]) -> Iterator[None]:
    def keep(layer: int) -> Any:
        return lambda _module, _inputs, output: queries.__setitem__(layer, output)

    decoder = model.model.decoder
    handles = [
        decoder.layers[layer].encoder_attn.q_proj.register_forward_hook(keep(layer)) for layer in layers
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _weights(
    model: Any,
    encoded: Encoded,
    queries: dict[int, Tensor],
    heads: Heads,
    row: int,
    length: int,
    positions: int,
) -> Tensor:
    """Attention [heads, tokens, positions] of one row over the sound it really has."""
    stacked = []
    for layer, head in heads:
        attention = model.model.decoder.layers[layer].encoder_attn
        width = attention.head_dim
        query = queries[layer][row, :length, head * width : (head + 1) * width].float() * attention.scaling
        key = encoded.cross.layers[layer].keys[row, head, :positions].float()
        stacked.append((query @ key.T).softmax(-1))
    return torch.stack(stacked)


def _smoothed(weights: Tensor) -> NDArray[np.float64]:
    """Normalised over tokens, median-filtered over time, averaged over heads."""
    std, mean = torch.std_mean(weights, dim=-2, keepdim=True, unbiased=False)
    weights = (weights - mean) / std.clamp(min=1e-8)
    pad = MEDIAN_WIDTH // 2
    if weights.shape[-1] > pad:
        padded = torch.nn.functional.pad(weights, (pad, pad), mode="reflect")
        weights = padded.unfold(-1, MEDIAN_WIDTH, 1).median(-1).values
    return weights.mean(0).double().cpu().numpy()


def _token_starts(attention: NDArray[np.float64]) -> NDArray[np.float64]:
    # Loads numba, which only word times need.
    from librosa.sequence import dtw  # noqa: PLC0415

    _, path = dtw(C=-attention)
    tokens, positions = path[::-1].T
    arrivals = np.flatnonzero(np.diff(tokens, prepend=-1))
    return np.asarray(positions[arrivals] * SECONDS_PER_POSITION, dtype=np.float64)


def to_words(
    pieces: Sequence[Piece], starts: NDArray[np.float64], chances: Sequence[float]
) -> tuple[Word, ...]:
    """Words of one utterance; `starts` has one entry more than the pieces have tokens."""
    edges = np.cumsum([0, *(len(piece.tokens) for piece in pieces)])
    return tuple(
        Word(
            start=round(float(starts[first]), 2),
            end=round(float(starts[stop]), 2),
            text=piece.text,
            probability=round(float(np.mean(chances[first:stop])), 4),
        )
        for piece, (first, stop) in zip(pieces, pairwise(edges), strict=True)
    )


def with_words(utterance: Utterance, words: Sequence[Word]) -> Utterance:
    """The utterance spans its words, which are closer to the sound than the model's timestamps; only pauses
    that the first and the last word swallowed are cut off."""
    if not words:
        return replace(utterance, words=())
    trimmed = _without_pauses(_between(words, utterance.start, utterance.end))
    return replace(utterance, start=trimmed[0].start, end=trimmed[-1].end, words=tuple(trimmed))


def _between(words: Sequence[Word], start: float, end: float) -> list[Word]:
    kept = list(words)
    if kept[0].start < start < kept[0].end:
        kept[0] = replace(kept[0], start=start)
    if kept[-1].start < end < kept[-1].end:
        kept[-1] = replace(kept[-1], end=end)
    return kept


def _without_pauses(words: Sequence[Word]) -> list[Word]:
    lengths = [word.end - word.start for word in words if word.end > word.start]
    longest = 2 * min(median(lengths), LONGEST_USUAL_WORD_S) if lengths else LONGEST_USUAL_WORD_S
    return [_shortened(word, longest, is_first=number == 0) for number, word in enumerate(words)]


def _shortened(word: Word, longest_s: float, *, is_first: bool) -> Word:
    """A pause before the first word lies at its start; one after any other, at its end."""
    if word.end - word.start <= longest_s:
        return word
    if is_first:
        return replace(word, start=round(word.end - longest_s, 2))
    return replace(word, end=round(word.start + longest_s, 2))
