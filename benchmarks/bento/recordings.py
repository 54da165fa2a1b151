"""What is sent in the comparison: stretches of a sample, cut between sentences, so their words are known.

The same count gives the same bytes on every machine.
"""

import io
import json
import random
import wave
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import soundfile

SAMPLES = Path(__file__).resolve().parents[2] / "models" / "samples"
SOURCE = "five-minutes.flac"
SHORTEST_S = 3.0
LONGEST_S = 180.0

_SEED = 9


@dataclass(frozen=True, slots=True)
class Recording:
    name: str
    seconds: float
    text: str
    wav: bytes = field(repr=False)


def recordings(count: int, longest_s: float = LONGEST_S) -> list[Recording]:
    """From about 3 s to about `longest_s`, each longer than the last by the same factor; then shuffled."""
    rng = random.Random(_SEED)
    sound, rate = soundfile.read(SAMPLES / SOURCE, dtype="int16")
    segments = json.loads((SAMPLES / "references.json").read_text())[SOURCE]["segments"]
    cuts = _cuts([(segment["start"], segment["end"]) for segment in segments], len(sound) / rate)
    unused = set(range(len(segments)))
    made = []
    for number, length_s in enumerate(_lengths(count, longest_s)):
        first = rng.choice([one for one in sorted(unused) if cuts[-1] - cuts[one] >= length_s])
        last = min(range(first + 1, len(cuts)), key=lambda one: abs(cuts[one] - cuts[first] - length_s))
        # No two begin alike, so no two are the same and nothing is known of one from another.
        unused.remove(first)
        piece = sound[round(cuts[first] * rate) : round(cuts[last] * rate)]
        text = " ".join(segment["text"] for segment in segments[first:last])
        made.append(Recording(f"talk-{number:02}.wav", len(piece) / rate, text, _wav(piece, rate)))
    rng.shuffle(made)
    return made


def _lengths(count: int, longest_s: float) -> list[float]:
    factor = (longest_s / SHORTEST_S) ** (1 / (count - 1))
    return [SHORTEST_S * factor**number for number in range(count)]


def _cuts(sentences: Sequence[tuple[float, float]], duration_s: float) -> list[float]:
    """Before each sentence, and at the end: in the middle of the pause."""
    pauses = [(end + start) / 2 for (_, end), (start, _) in pairwise(sentences)]
    return [0.0, *pauses, duration_s]


def _wav(pcm: "np.ndarray[tuple[int], np.dtype[np.int16]]", rate: int) -> bytes:
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes(pcm.astype("<i2").tobytes())
    return content.getvalue()
