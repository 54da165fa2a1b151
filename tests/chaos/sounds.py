"""Recordings that cost nothing to make, and the only right transcript of each."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from tests.chaos.plain_worker import KILLER, spell
from worker.engine.audio import BLOCK_SECONDS
from worker.engine.spans import SpeechParams
from worker.engine.vad import detector_for
from worker.engine.values import SAMPLE_RATE, Pcm
from worker.engine.windows import cut_windows

WINDOW_S = 5.0
"""What the plain worker's model takes at once."""

LOUDNESS = 8
"""Soft noise packs into a tenth of the bytes of loud noise, and is no silence either."""


@dataclass(frozen=True, slots=True)
class Sound:
    """A recording on disk and the text of each of its windows."""

    path: Path
    texts: tuple[str, ...]

    @property
    def text(self) -> str:
        return " ".join(self.texts)


def sound(path: Path, seconds: float, seed: int, *, is_poison: bool = False) -> Sound:
    """Noise that only this seed has; poison kills the worker whose model is given its first window."""
    pcm = np.random.default_rng(seed).integers(
        -LOUDNESS, LOUDNESS, round(seconds * SAMPLE_RATE), dtype=np.int16, endpoint=True
    )
    if is_poison:
        pcm[:2] = KILLER
    soundfile.write(path, pcm, SAMPLE_RATE, subtype="PCM_16")
    return Sound(path, tuple(spell(cut) for cut in _cuts(pcm)))


def sounds(folder: Path, seconds: Sequence[float], seed: int) -> list[Sound]:
    """One for each length, no two alike."""
    return [
        sound(folder / f"sound-{seed}-{number}.wav", length, seed * 10_000 + number)
        for number, length in enumerate(seconds)
    ]


def _cuts(pcm: Pcm) -> Iterator[Pcm]:
    block = BLOCK_SECONDS * SAMPLE_RATE
    blocks = (pcm[start : start + block] for start in range(0, len(pcm), block))
    for cut in cut_windows(blocks, detector_for(False, SpeechParams()), WINDOW_S):
        yield cut.pcm
