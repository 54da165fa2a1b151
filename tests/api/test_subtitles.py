"""Laws of shaped subtitles: all of the text, in lines and at times that can be read, in every script; and
what subtitle libraries make of it."""

import re
import unicodedata
from itertools import pairwise

import pysubs2
import pytest
import srt
import webvtt
from hypothesis import given
from hypothesis import strategies as st

from api.formats import to_srt, to_text, to_vtt
from api.subtitles import Cue, Shaping, cues_of, length
from shared.transcript import Segment, Transcript, Word, joined

ENGLISH = (
    "The omelet should rest for at least an hour, while you set the table. Then call the twins, for they are "
    "hungry; and do not forget the dog!"
)
JAPANESE = (
    "今日は天気がいいので、公園を散歩しました。それから、友達と一緒に「おいしい」お昼ご飯を食べました。"
)
THAI = "วันนี้อากาศดีมากเราจึงไปเดินเล่นที่สวนสาธารณะแล้วก็กินข้าวกับเพื่อน"
BURMESE = "မြန်မာစာသည်လှပသောစာဖြစ်ပြီးလူများစွာကဖတ်ရှုကြသည်"
MIXED = "彼はPython 3.11とRedisを使って、新しいサービスを作りました。It works."


def segment(start: float, end: float, text: str, words: tuple[Word, ...] | None = None) -> Segment:
    return Segment(0, start, end, text, -0.1, 1.0, 0.0, 0.0, words)


def transcript(*segments: Segment) -> Transcript:
    return Transcript("", None, 60.0, segments)


def squeezed(text: str) -> str:
    return re.sub(r"\s+", "", text)


_WORDS = st.text(st.sampled_from("abcdefgh,.é今日は、。ที่"), min_size=1, max_size=12)
_TEXTS = st.lists(_WORDS, min_size=1, max_size=30).map(" ".join)
_SHAPES = st.builds(
    Shaping,
    st.one_of(st.none(), st.integers(8, 50)),
    st.one_of(st.none(), st.integers(1, 4)),
    st.one_of(st.none(), st.floats(5, 30)),
    st.floats(0, 0.5),
)


@st.composite
def transcripts(draw: st.DrawFn) -> Transcript:
    times = sorted(draw(st.lists(st.integers(0, 600_000), min_size=2, max_size=12, unique=True)))
    pairs = zip(times[::2], times[1::2], strict=False)
    return transcript(*(segment(start / 1000, end / 1000, draw(_TEXTS)) for start, end in pairs))


@given(transcripts(), _SHAPES)
def test_every_character_is_there_once_and_in_order(given: Transcript, shaping: Shaping) -> None:
    cues = cues_of(given, shaping)

    assert squeezed("".join(cue.text for cue in cues)) == squeezed("".join(s.text for s in given.segments))


@given(transcripts(), _SHAPES)
def test_cues_last_and_follow_one_another(given: Transcript, shaping: Shaping) -> None:
    cues = cues_of(given, shaping)

    assert all(cue.end > cue.start for cue in cues)
    assert [cue.start for cue in cues] == sorted(cue.start for cue in cues)
    for cue, after in pairwise(cues):
        assert cue.end <= max(after.start - shaping.min_gap_s, cue.start + 0.001) + 1e-9


@given(transcripts(), st.integers(8, 50), st.integers(1, 4))
def test_lines_are_as_long_and_as_many_as_allowed(given: Transcript, chars: int, lines: int) -> None:
    for cue in cues_of(given, Shaping(chars, lines)):
        assert len(cue.lines) <= lines
        for line in cue.text.split("\n"):
            # A single word that is longer than a line stays whole.
            assert length(line) <= chars or len(re.split(r"\s", line)) == 1


@pytest.mark.parametrize("text", [ENGLISH, JAPANESE, THAI, MIXED])
def test_no_space_is_made_up_or_lost(text: str) -> None:
    for cue in cues_of(transcript(segment(0, 20, text)), Shaping(12, 2)):
        for line in cue.text.split("\n"):
            assert line in text


@pytest.mark.parametrize("text", [JAPANESE, THAI, BURMESE, MIXED])
def test_marks_stay_with_what_they_belong_to(text: str) -> None:
    for width in range(8, 30):
        for cue in cues_of(transcript(segment(0, 20, text)), Shaping(width, 1)):
            assert cue.text[0] not in "、。」"
            assert not unicodedata.category(cue.text[0]).startswith("M")


def test_cues_end_where_sentences_do() -> None:
    cues = cues_of(transcript(segment(0, 9, ENGLISH)), Shaping(42, 2))

    assert [cue.text.replace("\n", " ") for cue in cues] == [
        "The omelet should rest for at least an hour, while you set the table.",
        "Then call the twins, for they are hungry; and do not forget the dog!",
    ]


def test_lines_are_of_one_length() -> None:
    (cue,) = cues_of(
        transcript(segment(0, 9, "The moth problem began when he left the lid off")), Shaping(42, 2)
    )

    assert cue.text == "The moth problem began\nwhen he left the lid off"


def test_times_are_those_of_the_words() -> None:
    words = (Word(1.0, 1.5, "Good", 0.9), Word(1.5, 2.0, "morning.", 0.9), Word(4.0, 4.5, "Stories", 0.9))
    cues = cues_of(transcript(segment(1.0, 5.0, "Good morning. Stories", words)), Shaping(13, 1))

    assert [(cue.start, cue.end, cue.text) for cue in cues] == [
        (1.0, 2.0, "Good morning."),
        (4.0, 4.5, "Stories"),
    ]


def test_a_cue_stays_until_it_is_read_if_the_next_lets_it() -> None:
    cues = cues_of(
        transcript(segment(0, 1, "a" * 30), segment(2, 3, "b" * 30)), Shaping(max_cps=10, min_gap_s=0.1)
    )

    assert [(cue.start, cue.end) for cue in cues] == [(0, 1.9), (2, 5.0)]


def test_words_are_joined_as_their_script_does() -> None:
    assert joined(["今日は、", " いい天気。"]) == "今日は、いい天気。"
    assert joined(["Good", "morning."]) == "Good morning."
    assert joined(["使って", "Python", "を"]) == "使って Python を"
    assert joined(["", " ", "x"]) == "x"
    assert joined(["𠮷野家に", "𠀋夫と"]) == "𠮷野家に𠀋夫と"


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("今日は天気が\nいいので、", "今日は天気がいいので、"),
        ("今天天气很好，\r\n我们去散步。", "今天天气很好，我们去散步。"),
        ("วันนี้อากาศ\nดีมาก", "วันนี้อากาศดีมาก"),
        ("오늘은 날씨가\n좋아서", "오늘은 날씨가 좋아서"),
        ("Good\nmorning", "Good morning"),
        ("使って\nRedis", "使って Redis"),
    ],
)
def test_line_breaks_become_what_their_script_has_between_words(text: str, whole: str) -> None:
    given = transcript(segment(0, 5, text))

    assert [one.content for one in srt.parse(to_srt(given))] == [whole]
    assert [one.text for one in webvtt.from_string(to_vtt(given))] == [whole]
    assert to_text(given) == f"{whole}\n"


@pytest.mark.parametrize(
    ("text", "width"),
    [(ENGLISH, 42), (THAI, 42), (JAPANESE, 16), ("오늘은 날씨가 좋아서 공원을 산책했습니다", 16)],
)
def test_lines_are_as_long_as_is_usual_for_their_script(text: str, width: int) -> None:
    lengths = [
        length(line)
        for cue in cues_of(transcript(segment(0, 20, text)), Shaping(max_lines=2))
        for line in cue.text.split("\n")
    ]

    assert width / 2 < max(lengths) <= width


@given(transcripts(), _SHAPES)
def test_libraries_read_what_was_written(given: Transcript, shaping: Shaping) -> None:
    cues = cues_of(given, shaping)
    written_srt, written_vtt = to_srt(given, shaping), to_vtt(given, shaping)

    for read in (
        [(one.start.total_seconds(), one.end.total_seconds(), one.content) for one in srt.parse(written_srt)],
        [(_seconds(one.start), _seconds(one.end), one.text) for one in webvtt.from_string(written_vtt)],
        _by_pysubs2(written_srt, "srt"),
        _by_pysubs2(written_vtt, "vtt"),
    ):
        assert [text for _, _, text in read] == [cue.text for cue in cues]
        for (start, end, _), cue in zip(read, cues, strict=True):
            assert abs(start - cue.start) < 0.00051
            assert abs(end - cue.end) < 0.00051


def _by_pysubs2(text: str, format: str) -> list[tuple[float, float, str]]:
    subtitles = pysubs2.SSAFile.from_string(text, format_=format)
    return [(one.start / 1000, one.end / 1000, one.plaintext) for one in subtitles]


def _seconds(clock: str) -> float:
    hours, minutes, seconds = clock.split(":")
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)


def test_word_cues_are_read_as_plain_text_and_hold_their_times() -> None:
    words = (Word(1.0, 1.5, "Good", 0.9), Word(1.5, 2.0, "<morning>", 0.9), Word(2.0, 2.5, "Kofi", 0.9))
    text = to_vtt(transcript(segment(1.0, 2.5, "Good <morning> Kofi", words)), word_cues=True)

    assert text.splitlines()[3] == ("Good <00:00:01.500>&lt;morning&gt; <00:00:02.000>Kofi")
    assert webvtt.from_string(text)[0].text.replace("&lt;", "<").replace("&gt;", ">") == "Good <morning> Kofi"


def test_without_a_wish_a_segment_is_a_cue() -> None:
    (cue,) = cues_of(transcript(segment(1, 2, ENGLISH)), Shaping())

    assert cue == Cue(1, 2, cue.lines)
    assert cue.text == ENGLISH
