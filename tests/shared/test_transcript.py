"""Windows become one transcript, whatever order they come in, and it survives being written down."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.transcript import (
    Language,
    Segment,
    Suppressed,
    Transcript,
    WindowResult,
    Word,
    main_language,
)


def segment(text: str, start: float = 0.0) -> Segment:
    return Segment(0, start, start + 1.0, text, -0.2, 1.1, 0.01, 0.0)


def result(index: int, *texts: str, language: Language | None = None, length_s: float = 10.0) -> WindowResult:
    start = index * 10.0
    segments = tuple(segment(text, start) for text in texts)
    return WindowResult(index, start, start + length_s, segments, language=language)


FULL = WindowResult(
    3,
    30.0,
    40.0,
    (
        Segment(
            0, 30.5, 32.0, "Mɛda wo ase.", -0.3, 1.4, 0.02, 0.2, (Word(30.5, 31.0, "Mɛda", 0.9),), ("low",)
        ),
    ),
    (Suppressed(33.0, 34.0, "thanks for watching", "hallucination"),),
    Language("tw", 0.75),
    1.5,
)


def test_a_window_survives_being_written_down() -> None:
    assert WindowResult.from_json(FULL.to_json()) == FULL


def test_a_transcript_survives_being_written_down() -> None:
    transcript = Transcript(
        "Mɛda wo ase.",
        Language("tw", None),
        40.0,
        FULL.segments,
        FULL.suppressed,
        ("clipping",),
        True,
        {"name": "m", "revision": None},
    )

    assert Transcript.from_json(transcript.to_json()) == transcript


@given(st.permutations(range(5)))
def test_the_order_of_coming_does_not_matter(order: list[int]) -> None:
    transcript = Transcript.of([result(index, f"a{index}", f"b{index}") for index in order], 50.0)

    assert transcript.text == "a0 b0 a1 b1 a2 b2 a3 b3 a4 b4"
    assert [segment.id for segment in transcript.segments] == list(range(10))
    assert transcript.duration_s == 50.0


def test_what_was_suppressed_stays_in_sight() -> None:
    transcript = Transcript.of([FULL, result(0, "Good morning.")], 40.0, partial=True)

    assert transcript.suppressed == FULL.suppressed
    assert transcript.partial


def test_empty_segments_leave_no_gaps_in_the_text() -> None:
    assert Transcript.of([result(0, " Good ", "  ", "morning.")], 10.0).text == "Good morning."


def test_nothing_said_is_an_empty_transcript() -> None:
    transcript = Transcript.of([], 10.0)

    assert (transcript.text, transcript.segments, transcript.language) == ("", (), None)


def test_the_language_is_that_of_most_speech() -> None:
    results = [
        result(0, language=Language("en", 0.9), length_s=4.0),
        result(1, language=Language("tw", 0.5), length_s=3.0),
        result(2, language=Language("tw", 0.8), length_s=2.0),
        result(3),
    ]

    assert main_language(results) == Language("tw", pytest.approx(0.65))


def test_a_language_that_was_asked_for_has_no_confidence() -> None:
    assert main_language([result(0, language=Language("tw"))]) == Language("tw", None)
    assert main_language([result(0)]) is None
