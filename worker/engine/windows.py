"""Step 7, pack: spans of speech become windows that a model can take whole. Policy only: no torch, no
threads, no clock.

Spans with short gaps between them share a window, gap included: silence costs nothing inside a window, while
sound taken out can cost words. Only long gaps are dropped. What does not fit is cut past the first third of
the window, at the last moment that is nearly as quiet as the quietest there, and never so late that a sliver
is left over.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from worker.engine.values import SAMPLE_RATE, Detector, Pcm, Span

MIN_LONG_GAP_S = 2.0
LONG_GAP_SHARE = 1 / 6
"""A gap is long from this share of a window on: shorter ones cost less than a window of their own."""

FIRST_CUT_SHARE = 1 / 3
LEAST_REST_SHARE = 1 / 4
"""A cut leaves at least this share of a window behind it, so the last window has something to go by."""

HOP_SAMPLES = SAMPLE_RATE // 50
QUIET_S = 0.4
QUIET_HOPS = round(QUIET_S * SAMPLE_RATE / HOP_SAMPLES)
"""Loudness is averaged over this long: the pauses between sentences win over those between words."""

NEARLY = 2.0
"""Twice the least power, 3 dB, is nearly as quiet."""

LEAST_POWER = 1.0
LOOKBACK_SAMPLES = 30 * SAMPLE_RATE
"""How far behind the end of the sound fed to it a detector may still begin a span."""


@dataclass(frozen=True, slots=True, eq=False)
class Cut:
    """A window's sound before anyone knows how it is to be decoded. `start` is its first sample in the file;
    `speech_s` is how much of it the detector took for speech."""

    index: int
    start: int
    pcm: Pcm
    speech_s: float


def cut_windows(blocks: Iterable[Pcm], detector: Detector, window_s: float) -> Iterator[Cut]:
    """Every sample of every span lies in exactly one window; windows are in order, do not overlap, and none
    is longer than `window_s`. Holds no more sound than a few windows and one block."""
    packer = Packer(round(window_s * SAMPLE_RATE))
    index = 0
    for pcm, spans, is_last in _detected(blocks, detector):
        for members in packer.pack(pcm, spans, is_last=is_last):
            start, end = members[0].start, members[-1].end
            speech_s = sum(span.samples for span in members) / SAMPLE_RATE
            yield Cut(index, start, packer.tape.read(start, end), speech_s)
            index += 1
        packer.forget()


def _detected(blocks: Iterable[Pcm], detector: Detector) -> Iterator[tuple[Pcm, list[Span], bool]]:
    nothing: Pcm = np.zeros(0, np.int16)
    for pcm in blocks:
        yield pcm, detector.feed(pcm), False
    yield nothing, detector.feed(nothing, last=True), True


class Packer:
    """Holds the spans that have no window yet, and the sound they lie in."""

    def __init__(self, window: int) -> None:
        self._window = window
        self._long_gap = max(round(window * LONG_GAP_SHARE), round(MIN_LONG_GAP_S * SAMPLE_RATE))
        self._least_rest = round(window * LEAST_REST_SHARE)
        self._spans: deque[Span] = deque()
        self.tape = Tape()

    def pack(self, pcm: Pcm, spans: Iterable[Span], *, is_last: bool) -> Iterator[list[Span]]:
        """The members of each window that is certain by now."""
        self.tape.append(pcm)
        for span in spans:
            self._append(span)
        while self._spans:
            stretch, is_whole = self._stretch(is_last)
            length = stretch[-1].end - stretch[0].start
            if length <= self._window and is_whole:
                yield self._take(stretch[-1].end)
            elif length > self._window and (is_whole or length >= self._window + self._least_rest):
                yield self._take(self._cut_point(stretch))
            else:
                return

    def forget(self) -> None:
        recent = self.tape.end - LOOKBACK_SAMPLES
        self.tape.forget(min(recent, self._spans[0].start) if self._spans else recent)

    def _append(self, span: Span) -> None:
        """A span handed out in pieces is put together again."""
        span = Span(max(span.start, self.tape.start), span.end)
        if self._spans and self._spans[-1].end == span.start:
            span = Span(self._spans.pop().start, span.end)
        self._spans.append(span)

    def _stretch(self, is_last: bool) -> tuple[list[Span], bool]:
        """The first spans without a long gap between them, and whether no more can join them."""
        spans = list(self._spans)
        for number, (span, following) in enumerate(pairwise(spans), start=1):
            if following.start - span.end > self._long_gap:
                return spans[:number], True
        silence = self.tape.end - spans[-1].end
        return spans, is_last or silence > self._long_gap + LOOKBACK_SAMPLES

    def _cut_point(self, stretch: list[Span]) -> int:
        """Where to end a window in a stretch that is too long for one."""
        start = stretch[0].start
        latest = min(start + self._window, stretch[-1].end - self._least_rest)
        earliest = start + round(self._window * FIRST_CUT_SHARE)
        sound = self.tape.read(earliest, latest)
        power = _power(sound)
        for span, following in pairwise(stretch):
            gap = np.array([span.end, following.start]) - earliest
            first, past = gap.clip(0, len(sound)) // HOP_SAMPLES
            power[first:past] = 0.0
        return earliest + _last_quiet_hop(power) * HOP_SAMPLES

    def _take(self, end: int) -> list[Span]:
        """Removes the spans up to `end` from those waiting; one that lies across it is divided."""
        members = []
        while self._spans and self._spans[0].start < end:
            span = self._spans.popleft()
            members.append(Span(span.start, min(span.end, end)))
            if span.end > end:
                self._spans.appendleft(Span(end, span.end))
        return members


class Tape:
    """The sound from file sample `start` up to `end`."""

    def __init__(self) -> None:
        self._sound: Pcm = np.zeros(0, np.int16)
        self.start = 0

    @property
    def end(self) -> int:
        return self.start + len(self._sound)

    def append(self, pcm: Pcm) -> None:
        self._sound = np.concatenate([self._sound, pcm])

    def read(self, start: int, end: int) -> Pcm:
        """A copy, so that a window does not keep the whole tape alive."""
        return self._sound[start - self.start : end - self.start].copy()

    def forget(self, before: int) -> None:
        if before > self.start:
            self._sound = self._sound[before - self.start :]
            self.start = before


def _power(sound: Pcm) -> NDArray[np.float64]:
    """Mean square of each whole hop."""
    hops = sound[: len(sound) - len(sound) % HOP_SAMPLES].reshape(-1, HOP_SAMPLES)
    power: NDArray[np.float64] = np.square(hops, dtype=np.float64).mean(axis=1)
    return power


def _last_quiet_hop(power: NDArray[np.float64]) -> int:
    """The hop in the middle of the last stretch of QUIET_S that is nearly as quiet as the quietest."""
    width = min(QUIET_HOPS, len(power))
    averages = np.convolve(power, np.full(width, 1 / width), mode="valid") + LEAST_POWER
    return int(np.flatnonzero(averages <= averages.min() * NEARLY)[-1]) + width // 2
