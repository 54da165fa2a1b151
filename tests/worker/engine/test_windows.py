"""Packing: the laws hold for any spans in any blocks, and the cuts lie where a listener would put them."""

import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from worker.engine.values import SAMPLE_RATE, Pcm, Span
from worker.engine.windows import Cut, cut_windows

NOISE = np.random.default_rng(0).normal(0, 20, 7 * SAMPLE_RATE + 1).astype(np.int16)
FEW = settings(max_examples=150, deadline=None)


class ScriptedDetector:
    """Finds the spans it was told, each as soon as its end has been fed, or in pieces at every block."""

    def __init__(self, spans: list[Span], *, in_pieces: bool = False) -> None:
        self._spans = spans
        self._in_pieces = in_pieces
        self._fed = 0

    def feed(self, pcm: Pcm, *, last: bool = False) -> list[Span]:
        self._fed += len(pcm)
        found = []
        while self._spans and (self._spans[0].end <= self._fed or last):
            found.append(self._spans.pop(0))
        if self._in_pieces and self._spans and self._spans[0].start < self._fed:
            found.append(Span(self._spans[0].start, self._fed))
            self._spans[0] = Span(self._fed, self._spans[0].end)
        return found


def seconds(value: float) -> int:
    return round(value * SAMPLE_RATE)


def spans_of(*bounds_s: tuple[float, float]) -> list[Span]:
    return [Span(seconds(start), seconds(end)) for start, end in bounds_s]


def speechlike(spans: list[Span], length: int) -> Pcm:
    """Noise, loud in the spans and faint between them."""
    pcm = np.resize(NOISE, length)
    for span in spans:
        pcm[span.start : span.end] *= 150
    return pcm


def blocks_of(pcm: Pcm, block_s: float = 30.0) -> list[Pcm]:
    return [pcm[begin : begin + seconds(block_s)] for begin in range(0, len(pcm), seconds(block_s))]


def pack(
    spans: list[Span], length: int, window_s: float, block_s: float = 30.0, *, in_pieces: bool = False
) -> list[Cut]:
    pcm = speechlike(spans, length)
    detector = ScriptedDetector(list(spans), in_pieces=in_pieces)
    return list(cut_windows(blocks_of(pcm, block_s), detector, window_s))


def bounds_s(cuts: list[Cut]) -> list[tuple[float, float]]:
    return [(cut.start / SAMPLE_RATE, (cut.start + len(cut.pcm)) / SAMPLE_RATE) for cut in cuts]


@st.composite
def recordings(draw: st.DrawFn) -> tuple[list[Span], int]:
    # A detector keeps no more to itself than LOOKBACK_SAMPLES; longer speech comes of spans that touch.
    lengths_s = st.floats(0.05, 29.0)
    gaps_s = st.one_of(st.just(0.0), st.floats(0.01, 8.0), st.floats(8.0, 70.0))
    spans, at = [], 0
    for gap_s, length_s in draw(st.lists(st.tuples(gaps_s, lengths_s), max_size=8)):
        start = at + seconds(gap_s)
        at = start + seconds(length_s)
        spans.append(Span(start, at))
    return spans, at + seconds(draw(st.floats(0.0, 60.0)))


@FEW
@given(
    recording=recordings(),
    window_s=st.sampled_from([5.0, 8.0, 30.0]),
    block_s=st.sampled_from([3.0, 30.0]),
    in_pieces=st.booleans(),
)
@example(recording=([], 0), window_s=30.0, block_s=30.0, in_pieces=False)
def test_the_laws_of_packing(
    recording: tuple[list[Span], int], window_s: float, block_s: float, in_pieces: bool
) -> None:
    spans, length = recording
    pcm = speechlike(spans, length)
    detector = ScriptedDetector(list(spans), in_pieces=in_pieces)

    cuts = list(cut_windows(blocks_of(pcm, block_s), detector, window_s))

    windows_at = np.zeros(length, np.int8)
    for cut in cuts:
        windows_at[cut.start : cut.start + len(cut.pcm)] += 1
        assert 0 < len(cut.pcm) <= seconds(window_s)
        np.testing.assert_array_equal(cut.pcm, pcm[cut.start : cut.start + len(cut.pcm)])
    speech = np.zeros(length, bool)
    for span in spans:
        speech[span.start : span.end] = True
    assert (windows_at[speech] == 1).all()
    assert windows_at.max(initial=0) <= 1
    assert [cut.index for cut in cuts] == list(range(len(cuts)))
    assert sorted(cut.start for cut in cuts) == [cut.start for cut in cuts]
    assert sum(cut.speech_s for cut in cuts) * SAMPLE_RATE == pytest.approx(speech.sum())
    for cut in cuts:
        assert speech[cut.start : cut.start + len(cut.pcm)].sum() == pytest.approx(cut.speech_s * SAMPLE_RATE)


@FEW
@given(recording=recordings(), window_s=st.sampled_from([8.0, 30.0]))
def test_pieces_and_the_size_of_blocks_change_nothing(
    recording: tuple[list[Span], int], window_s: float
) -> None:
    whole = pack(*recording, window_s)

    assert bounds_s(whole) == bounds_s(pack(*recording, window_s, in_pieces=True))
    assert bounds_s(whole) == bounds_s(pack(*recording, window_s, block_s=7.0, in_pieces=True))


def test_neighbours_share_a_window() -> None:
    cuts = pack(spans_of((1, 4), (5, 8), (9.5, 12)), seconds(15), 30.0)

    assert bounds_s(cuts) == [(1, 12)]
    assert cuts[0].speech_s == 8.5


def test_a_long_gap_is_dropped() -> None:
    assert bounds_s(pack(spans_of((1, 4), (14, 17)), seconds(20), 30.0)) == [(1, 4), (14, 17)]


def test_a_window_ends_in_a_gap_when_there_is_one() -> None:
    spans = spans_of((0, 3), (3.7, 7), (7.6, 12), (12.8, 15))

    assert bounds_s(pack(spans, seconds(16), 8.0)) == [(0, 7), (7.6, 15)]


def test_endless_speech_is_cut_where_it_is_quietest() -> None:
    pcm = speechlike(spans_of((0, 60)), seconds(60))
    pcm[seconds(24) : seconds(24.5)] //= 50
    pcm[seconds(20) : seconds(20.1)] = 0
    cuts = list(cut_windows(blocks_of(pcm), ScriptedDetector(spans_of((0, 60))), 30.0))

    assert bounds_s(cuts)[0][1] == pytest.approx(24.25, abs=0.15)
    assert len(cuts) == 3


def test_no_sliver_is_left_over() -> None:
    cuts = pack(spans_of((0, 30.5)), seconds(31), 30.0)

    assert len(cuts) == 2
    assert min(len(cut.pcm) for cut in cuts) >= seconds(7.5)


def test_windows_are_well_filled() -> None:
    """Each window costs a whole encoder pass, so steady speech must not come in many short ones."""
    cuts = pack(spans_of((0, 600)), seconds(600), 30.0)

    assert len(cuts) <= 25


def test_windows_come_while_the_file_is_still_read() -> None:
    fed = 0

    def blocks() -> Iterator[Pcm]:
        nonlocal fed
        for block in blocks_of(speechlike(spans_of((0, 300)), seconds(300))):
            fed += len(block)
            yield block

    next(cut_windows(blocks(), ScriptedDetector(spans_of((0, 300)), in_pieces=True), 30.0))

    assert fed <= seconds(60)


@pytest.mark.parametrize("spans", [[], spans_of((0, 3600)), spans_of((1, 2), (3590, 3600))])
def test_an_hour_takes_no_more_memory_than_minutes(spans: list[Span]) -> None:
    block = speechlike([], seconds(30))
    detector = ScriptedDetector(list(spans), in_pieces=True)
    tracemalloc.start()
    try:
        for _ in cut_windows((block for _ in range(120)), detector, 30.0):
            pass
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak_bytes < 12 * block.nbytes
