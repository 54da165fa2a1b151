"""The arithmetic of the engine's benchmarks, on figures that are plain to see."""

from typing import Any, cast

import pytest

from benchmarks import company, engine, shortcuts
from benchmarks.engine import Side


def test_words_that_are_wrong_count_in_all_words_together() -> None:
    said = ["The lake is deep.", "One two three four five six"]

    assert engine.error_rate(said, ["the lake is deep", "one two three four five six"]) == 0.0
    assert engine.error_rate(said, ["the lake was deep", "one two three four five six"]) == 10.0
    assert engine.error_rate(said, ["", "one two three four five six"]) == 40.0


def test_a_row_counts_the_median_of_the_rounds() -> None:
    side = Side("seed", cast("Any", None), load_s=1.5, seconds=[9.0, 2.0, 4.0])

    assert engine.row(side, 40.0, 12.345, 2.0).split() == [
        *("seed", "1.5", "4.00", "2.00", "9.00", "10.0", "12.3", "2.00x")
    ]
    assert engine.row(side, 40.0, None, None).split()[-1] == "10.0"


def test_texts_that_differ_are_counted() -> None:
    assert shortcuts.differing(["a", "b", "c"], ["a", "x", "y"]) == 2
    with pytest.raises(ValueError, match="shorter"):
        shortcuts.differing(["a"], [])


def test_company_is_measured_by_the_ninety_fifth_percentile() -> None:
    alone = [1.0] * 19 + [50.0]
    beside = [1.0] * 18 + [3.0, 99.0]

    assert company.ratio(alone, beside) == 3.0
    assert company.row("alone", alone).split()[:6] == ["alone", "p50", "1.00", "s", "p95", "1.00"]
