"""From answers to figures, on answers whose figures are plain to see."""

import json
import math
from dataclasses import replace

import pytest

from benchmarks.bento.clients import Answer, Reply, Round
from benchmarks.bento.figures import Figures, figures, median, percentile, together, words
from benchmarks.bento.recordings import Recording
from benchmarks.bento.report import Comparison


def answer(
    seconds: float, took_s: float, reply: Reply, *refused: str, text: str = "one two three four"
) -> Answer:
    return Answer(Recording("talk.wav", seconds, text, b""), reply, refused, took_s)


GOOD = Reply("One, two three four!")
MIXED = Round(
    (
        answer(10, 1.0, GOOD),
        answer(20, 3.0, GOOD, "429", "429"),
        answer(100, 2.0, Reply("one two")),
        answer(5, 0.1, Reply(None, "429")),
        answer(5, 0.1, Reply(None, "connection cut")),
    ),
    took_s=10.0,
)


def test_rates_count_only_what_got_a_transcript() -> None:
    found = figures(MIXED, hears_s=math.inf, peak_bytes=7)

    assert (found.transcripts, found.recordings) == (3, 5)
    assert (found.files_per_s, found.audio_per_s) == (0.3, 13.0)
    assert (found.p50_s, found.p95_s, found.longest_s) == (2.0, 3.0, 3.0)
    assert found.peak_bytes == 7


def test_audio_that_is_not_listened_to_is_not_counted() -> None:
    assert figures(MIXED, hears_s=30.0, peak_bytes=0).audio_per_s == 6.0


def test_failures_and_refusals_are_counted_by_kind() -> None:
    found = figures(MIXED, hears_s=math.inf, peak_bytes=0)

    assert found.failures == {"429": 1, "connection cut": 1}
    assert found.refusals == {"429": 2}


def test_words_are_counted_apart_for_short_and_long_recordings() -> None:
    found = figures(MIXED, hears_s=math.inf, peak_bytes=0)

    assert found.short is not None
    assert (found.short.recordings, found.short.error_rate, found.short.missing) == (2, 0.0, 0.0)
    assert found.long is not None
    assert (found.long.recordings, found.long.error_rate, found.long.missing) == (1, 0.5, 0.5)


def test_a_wrong_word_is_not_a_missing_one() -> None:
    found = words([answer(10, 1.0, Reply("one two tree four"))])

    assert found is not None
    assert (found.error_rate, found.missing) == (0.25, 0.0)


def test_an_empty_transcript_lacks_its_words() -> None:
    found = words([answer(10, 1.0, Reply(""))])

    assert found is not None
    assert (found.error_rate, found.missing) == (1.0, 0.75)


def test_none_answered_has_no_words_and_no_latency() -> None:
    found = figures(Round((answer(5, 0.1, Reply(None, "429")),), 1.0), math.inf, 0)

    assert (found.short, found.long) == (None, None)
    assert math.isnan(found.p50_s)


@pytest.mark.parametrize(("percent", "value"), [(50, 10), (95, 19), (99, 20), (100, 20), (1, 1)])
def test_percentile_is_one_of_the_values(percent: float, value: float) -> None:
    assert percentile([float(number) for number in range(20, 0, -1)], percent) == value


def of_round(**changes: object) -> Figures:
    return replace(figures(MIXED, math.inf, 0), **changes)  # type: ignore[arg-type]


def test_the_median_leaves_out_rounds_without_the_figure() -> None:
    rounds = [of_round(p50_s=value) for value in (3.0, math.nan, 1.0, 2.0)]

    assert median(rounds, lambda one: one.p50_s) == 2.0
    assert math.isnan(median([of_round(p50_s=math.nan)], lambda one: one.p50_s))
    assert math.isnan(median([of_round(long=None)], lambda one: one.long.missing if one.long else None))


def test_counts_of_rounds_are_added() -> None:
    assert together([{"429": 2}, {}, {"429": 1, "504": 1}]) == {"429": 3, "504": 1}


class TestReport:
    comparison = Comparison(
        about={"Load": "two rounds"},
        ours=("Ananse", "jobs"),
        rounds={
            ("BentoML", "once"): [of_round(files_per_s=0.5), of_round(files_per_s=0.1)],
            ("BentoML", "none came"): [of_round(transcripts=0, p50_s=math.nan, long=None)],
            ("Ananse", "jobs"): [of_round(files_per_s=0.6)],
        },
        killed={("BentoML", "the server; once"): of_round(failures={"connection cut": 2})},
        no_audio={"BentoML": '200 {"error": "a|b"}\n'},
        is_quick=True,
    )

    def test_ours_is_set_against_each_of_the_others(self) -> None:
        rows = [line for line in self.comparison.as_text().splitlines() if "×" in line and "BentoML" in line]

        assert any("| BentoML | once | × 2.00 |" in row for row in rows)
        assert not any("× nan" in row for row in rows)

    def test_every_row_has_the_cells_of_its_header(self) -> None:
        text = self.comparison.as_text().replace("\\|", "")

        for table in (block for block in text.split("\n\n") if block.startswith("| ")):
            assert len({line.count("|") for line in table.splitlines()}) == 1, table

    def test_what_failed_is_named(self) -> None:
        text = self.comparison.as_text()

        assert "2 × connection cut" in text
        assert "no good for figures" in text

    def test_json_holds_every_round_and_no_nan(self) -> None:
        content = json.loads(self.comparison.as_json(), parse_constant=pytest.fail)

        assert [len(one["rounds"]) for one in content["rounds"]] == [2, 1, 1]
        assert content["rounds"][1]["rounds"][0]["p50_s"] is None
