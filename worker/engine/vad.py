"""Step 6, detect: which stretches of a recording are speech. Two detectors behind one port: a small network
(`silero.py`), and one that takes everything but digital silence for speech.
"""

import numpy as np

from worker.engine.spans import FRAME_SAMPLES, FramedDetector, Scores, SpeechParams
from worker.engine.values import Detector, Pcm, Span

AUDIBLE = 1
"""The last bit may be dither."""

DIGITAL_SILENCE = SpeechParams(min_silence_s=2.0, min_speech_s=0.0)
"""With detection off a stretch must be long, and hold nothing at all, to be left out."""


def detector_for(enabled: bool, params: SpeechParams) -> Detector:
    """A fresh detector for one file."""
    if not enabled:
        return SoundDetector()
    # numba, which nothing else here needs.
    from worker.engine.silero import SileroDetector  # noqa: PLC0415

    return SileroDetector(params)


def warm_up() -> None:
    """Compiles the network, or reads what was compiled before: not on somebody's job."""
    detector_for(True, SpeechParams()).feed(np.zeros(FRAME_SAMPLES, np.int16), last=True)


class SoundDetector:
    """Everything is speech, for callers who know better, except long digital silence: it can hold none, costs
    as much to transcribe as any sound, and is what models invent text on."""

    def __init__(self) -> None:
        self._framed = FramedDetector(DIGITAL_SILENCE, _has_sound)

    def feed(self, pcm: Pcm, *, last: bool = False) -> list[Span]:
        return self._framed.feed(pcm, last=last)


def _has_sound(frames: Pcm) -> Scores:
    scores: Scores = np.any((frames > AUDIBLE) | (frames < -AUDIBLE), axis=1).astype(np.float32)
    return scores
