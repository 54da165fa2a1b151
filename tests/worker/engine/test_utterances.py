from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from worker.engine.utterances import open_tail_s, split_at_timestamps, split_words

TIMESTAMPS = range(1000, 2501)
PIECES = (
    *(" He", " said", ":", ' "', "Hel", "lo", ",", " co", "-", "op"),
    *(" isn", "'", "t", " (", "so", ")", ".", '"', " ?"),
)


def at(seconds: float) -> int:
    return TIMESTAMPS.start + round(seconds / 0.02)


def stretches(tokens: Sequence[int], duration_s: float = 8.0) -> list[tuple[float, float, tuple[int, ...]]]:
    found = split_at_timestamps(tokens, TIMESTAMPS, duration_s, is_text=lambda token: token < 900)
    return [(stretch.start, stretch.end, stretch.tokens) for stretch in found]


def words(numbers: Sequence[int], language: str | None = "en") -> list[str]:
    pieces = split_words(numbers, language, lambda tokens: "".join(PIECES[token] for token in tokens))
    return [piece.text for piece in pieces]


def test_pairs_of_timestamps_enclose_text() -> None:
    tokens = [at(0.5), 1, 2, at(2), at(3), 3, at(4)]

    assert stretches(tokens) == [(0.5, 2.0, (1, 2)), (3.0, 4.0, (3,))]


def test_missing_times_are_the_neighbours_or_the_windows() -> None:
    assert stretches([1, at(2), 2]) == [(0.0, 2.0, (1,)), (2.0, 8.0, (2,))]
    assert stretches([1, 2]) == [(0.0, 8.0, (1, 2))]
    assert stretches([]) == []


def test_times_beyond_the_window_are_clipped() -> None:
    assert stretches([at(1), 1, at(12), at(13), 2, at(14)]) == [(1.0, 8.0, (1,)), (8.0, 8.0, (2,))]


def test_first_token_of_each_stretch_is_known() -> None:
    found = split_at_timestamps(
        [at(0), 1, 2, at(1), at(1), 3], TIMESTAMPS, 8.0, is_text=lambda token: token < 900
    )

    assert [stretch.first for stretch in found] == [1, 5]


@given(st.lists(st.integers(0, 2600)), st.floats(0, 30))
def test_whatever_a_model_writes_times_are_in_order_and_text_is_kept(
    tokens: list[int], duration_s: float
) -> None:
    found = stretches(tokens, duration_s)

    edges = [edge for start, end, _ in found for edge in (start, end)]
    assert edges == sorted(edges)
    assert all(0 <= edge <= round(duration_s, 2) for edge in edges)
    assert [token for _, _, text in found for token in text] == [token for token in tokens if token < 900]


def test_open_timestamp_at_the_end_tells_where_the_rest_begins() -> None:
    assert open_tail_s([at(0), 1, at(2), at(2.5)], TIMESTAMPS) == 2.5
    assert open_tail_s([at(0), 1, at(2)], TIMESTAMPS) is None
    assert open_tail_s([at(0), at(0)], TIMESTAMPS) is None


def test_words_keep_their_punctuation() -> None:
    assert words(range(len(PIECES))) == [" He", " said:", ' "Hello,', " co-op", " isn't", ' (so)." ?']


def test_spaceless_languages_are_cut_by_character() -> None:
    text = ["今", "日", "は", "、", "「", "晴", "れ", "」"]
    pieces = split_words(range(len(text)), "ja", lambda tokens: "".join(text[token] for token in tokens))

    assert [piece.text for piece in pieces] == ["今", "日", "は、", "「", "晴", "れ", "」"]


def test_tokens_of_one_character_stay_together() -> None:
    parts = [b"\xe4", b"\xbb", b"\x8a", b" a"]
    pieces = split_words(
        range(4), "zh", lambda tokens: b"".join(parts[token] for token in tokens).decode(errors="replace")
    )

    assert [(piece.text, piece.tokens) for piece in pieces] == [("今", (0, 1, 2)), (" a", (3,))]
