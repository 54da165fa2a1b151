"""Laws of the formats: times come back as they went in, text cannot break out of its cue, row or cell."""

import csv
import io
import re

from hypothesis import given
from hypothesis import strategies as st

from api import formats
from shared.transcript import Segment, Transcript

_TIMES = st.integers(0, 400_000_000).map(lambda milliseconds: milliseconds / 1000)
_CUE = re.compile(r"(\d{2,}):([0-5]\d):([0-5]\d)[.,](\d{3}) --> (\d{2,}):([0-5]\d):([0-5]\d)[.,](\d{3})")


def transcript_of(*rows: tuple[float, float, str]) -> Transcript:
    segments = tuple(
        Segment(number, start, end, text, -0.1, 1.0, 0.0, 0.0)
        for number, (start, end, text) in enumerate(rows)
    )
    return Transcript(" ".join(row[2] for row in rows), None, 60.0, segments)


@st.composite
def rows(draw: st.DrawFn) -> list[tuple[float, float, str]]:
    times = sorted(draw(st.lists(_TIMES, min_size=2, max_size=12)))
    pairs = zip(times[::2], times[1::2], strict=False)
    return [(start, end, draw(st.text(max_size=40))) for start, end in pairs]


def seconds(hours: str, minutes: str, whole: str, thousandths: str) -> float:
    return int(hours) * 3600 + int(minutes) * 60 + int(whole) + int(thousandths) / 1000


def cues(text: str) -> list[tuple[float, float]]:
    return [(seconds(*found[:4]), seconds(*found[4:])) for found in _CUE.findall(text)]


def spoken(given_rows: list[tuple[float, float, str]]) -> list[tuple[float, float, str]]:
    return [row for row in given_rows if formats.to_text(transcript_of(row))]


@given(_TIMES)
def test_times_come_back(time_s: float) -> None:
    clock, _, thousandths = formats.vtt_time(time_s).partition(".")
    assert abs(seconds(*clock.split(":"), thousandths) - time_s) < 1e-6
    assert formats.srt_time(time_s) == formats.vtt_time(time_s).replace(".", ",")


@given(rows())
def test_every_spoken_segment_is_one_cue_at_its_time(given_rows: list[tuple[float, float, str]]) -> None:
    for write in (formats.to_srt, formats.to_vtt):
        found = cues(write(transcript_of(*given_rows)))

        assert len(found) == len(spoken(given_rows))
        for (start, end), (given_start, given_end, _) in zip(found, spoken(given_rows), strict=True):
            assert abs(start - given_start) < 1e-6
            assert abs(end - max(given_end, given_start + 0.001)) < 1e-6
        assert [start for start, _ in found] == sorted(start for start, _ in found)


@given(st.text(max_size=80))
def test_text_stays_in_its_cue(text: str) -> None:
    srt, vtt = (write(transcript_of((0, 1, text))) for write in (formats.to_srt, formats.to_vtt))

    assert srt.count("-->") == vtt.count("-->") == (1 if srt else 0)
    assert "\n\n" not in srt
    assert len(srt.splitlines()) in (0, 3)
    assert not set("<>&") & set(re.sub(r"&(amp|lt|gt);|-->", "", vtt))


@given(rows())
def test_tables_keep_their_columns(given_rows: list[tuple[float, float, str]]) -> None:
    transcript = transcript_of(*given_rows)

    tsv = [line.split("\t") for line in formats.to_tsv(transcript).split("\n")[1:-1]]
    table = list(csv.reader(io.StringIO(formats.to_csv(transcript), newline="")))[1:]

    assert tsv == table
    assert [(int(start), int(end)) for start, end, _ in table] == [
        (round(start * 1000), round(end * 1000)) for start, end, _ in spoken(given_rows)
    ]


@given(st.text(max_size=40))
def test_guarded_cells_never_start_a_formula(text: str) -> None:
    for row in list(
        csv.reader(io.StringIO(formats.to_csv(transcript_of((0, 1, text)), guard_formulas=True)))
    )[1:]:
        assert not row[2].startswith(("=", "+", "-", "@", "\t", "\r"))


def test_hostile_text_is_text() -> None:
    hostile = transcript_of((0, 1, "a\n\n2\n00:00:00,000 --> 00:00:09,000\n<b>&amp;"))

    assert formats.to_srt(hostile).splitlines()[2:] == ["a 2 00:00:00,000 -> 00:00:09,000 <b>&amp;"]
    assert formats.to_vtt(hostile).splitlines()[3:] == [
        "a 2 00:00:00,000 -&gt; 00:00:09,000 &lt;b&gt;&amp;amp;"
    ]


def test_long_recordings_grow_their_hours() -> None:
    assert formats.vtt_time(360_000.5) == "100:00:00.500"
    assert formats.vtt_time(3599.9996) == "01:00:00.000"


def test_empty_transcripts_are_valid() -> None:
    assert formats.to_vtt(transcript_of()) == "WEBVTT\n"
    assert formats.to_srt(transcript_of()) == formats.to_text(transcript_of()) == ""
