"""From windows to a transcript: nothing is lost without a reason, nothing is out of order."""

import random
import unicodedata
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.transcript import Segment, Transcript, WindowResult, Word
from worker.engine.merge import assemble, window_result
from worker.engine.values import SAMPLE_RATE, DecodingOptions, Hypothesis, Utterance, Window

SOUND = np.zeros(30 * SAMPLE_RATE, dtype=np.int16)


def window(index: int = 0, start_s: float = 0.0, duration_s: float = 30.0, speech_s: float = 20.0) -> Window:
    return Window(index, start_s, SOUND[: int(duration_s * SAMPLE_RATE)], speech_s, DecodingOptions())


def said(
    text: str,
    start: float = 0.0,
    end: float = 5.0,
    avg_logprob: float = -0.2,
    words: tuple[Word, ...] | None = None,
) -> Utterance:
    return Utterance(start, end, text, (), avg_logprob, words)


def heard(*utterances: Utterance, **figures: float) -> Hypothesis:
    known = {"avg_logprob": -0.2, "compression_ratio": 1.3, "no_speech_prob": 0.01, "temperature": 0.0}
    return Hypothesis(tuple(utterances), "en", 0.9, **known | figures)


def result(index: int, *texts: str) -> WindowResult:
    """Window `index` of 30 s with the given texts, one second each."""
    utterances = [said(text, float(number), number + 1.0) for number, text in enumerate(texts)]
    return window_result(window(index, 30.0 * index), heard(*utterances))


def texts(outcome: WindowResult | Transcript) -> list[str]:
    return [segment.text for segment in outcome.segments]


def removed(outcome: WindowResult | Transcript) -> list[tuple[str, str]]:
    return [(span.text, span.reason) for span in outcome.suppressed]


def test_times_become_file_times_to_the_millisecond() -> None:
    merged = window_result(
        window(3, 90.1231), heard(said(" Good morning.", 0.0001, 2.5), said(" Bye now.", 2.5, 4))
    )

    assert [(s.id, s.start, s.end, s.text) for s in merged.segments] == [
        (0, 90.123, 92.623, "Good morning."),
        (1, 92.623, 94.123, "Bye now."),
    ]
    assert (merged.index, merged.start, merged.end) == (3, 90.123, 120.123)


def test_figures_language_and_time_spent_are_carried_over() -> None:
    hypothesis = replace(heard(said("Yes."), compression_ratio=1.1, temperature=0.4), inference_s=0.7)

    merged = window_result(window(), hypothesis)

    assert merged.language is not None
    assert (merged.language.code, merged.language.confidence, merged.inference_s) == ("en", 0.9, 0.7)
    segment = merged.segments[0]
    assert (segment.avg_logprob, segment.compression_ratio, segment.temperature) == (-0.2, 1.1, 0.4)
    assert segment.flags == ()


def test_decomposed_letters_are_composed() -> None:
    decomposed = unicodedata.normalize("NFD", "Mɛ́tɔ̀ àdwóá")

    (segment,) = window_result(
        window(), heard(said(decomposed, words=(Word(0, 1, decomposed, 0.9),)))
    ).segments

    assert segment.text == unicodedata.normalize("NFC", decomposed)
    assert segment.words is not None
    assert segment.words[0].text == segment.text


@pytest.mark.parametrize(
    ("no_speech_prob", "avg_logprob", "is_kept"),
    [(0.9, -0.5, True), (0.5, -1.5, True), (0.6, -1.5, True), (0.61, -1.01, False)],
)
def test_silence_needs_both_signs(no_speech_prob: float, avg_logprob: float, is_kept: bool) -> None:
    hypothesis = heard(
        said("Hm.", avg_logprob=avg_logprob), no_speech_prob=no_speech_prob, avg_logprob=avg_logprob
    )

    merged = window_result(window(), hypothesis)

    assert texts(merged) == (["Hm."] if is_kept else [])
    assert removed(merged) == ([] if is_kept else [("Hm.", "no_speech")])


def test_a_silent_window_has_no_say_in_the_language() -> None:
    assert window_result(window(), heard(said("Hm."), no_speech_prob=0.9, avg_logprob=-2.0)).language is None


def test_doubtful_text_is_kept_and_flagged() -> None:
    merged = window_result(
        window(), heard(said("Sure.", avg_logprob=-0.3), said("Mumble.", 5, 6, avg_logprob=-1.4))
    )

    assert [s.flags for s in merged.segments] == [(), ("low_confidence",)]


@pytest.mark.parametrize("text", ["Thank you.", " thank  YOU!", "Thanks for watching!", "you"])
def test_known_hallucinations_go_where_there_is_no_speech_and_only_there(text: str) -> None:
    assert removed(window_result(window(speech_s=0.2), heard(said(text)))) == [(text.strip(), "no_speech")]
    assert texts(window_result(window(speech_s=0.5), heard(said(text)))) == [text.strip()]


def test_weak_text_goes_where_there_is_no_speech_and_strong_text_stays() -> None:
    hypothesis = heard(said("Fire!", 0, 1, avg_logprob=-0.2), said("Mumble.", 1, 2, avg_logprob=-1.2))

    merged = window_result(window(speech_s=0.1), hypothesis)

    assert texts(merged) == ["Fire!"]
    assert removed(merged) == [("Mumble.", "no_speech")]


@pytest.mark.parametrize("text", ["", "  ", "...", " - ", "♪♪", "?!"])
def test_text_without_a_letter_vanishes_silently(text: str) -> None:
    merged = window_result(window(), heard(said(text)))

    assert (merged.segments, merged.suppressed) == ((), ())


@pytest.mark.parametrize(
    ("text", "kept", "gone"),
    [
        ("So it goes on and on and on and on and", "So it goes on and", "on and on and on and"),
        ("well no no no no", "well no", "no no no"),
        ("Thank you. Thank you! thank you", "Thank you.", "Thank you! thank you"),
        ("a b c d e f g h " * 3, "a b c d e f g h", "a b c d e f g h a b c d e f g h"),
        ("I see x y y y y x y y y y x y y y y", "I see x y y y y", "x y y y y x y y y y"),
        (
            "ご視聴ありがとうご視聴ありがとうご視聴ありがとう",
            "ご視聴ありがとう",
            "ご視聴ありがとうご視聴ありがとう",
        ),
    ],
)
def test_of_a_loop_the_first_round_stays(text: str, kept: str, gone: str) -> None:
    merged = window_result(window(), heard(said(text, 0, 20), compression_ratio=3.0))

    assert texts(merged) == [kept]
    assert removed(merged) == [(gone, "repetition")]
    assert merged.segments[0].flags == ("repetition",)
    assert merged.segments[0].end <= merged.suppressed[0].start


@pytest.mark.parametrize(
    "text", ["no no no", "well no no no yes", "to and fro, to and fro", "a plain sentence"]
)
def test_a_window_that_compresses_well_without_a_loop_is_kept_and_flagged(text: str) -> None:
    merged = window_result(window(), heard(said(text), compression_ratio=3.0))

    assert texts(merged) == [text]
    assert removed(merged) == []
    assert merged.segments[0].flags == ("repetition",)


def test_a_loop_is_left_alone_where_the_text_compresses_normally() -> None:
    assert texts(window_result(window(), heard(said("no no no no no no")))) == ["no no no no no no"]


def test_a_loop_over_several_utterances_keeps_the_first_of_them() -> None:
    looped = [said(" I am here.", float(i), i + 1.0) for i in range(4)]

    merged = window_result(window(), heard(said("Hello.", 0, 0.5), *looped, compression_ratio=2.9))

    assert texts(merged) == ["Hello.", "I am here."]
    assert removed(merged) == [("I am here.", "repetition")] * 3
    assert [s.flags for s in merged.segments] == [(), ("repetition",)]


def test_no_half_of_a_cut_is_left_without_a_letter() -> None:
    hypothesis = heard(said("la", 0, 1), said("... la ... la ... la", 1, 4), compression_ratio=3.0)

    assert texts(window_result(window(), hypothesis)) == ["la"]


def test_a_loop_is_cut_at_its_words_where_they_have_times() -> None:
    spoken = ["go", *["on"] * 5]
    words = tuple(Word(i / 2, i / 2 + 0.5, word, 0.9) for i, word in enumerate(spoken))

    merged = window_result(window(), heard(said(" ".join(spoken), 0, 6, words=words), compression_ratio=3.0))

    (segment,) = merged.segments
    assert segment.words == words[:2]
    assert (segment.end, merged.suppressed[0].start, merged.suppressed[0].end) == (1.0, 1.0, 6.0)


def test_times_beyond_the_window_are_clipped() -> None:
    merged = window_result(
        window(0, 10.0, 5.0), heard(said("a", -1, 4), said("b", 4, 99), said("c", 99, 100))
    )

    assert [(s.start, s.end) for s in merged.segments] == [(10.0, 14.0), (14.0, 14.999), (14.999, 15.0)]


def test_segments_of_overlapping_windows_do_not_overlap() -> None:
    first = window_result(window(0, 0.0, 30.0), heard(said("one", 20, 30)))
    second = window_result(window(1, 29.0, 30.0), heard(said("two", 0, 3)))

    assembled = assemble([second, first], 60.0)

    assert [(s.id, s.start, s.end, s.text) for s in assembled.segments] == [
        (0, 20.0, 29.0, "one"),
        (1, 29.0, 32.0, "two"),
    ]


def test_a_sentence_said_in_three_windows_in_a_row_is_kept_once() -> None:
    assembled = assemble(
        [result(0, "Good."), *(result(i, "I am here.") for i in (1, 2, 3)), result(4, "Bye.")], 150.0
    )

    assert texts(assembled) == ["Good.", "I am here.", "Bye."]
    assert assembled.text == "Good. I am here. Bye."
    assert removed(assembled) == [("I am here.", "repetition")] * 2
    assert [s.id for s in assembled.segments] == [0, 1, 2]
    assert assembled.segments[1].flags == ("repetition",)


@pytest.mark.parametrize("spoken", [["I am here."] * 2, ["No."] * 3, ["I am.", "You are."] * 3])
def test_what_people_do_say_twice_stays(spoken: list[str]) -> None:
    assert texts(assemble([result(0, *spoken)], 30.0)) == spoken


def test_an_empty_file_has_an_empty_transcript() -> None:
    empty = assemble([], 12.5, partial=True)

    assert (empty.text, empty.segments, empty.duration_s, empty.partial) == ("", (), 12.5, True)


seconds = st.floats(-5, 40) | st.sampled_from([0.0, 30.0, float("nan"), float("inf")])
phrases = st.lists(
    st.sampled_from(["on", "and on", "Thank you.", "ɛ", "no", "...", "视听", "a b c", "♪", "Mɔ́"]), max_size=12
).map(" ".join)
spoken_words = st.lists(st.builds(Word, seconds, seconds, phrases, st.just(0.5)), max_size=4).map(tuple)
utterances = st.builds(
    Utterance, seconds, seconds, phrases, st.just(()), st.floats(-3, 0), st.none() | spoken_words
)
hypotheses = st.builds(
    Hypothesis,
    st.lists(utterances, max_size=6).map(tuple),
    st.sampled_from(["en", "tw", None]),
    st.none() | st.floats(0, 1),
    st.floats(-3, 0),
    st.floats(0.5, 5),
    st.floats(0, 1),
    st.just(0.0),
)
windows = st.lists(
    st.tuples(st.floats(0.01, 30), st.floats(0, 2), st.floats(0, 3), hypotheses), min_size=1, max_size=6
)


def letters(*spoken: str) -> list[str]:
    """Every letter and digit in order, whatever stands between."""
    joined = unicodedata.normalize("NFC", " ".join(spoken))
    return [character for character in joined if character.isalnum()]


def results_of(pieces: list) -> list[WindowResult]:
    results, start_s = [], 0.0
    for index, (duration_s, gap_s, speech_s, hypothesis) in enumerate(pieces):
        results.append(window_result(window(index, start_s, duration_s, speech_s), hypothesis))
        start_s += duration_s + gap_s
    return results


@settings(deadline=None)
@given(st.floats(0, 5000), st.floats(0.01, 30), st.floats(0, 1), hypotheses)
def test_every_letter_is_kept_or_recorded_once(
    start_s: float, duration_s: float, speech_s: float, said: Hypothesis
) -> None:
    merged = window_result(window(0, start_s, duration_s, speech_s), said)

    spans = sorted([*merged.segments, *merged.suppressed], key=lambda span: span.start)
    assert letters(*(span.text for span in spans)) == letters(*(u.text for u in said.utterances))
    assert all(span.text == span.text.strip() and letters(span.text) for span in spans)
    assert {span.reason for span in merged.suppressed} <= {"no_speech", "repetition"}
    assert WindowResult.from_json(merged.to_json()) == merged


@settings(deadline=None)
@given(st.floats(0, 5000), st.floats(0.01, 30), hypotheses)
def test_spans_of_a_window_lie_in_it_in_order(start_s: float, duration_s: float, said: Hypothesis) -> None:
    merged = window_result(window(0, start_s, duration_s), said)

    spans = sorted([*merged.segments, *merged.suppressed], key=lambda span: span.start)
    bounds = [merged.start, *(t for span in spans for t in (span.start, span.end)), merged.end + 0.001]
    assert bounds == sorted(bounds)
    assert all(span.start < span.end and round(span.start, 3) == span.start for span in spans)
    assert all(words_lie_in(segment) for segment in merged.segments)


def words_lie_in(segment: Segment) -> bool:
    times = [t for word in segment.words or () for t in (word.start, word.end)]
    is_crowded = len(segment.words or ()) > (segment.end - segment.start) * 1000
    return times == sorted(times) and (is_crowded or all(segment.start <= t <= segment.end for t in times))


@settings(max_examples=40, deadline=None)
@given(windows, st.randoms(use_true_random=False))
def test_the_order_of_results_does_not_matter(pieces: list, chance: random.Random) -> None:
    results = results_of(pieces)
    shuffled = list(results)
    chance.shuffle(shuffled)

    assert assemble(shuffled, 200.0) == assemble(results, 200.0)


@settings(max_examples=40, deadline=None)
@given(windows)
def test_assembling_loses_nothing_and_leaves_segments_in_order(pieces: list) -> None:
    results = results_of(pieces)

    assembled = assemble(results, 200.0)

    before = [span.text for r in results for span in (*r.segments, *r.suppressed)]
    assert sorted([*texts(assembled), *(text for text, _ in removed(assembled))]) == sorted(before)
    times = [t for segment in assembled.segments for t in (segment.start, segment.end)]
    assert times == sorted(times)
    assert all(segment.start < segment.end for segment in assembled.segments)
    assert [segment.id for segment in assembled.segments] == list(range(len(assembled.segments)))
    assert assembled.text == " ".join(texts(assembled))
