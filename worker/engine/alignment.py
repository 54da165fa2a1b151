"""Word times: where the decoder's alignment heads looked while each token was written.

One teacher-forced pass over finished texts, up to the last layer that has such a head, with keys that are in
the slots already; what follows it needs no model and no thread of its. Method: openai/whisper `timing.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from shared.transcript import Word
from worker.engine.text_decoder import Decoder
from worker.engine.utterances import Piece
from worker.engine.values import Utterance

SECONDS_PER_POSITION = 0.02
MEDIAN_WIDTH = 7
EXCHANGES = (
    *((0, 5), (0, 3), (1, 6), (2, 4), (0, 1), (3, 5), (2, 6), (2, 3), (3, 6), (4, 5)),
    *((1, 4), (1, 3), (3, 4)),
)
"""What has to be put in order, two by two, for the middle one of so many to come to stand in the middle: N.
Devillard, "Fast median search"."""

LONGEST_USUAL_WORD_S = 0.7
"""Words at the edge of a pause stretch into it; more than twice the usual length is cut back."""

Heads = Sequence[tuple[int, int]]


def warm_up() -> None:
    """Imports and compiles the path search, which takes seconds the first time."""
    _token_starts(np.random.default_rng(0).random((4, 8)))


@dataclass(frozen=True, slots=True)
class Said:
    """What a window says: `text`, which is not empty, behind `prompt`."""

    prompt: tuple[int, ...]
    text: tuple[int, ...]
    eos: int
    duration_s: float

    @property
    def tokens(self) -> tuple[int, ...]:
        return (*self.prompt, *self.text, self.eos)

    @property
    def positions(self) -> int:
        """Of the sound."""
        return max(1, round(self.duration_s / SECONDS_PER_POSITION))


@dataclass(frozen=True, slots=True, eq=False)
class Gaze:
    """Attention [heads, tokens, positions] of a whole prompt, text and end to the sound; `first` is where the
    text begins in it."""

    attention: NDArray[np.float32]
    first: int


def look(decoder: Decoder, rows: Sequence[int], said: Sequence[Said], heads: Heads) -> list[Gaze]:
    """One pass over the finished texts of rows whose sound is still in their slots."""
    layers = sorted({layer for layer, _ in heads})
    asked = decoder.questions(rows, [one.tokens for one in said], layers)
    positions = max(one.positions for one in said)
    ends = torch.tensor([one.positions for one in said], device=asked[0].device)
    beyond = torch.arange(positions, device=ends.device) >= ends[:, None, None, None]
    attention = []
    for layer, question in zip(layers, asked, strict=True):
        chosen = [head for its, head in heads if its == layer]
        query = question[:, chosen].float() * decoder.question_scale
        keys = decoder.sound_keys(rows, layer)[:, chosen, :, :positions].float()
        attention.append((query @ keys).masked_fill_(beyond, float("-inf")).softmax(-1))
    seen = torch.cat(attention, dim=1).cpu().numpy()
    return [
        Gaze(whole[:, : len(one.tokens), : one.positions], first=len(one.prompt))
        for whole, one in zip(seen, said, strict=True)
    ]


def token_starts(gaze: Gaze) -> NDArray[np.float64]:
    """The start of each text token and of the end, in seconds. No torch: it would
    take the model's threads."""
    return _token_starts(_smoothed(gaze.attention)[gaze.first - 1 : -1])


def _smoothed(attention: NDArray[np.float32]) -> NDArray[np.float64]:
    """Normalised over tokens, median-filtered over time, averaged over heads."""
    std, mean = attention.std(axis=-2, keepdims=True), attention.mean(axis=-2, keepdims=True)
    weights: NDArray[Any] = (attention - mean) / np.maximum(std, 1e-8)
    pad = MEDIAN_WIDTH // 2
    if weights.shape[-1] > pad:
        # Head by head, so that what is compared stays in the processor's cache.
        weights = np.stack([_medians(np.pad(head, ((0, 0), (pad, pad)), mode="reflect")) for head in weights])
    return np.asarray(weights.mean(axis=0), dtype=np.float64)


def _medians(rows: NDArray[Any]) -> NDArray[Any]:
    """Of each number and its neighbours. Whole rows are compared at once: a quarter of the time that a search
    in each neighbourhood takes."""
    count = rows.shape[-1] - MEDIAN_WIDTH + 1
    around = [rows[..., first : first + count] for first in range(MEDIAN_WIDTH)]
    for one, other in EXCHANGES:
        low, high = np.minimum(around[one], around[other]), np.maximum(around[one], around[other])
        around[one], around[other] = low, high
    return around[MEDIAN_WIDTH // 2]


def _token_starts(attention: NDArray[np.float64]) -> NDArray[np.float64]:
    # Loads numba, which only word times need.
    from librosa.sequence import dtw  # noqa: PLC0415

    _, path = dtw(C=-attention)
    tokens, positions = path[::-1].T
    arrivals = np.flatnonzero(np.diff(tokens, prepend=-1))
    return np.asarray(positions[arrivals] * SECONDS_PER_POSITION, dtype=np.float64)


def to_words(
    pieces: Sequence[Piece], starts: NDArray[np.float64], chances: NDArray[np.float64]
) -> tuple[Word, ...]:
    """Words of one utterance; `starts` has one entry more than the pieces have tokens, `chances` as many."""
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
