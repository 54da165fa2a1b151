"""The same words are the same, however they were written."""

import pytest

from benchmarks.words import plain


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("One, two: THREE!", "one two three"),
        ("seventy-eight", "seventy eight"),
        ("We'd better not.", "we'd better not"),
        ("A line.\nAnother line.\r\n", "a line another line"),
        (" \n", ""),
    ],
)
def test_plain(text: str, words: str) -> None:
    assert plain(text) == words
