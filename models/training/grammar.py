"""Sentences to learn from and to be tested on: a grammar of everyday English, expanded.

`text/` holds it. A line of a pattern file is one pattern: `[a|b|]` picks an alternative and may nest,
`{slot}` picks a line of the slot. Slots are the word lists, the rules of `slots.txt` (`name: pattern`, one
alternative a line) and the numbers made here. Numbers are always spelled out, so that what is written is
what is heard.
"""

import random
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

FOLDER = Path(__file__).parent / "text"
HANDWRITTEN = FOLDER / "handwritten.txt"
_NOT_PATTERNS = {"slots", "nouns", "verbs", "verbs_alone", "adjectives", "adverbs", "handwritten"}
_FREE_FRAMES = {"frames", "lexicon"}
"""Files whose patterns take any word: good to learn from, but nobody would say what comes out."""

DOMAIN = "domain-"
"""How the names of the test lists of single pattern files begin."""
MAX_WORDS = 20
SAMPLES = 160
_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_SLOT = re.compile(r"\{(\w+)\}")
_ONES = """
    zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen
    sixteen seventeen eighteen nineteen
""".split()
_TENS = ["_", "_", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_ORDINALS = """
    first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth
    fourteenth fifteenth sixteenth seventeenth eighteenth nineteenth twentieth twenty-first
    twenty-second twenty-third twenty-fourth twenty-fifth twenty-sixth twenty-seventh twenty-eighth
    twenty-ninth thirtieth thirty-first
""".split()


class Grammar:
    """Patterns by file, and what their slots may be."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self.slots: dict[str, list[str]] = defaultdict(list)
        for line in _lines(folder / "slots.txt"):
            name, pattern = line.split(": ", 1)
            self.slots[name].append(pattern)
        self._add_forms(folder / "nouns.txt", ("noun", "nouns"))
        verb_forms = ("verb", "verbs", "verb_past", "verb_done", "verb_ing")
        self._add_forms(folder / "verbs.txt", verb_forms)
        self._add_forms(folder / "verbs_alone.txt", [f"alone_{form}" for form in verb_forms])
        self._add_forms(folder / "adjectives.txt", ("adjective", "adjective_more", "adjective_most"))
        self._add_forms(folder / "adverbs.txt", ("adverb",))
        names = sorted(path.stem for path in folder.glob("*.txt") if path.stem not in _NOT_PATTERNS)
        self.patterns = {name: _lines(folder / f"{name}.txt") for name in names}
        self.sensible = {name: self.patterns[name] for name in names if name not in _FREE_FRAMES}

    def _add_forms(self, path: Path, names: Sequence[str]) -> None:
        for line in _lines(path):
            for name, form in zip(names, line.split(), strict=False):
                self.slots[name].append(form)

    def sentence(self, rng: random.Random, patterns: Mapping[str, Sequence[str]] | None = None) -> str:
        """One sentence; each file of patterns has an equal share."""
        files = list((patterns or self.patterns).values())
        return self.of(rng.choice(rng.choice(files)), rng)

    def of(self, pattern: str, rng: random.Random) -> str:
        """One sentence of this pattern."""
        text = " ".join(self._expand(pattern, rng).split())
        text = re.sub(r" ([,.?!])", r"\1", text)
        # "a" before a vowel sound; the exceptions are the common ones.
        text = re.sub(r"\b([Aa])n? (?=[aeio]|u(?!ni|s[eu])|hour|honest)", r"\1n ", text)
        text = re.sub(r"\b([Aa])n (?=one\b|once\b|eu)", r"\1 ", text)
        return text[0].upper() + text[1:]

    def _expand(self, pattern: str, rng: random.Random) -> str:
        while _CHOICE.search(pattern):
            pattern = _CHOICE.sub(lambda match: rng.choice(match[1].split("|")), pattern)
        return _SLOT.sub(lambda match: self._fill(match[1], rng), pattern)

    def _fill(self, slot: str, rng: random.Random) -> str:
        made = _NUMBERS.get(slot)
        return made(rng) if made else self._expand(rng.choice(self.slots[slot]), rng)


def number(n: int) -> str:
    """In words, for 0 <= n < 1,000,000,000."""
    if n < 20:
        return _ONES[n]
    if n < 100:
        return _TENS[n // 10] + (f"-{_ONES[n % 10]}" if n % 10 else "")
    for size, name, joint in (
        (1_000_000, "million", " "),
        (1000, "thousand", " "),
        (100, "hundred", " and "),
    ):
        if n >= size:
            return f"{number(n // size)} {name}" + (joint + number(n % size) if n % size else "")
    raise AssertionError(n)


_NUMBERS: dict[str, Callable[[random.Random], str]] = {
    "n": lambda r: number(r.randint(2, 12)),
    "nn": lambda r: number(r.randint(13, 99)),
    "hundreds": lambda r: number(r.choice([r.randint(1, 9) * 100, r.randint(100, 999)])),
    "thousands": lambda r: number(r.choice([r.randint(1, 99) * 1000, r.randint(1000, 9999)])),
    "digits": lambda r: " ".join(r.choice(_ONES[:10]) for _ in range(r.randint(3, 5))),
    "ordinal": lambda r: r.choice(_ORDINALS),
}


def write_lists(folder: Path, seed: int, train: int, held_out: int) -> None:
    """To test with: `samples.txt`, `voices.txt` and a `domain-FILE.txt` of `held_out` sentences for each file
    of patterns; to learn from: `train.txt`. No sentence is in two of them or among the hand-written ones."""
    rng, grammar = random.Random(seed), Grammar()
    known = set(_lines(HANDWRITTEN))
    folder.mkdir(parents=True, exist_ok=True)
    wanted = [
        ("samples", SAMPLES, grammar.sensible),
        *((f"{DOMAIN}{file}", held_out, {file: patterns}) for file, patterns in grammar.patterns.items()),
        ("voices", 3 * held_out, grammar.patterns),
        ("train", train, grammar.patterns),
    ]
    for name, count, patterns in wanted:
        sentences: list[str] = []
        while len(sentences) < count:
            sentence = grammar.sentence(rng, patterns)
            if sentence not in known and 2 < sentence.count(" ") < MAX_WORDS:
                known.add(sentence)
                sentences.append(sentence)
        (folder / f"{name}.txt").write_text("\n".join(sentences) + "\n")


def _lines(path: Path) -> list[str]:
    lines = path.read_text().splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]
