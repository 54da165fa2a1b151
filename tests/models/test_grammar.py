"""The grammar: sentences a synthesiser reads as they are written, and lists that share none."""

import random
import re
from pathlib import Path

import pytest

from models.training.grammar import FOLDER, HANDWRITTEN, Grammar, number, write_lists

WRITTEN_OUT = re.compile(r"[A-Z][A-Za-z' ,\-]*[.?!]")


@pytest.mark.parametrize(
    ("figure", "words"),
    [
        (0, "zero"),
        (21, "twenty-one"),
        (100, "one hundred"),
        (999, "nine hundred and ninety-nine"),
        (7013, "seven thousand thirteen"),
        (40_000_000, "forty million"),
    ],
)
def test_numbers_are_written_as_they_are_said(figure: int, words: str) -> None:
    assert number(figure) == words


def test_every_pattern_makes_sentences_of_words_alone() -> None:
    grammar, rng = Grammar(), random.Random(1)
    sentences = [grammar.of(pattern, rng) for file in grammar.patterns.values() for pattern in file]

    assert [sentence for sentence in sentences if not WRITTEN_OUT.fullmatch(sentence)] == []


def test_an_article_fits_its_word(tmp_path: Path) -> None:
    (tmp_path / "slots.txt").write_text("thing: [apple|hour|union|one|box]\n")
    for name in ("nouns", "verbs", "verbs_alone", "adjectives", "adverbs"):
        (tmp_path / f"{name}.txt").touch()
    (tmp_path / "some.txt").write_text("Take a {thing}.\n")
    grammar, rng = Grammar(tmp_path), random.Random(1)

    assert {grammar.sentence(rng) for _ in range(100)} == {
        "Take an apple.",
        "Take an hour.",
        "Take a union.",
        "Take a one.",
        "Take a box.",
    }


def test_no_sentence_is_learned_and_tested(tmp_path: Path) -> None:
    write_lists(tmp_path, seed=5, train=3000, held_out=40)
    lists = {path.stem: path.read_text().splitlines() for path in tmp_path.glob("*.txt")}
    lists["handwritten"] = HANDWRITTEN.read_text().splitlines()
    sentences = [sentence for each in lists.values() for sentence in each]

    domain = {f"domain-{file}": 40 for file in Grammar().patterns}

    assert {name: len(each) for name, each in lists.items()} == {
        "samples": 160,
        "voices": 120,
        "train": 3000,
        "handwritten": 60,
    } | domain
    assert len(set(sentences)) == len(sentences)


def test_the_same_seed_makes_the_same_lists(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write_lists(tmp_path / folder, seed=5, train=50, held_out=5)

    assert (tmp_path / "a" / "train.txt").read_text() == (tmp_path / "b" / "train.txt").read_text()


def test_word_lists_name_every_form() -> None:
    """A line of too few forms would put another word's form in its place."""
    for name, forms in (
        ("verbs", {5}),
        ("verbs_alone", {5}),
        ("nouns", {1, 2}),
        ("adjectives", {1, 3}),
        ("adverbs", {1}),
    ):
        lines = (FOLDER / f"{name}.txt").read_text().splitlines()
        assert [line for line in lines if line and len(line.split()) not in forms] == []
