"""Windows put end to end in a part come out as they went in."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.engine.values import SAMPLE_RATE, DecodingOptions
from worker.engine.windows import Cut
from worker.parts import Part, decode, encode, group

OPTIONS = DecodingOptions(language="tw")


@st.composite
def cut_lists(draw: st.DrawFn) -> list[Cut]:
    """Windows of a file in order, with gaps between them."""
    found, start = [], 0
    for index in range(draw(st.integers(1, 8))):
        start += draw(st.integers(0, 5000))
        samples = draw(st.integers(1, 4000))
        random = np.random.default_rng(draw(st.integers(0, 99)))
        pcm = random.integers(-32768, 32768, samples, dtype=np.int16)
        found.append(Cut(index, start, pcm, samples / SAMPLE_RATE / 2))
        start += samples
    return found


def seconds(cuts: list[Cut]) -> float:
    return sum(len(cut.pcm) for cut in cuts) / SAMPLE_RATE


@given(cut_lists(), st.floats(0.001, 2.0))
def test_parts_hold_every_window_once_in_order_and_are_long_enough_but_for_the_last(
    cuts: list[Cut], part_s: float
) -> None:
    parts = list(group(cuts, part_s))

    assert [cut for part in parts for cut in part] == cuts
    assert all(seconds(part) >= part_s for part in parts[:-1])
    assert all(seconds(part[:-1]) < part_s for part in parts)


def test_no_windows_make_no_part() -> None:
    assert list(group([], 600)) == []


@settings(deadline=None)
@given(cut_lists(), st.sampled_from([0.0, 12.5]))
def test_windows_come_out_of_a_part_as_they_went_in(cuts: list[Cut], offset_s: float) -> None:
    part, flac = encode(cuts, offset_s)

    windows = decode(Part.from_json(part.to_json()), flac, OPTIONS)

    assert [window.index for window in windows] == [cut.index for cut in cuts]
    for window, cut in zip(windows, cuts, strict=True):
        assert np.array_equal(window.pcm, cut.pcm)
        assert window.start_s == pytest.approx(offset_s + cut.start / SAMPLE_RATE, abs=1e-4)
        assert window.speech_s == pytest.approx(cut.speech_s, abs=1e-3)
        assert window.options == OPTIONS


@settings(deadline=None)
@given(cut_lists())
def test_a_part_knows_how_much_sound_it_holds_and_survives_being_written_down(cuts: list[Cut]) -> None:
    part, _ = encode(cuts, 0.0)

    assert part.seconds == pytest.approx(seconds(cuts))
    assert Part.from_json(part.to_json()) == part
