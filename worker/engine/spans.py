"""From scores of frames to spans of speech, whoever gives the scores."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from worker.engine.values import SAMPLE_RATE, Pcm, Span

FRAME_SAMPLES = 512
"""32 ms, the network's step; the other detector keeps to it."""

HYSTERESIS = 0.15
"""Speech begins at the threshold and lasts until the probability is this much below it."""

LOWEST_EXIT = 0.01

Scores = NDArray[np.float32]
"""One speech probability per frame."""


@dataclass(frozen=True, slots=True)
class SpeechParams:
    """`threshold` is a probability. Gaps shorter than `min_silence_s` do not split speech, speech shorter
    than `min_speech_s` is none, and every span is widened by `pad_s` on both sides."""

    threshold: float = 0.5
    min_silence_s: float = 0.5
    min_speech_s: float = 0.1
    pad_s: float = 0.3


class FramedDetector:
    """Cuts blocks into frames, has them scored, and turns the scores into spans."""

    def __init__(self, params: SpeechParams, score: Callable[[Pcm], Scores]) -> None:
        self._score = score
        self._tracker = SpeechTracker(params)
        self._rest: Pcm = np.zeros(0, np.int16)
        self._fed_samples = 0

    def feed(self, pcm: Pcm, *, last: bool) -> list[Span]:
        self._fed_samples += len(pcm)
        sound = np.concatenate([self._rest, pcm])
        if last:
            sound = np.pad(sound, (0, -len(sound) % FRAME_SAMPLES))
        whole = len(sound) - len(sound) % FRAME_SAMPLES
        self._rest = sound[whole:].copy()
        frames = sound[:whole].reshape(-1, FRAME_SAMPLES)
        if len(frames):
            for score in self._score(frames).tolist():
                self._tracker.hear(score)
        return self._tracker.settle(self._fed_samples if last else None)


class SpeechTracker:
    """From scores to spans, with Silero's hysteresis. A span still open when it is asked for is handed out
    in pieces that touch, so that speech without end never piles up."""

    def __init__(self, params: SpeechParams) -> None:
        self._threshold = params.threshold
        self._exit = max(params.threshold - HYSTERESIS, LOWEST_EXIT)
        self._pad = round(params.pad_s * SAMPLE_RATE)
        self._min_speech = round(params.min_speech_s * SAMPLE_RATE)
        # Spans whose padding meets are one anyway; to wait for the padding keeps every end inside the file.
        self._min_silence = max(round(params.min_silence_s * SAMPLE_RATE), self._pad)
        self._position = 0
        self._speech_start: int | None = None
        self._silence_start: int | None = None
        self._settled = 0
        self._found: list[Span] = []

    def hear(self, score: float) -> None:
        frame_start = self._position
        self._position += FRAME_SAMPLES
        if score >= self._threshold:
            self._silence_start = None
            if self._speech_start is None:
                self._speech_start = frame_start
        elif self._speech_start is not None and score < self._exit:
            if self._silence_start is None:
                self._silence_start = frame_start
            if self._position - self._silence_start >= self._min_silence:
                self._close(self._speech_start, self._silence_start)

    def settle(self, total_samples: int | None) -> list[Span]:
        """What is certain since the last call; all there is once the file's length is given."""
        if self._speech_start is not None:
            heard_end = self._position if self._silence_start is None else self._silence_start
            if total_samples is not None:
                self._close(self._speech_start, heard_end)
            elif heard_end - self._speech_start >= self._min_speech:
                padded = heard_end if self._silence_start is None else heard_end + self._pad
                self._find(self._speech_start - self._pad, min(padded, self._position))
        found, self._found = self._found, []
        if total_samples is None:
            return found
        # The last frame was filled up with silence that is not in the file.
        inside = (span for span in found if span.start < total_samples)
        return [replace(span, end=min(span.end, total_samples)) for span in inside]

    def _close(self, start: int, end: int) -> None:
        if end - start >= self._min_speech:
            self._find(start - self._pad, end + self._pad)
        self._speech_start = self._silence_start = None

    def _find(self, start: int, end: int) -> None:
        start = max(start, self._settled)
        if end <= start:
            return
        self._settled = end
        if self._found and self._found[-1].end == start:
            self._found[-1] = replace(self._found[-1], end=end)
        else:
            self._found.append(Span(start, end))
