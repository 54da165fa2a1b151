"""Amounts as people read them, in columns."""

import json

import pytest

from deploy.admin import tables


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (3_599, "59 min 59 s"),
        (3_600, "1 h 0 min"),
        (93_600, "1 d 2 h"),
    ],
)
def test_seconds_in_their_two_largest_units(seconds: float | None, text: str) -> None:
    assert tables.amount(seconds) == text


def test_sizes_and_speeds() -> None:
    assert [tables.size(count) for count in (5, 2048, 5 * 2**20, 3 * 2**29)] == [
        "5 B",
        "2 KiB",
        "5 MiB",
        "1.5 GiB",
    ]
    assert [tables.times(factor) for factor in (None, 0.0, 3.04, 118.2)] == ["-", "-", "3.0 x", "118 x"]


def test_amounts_stand_to_the_right_and_names_to_the_left() -> None:
    assert tables.table(("NAME", "COUNT"), [("a", "7"), ("longer", "-")]) == (
        "NAME    COUNT\na           7\nlonger      -"
    )


def test_what_is_for_scripts_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    tables.show(True, {"a": [1, None]}, "for people")
    assert json.loads(capsys.readouterr().out) == {"a": [1, None]}


def test_a_watched_page_is_drawn_until_somebody_stops_it() -> None:
    drawn: list[int] = []

    def draw() -> None:
        drawn.append(1)
        if len(drawn) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tables.watch(0.0, draw)

    tables.watch(None, lambda: drawn.append(1))
    assert len(drawn) == 4
