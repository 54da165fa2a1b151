"""Cues of subtitles: a transcript cut so that it can be read. Pure functions; writing them is `formats.py`.

Text is taken as it is written, never put together from words, so spacing is right in every script. Where the
transcript has no word times they are guessed from the length of the text.
"""

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

from shared.transcript import SPACELESS, Segment, Transcript

USUAL_LINE_CHARS = 42
USUAL_WIDE_LINE_CHARS = 16
"""Of Chinese, Japanese and Korean, whose characters are twice as wide and say more."""
USUAL_LINES = 2
SHORTEST_S = 0.001
"""A cue must last: players drop one that ends where it starts."""

_CLOSES = "、。，．！？：；）」』】〉》”’…,.!?:;)]}%"
_SENTENCE_ENDS = "。！？.!?…"
_CLAUSE_ENDS = "、，；：,;:"


@dataclass(frozen=True, slots=True)
class Shaping:
    """What a reader can bear; None leaves that as it comes. `min_gap_s` lies between two cues."""

    max_line_chars: int | None = None
    max_lines: int | None = None
    max_cps: float | None = None
    min_gap_s: float = 0.0

    @property
    def cuts(self) -> bool:
        return self.max_line_chars is not None or self.max_lines is not None


@dataclass(frozen=True, slots=True)
class Atom:
    """What stays whole: a word, or one character where words are not set apart. `space` stands before it."""

    text: str
    start: float
    end: float
    space: str = ""


@dataclass(frozen=True, slots=True)
class Cue:
    """Lines of atoms."""

    start: float
    end: float
    lines: tuple[tuple[Atom, ...], ...]

    @property
    def text(self) -> str:
        return "\n".join(joined(line) for line in self.lines)


def cues_of(transcript: Transcript, shaping: Shaping) -> list[Cue]:
    """In the order of time; the whole text, each character once."""
    cues = [cue for segment in transcript.segments for cue in _cut(segment, shaping)]
    return _spaced([_slowed(cue, after, shaping) for cue, after in _pairs(cues)], shaping)


def joined(atoms: Sequence[Atom]) -> str:
    return "".join(atom.space + atom.text if at else atom.text for at, atom in enumerate(atoms))


def length(text: str) -> int:
    """In characters as one sees them: marks above and below take no room."""
    return sum(unicodedata.category(character) not in ("Mn", "Me", "Cf") for character in text)


def _cut(segment: Segment, shaping: Shaping) -> Iterator[Cue]:
    atoms = _atoms(segment)
    if not atoms:
        return
    if not shaping.cuts:
        yield Cue(segment.start, max(segment.end, segment.start + SHORTEST_S), (tuple(atoms),))
        return
    width, most = shaping.max_line_chars or _usual_width(segment.text), shaping.max_lines or USUAL_LINES
    while atoms:
        taken = _fitting(atoms, width, most)
        yield _cue(atoms[:taken], segment, width)
        atoms = atoms[taken:]


def _usual_width(text: str) -> int:
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    return USUAL_WIDE_LINE_CHARS if wide > len(text) / 2 else USUAL_LINE_CHARS


def _cue(atoms: Sequence[Atom], segment: Segment, width: int) -> Cue:
    start = min(max(atoms[0].start, segment.start), segment.end)
    end = max(min(atoms[-1].end, segment.end), start + SHORTEST_S)
    return Cue(start, end, tuple(_balanced(atoms, width)))


def _fitting(atoms: Sequence[Atom], width: int, most: int) -> int:
    """How many atoms make the next cue: as many as there is room for, ended where a sentence or clause does
    if that leaves it more than half full."""
    lines = _wrapped(atoms, width)
    if len(lines) <= most:
        return len(atoms)
    room = sum(len(line) for line in lines[:most])
    for ends in (_SENTENCE_ENDS, _CLAUSE_ENDS):
        for taken in range(room, room // 2, -1):
            if atoms[taken - 1].text[-1:] in ends:
                return taken
    return room


def _wrapped(atoms: Sequence[Atom], width: int) -> list[list[Atom]]:
    """Greedy; what is longer than a line has one to itself."""
    lines: list[list[Atom]] = []
    left = 0
    for atom in atoms:
        needed = length(atom.space + atom.text)
        if lines and needed <= left:
            lines[-1].append(atom)
            left -= needed
        else:
            lines.append([atom])
            left = width - length(atom.text)
    return lines


def _balanced(atoms: Sequence[Atom], width: int) -> list[tuple[Atom, ...]]:
    """As few lines as there must be, of about one length."""
    lines = _wrapped(atoms, width)
    if len(lines) > 1:
        longest = max(length(atom.text) for atom in atoms)
        narrow = max(longest, -(-length(joined(atoms)) // len(lines)))
        for one_width in range(narrow, width):
            if len(tried := _wrapped(atoms, one_width)) == len(lines):
                lines = tried
                break
    return [tuple(line) for line in lines]


def _atoms(segment: Segment) -> list[Atom]:
    text = segment.text.strip()
    spans = list(_spans(text))
    times = _times(segment, text, spans)
    return [
        Atom(text[start:end], begins, ends, text[before:start])
        for before, (start, end), (begins, ends) in zip(
            (0, *(end for _, end in spans)), spans, times, strict=False
        )
    ]


def _spans(text: str) -> Iterator[tuple[int, int]]:
    """Where the text may be broken: at spaces, and between the characters of scripts that have none; never
    before a mark that belongs to what it follows."""
    start: int | None = None
    for at, character in enumerate(text):
        if _is_gap(character):
            if start is not None:
                yield start, at
            start = None
        elif start is None:
            start = at
        elif _may_break(text[at - 1], character):
            yield start, at
            start = at
    if start is not None:
        yield start, len(text)


def _is_gap(character: str) -> bool:
    """French sets marks apart by a space that must not be broken at."""
    return character.isspace() and character not in "\u00a0\u2007\u202f"


def _may_break(before: str, character: str) -> bool:
    if character in _CLOSES or unicodedata.category(character).startswith("M"):
        return False
    if before in "（「『【〈《“‘([{":
        return False
    return bool(SPACELESS.match(character) or SPACELESS.match(before))


def _times(segment: Segment, text: str, spans: Sequence[tuple[int, int]]) -> list[tuple[float, float]]:
    """By the words that cover a span, where they are known; by its share of the text elsewhere."""
    words = list(_placed(segment, text))
    seconds = max(segment.end - segment.start, 0.0)
    per_char = seconds / max(len(text), 1)
    found = []
    for start, end in spans:
        over = [word for word in words if word[0] < end and word[1] > start]
        if over:
            found.append((_at(over[0], start), _at(over[-1], end)))
        else:
            found.append((segment.start + start * per_char, segment.start + end * per_char))
    return found


Placed = tuple[int, int, float, float]
"""From and to in the text, from and to in seconds."""


def _at(word: Placed, position: int) -> float:
    """When a place inside a word is said."""
    first, last, start, end = word
    share = min(max((position - first) / max(last - first, 1), 0.0), 1.0)
    return start + (end - start) * share


def _placed(segment: Segment, text: str) -> Iterator[Placed]:
    """Words in the order they are said, each where it next stands in the text."""
    after = 0
    for word in segment.words or ():
        own = word.text.strip()
        at = text.find(own, after) if own else -1
        if at >= 0:
            after = at + len(own)
            yield at, after, word.start, word.end


def _pairs(cues: Sequence[Cue]) -> Iterator[tuple[Cue, Cue | None]]:
    yield from zip_longest(cues, cues[1:])


def _slowed(cue: Cue, after: Cue | None, shaping: Shaping) -> Cue:
    """Stays until it can have been read, or the next one comes."""
    if shaping.max_cps is None:
        return cue
    needed_end = cue.start + length(cue.text.replace("\n", " ")) / shaping.max_cps
    latest = needed_end if after is None else max(cue.end, after.start - shaping.min_gap_s)
    return replace(cue, end=max(cue.end, min(needed_end, latest)))


def _spaced(cues: Sequence[Cue], shaping: Shaping) -> list[Cue]:
    """Ends each cue so long before the next one as was asked for."""
    if not shaping.min_gap_s and not shaping.cuts and shaping.max_cps is None:
        return list(cues)
    return [
        cue
        if after is None
        else replace(cue, end=max(cue.start + SHORTEST_S, min(cue.end, after.start - shaping.min_gap_s)))
        for cue, after in _pairs(cues)
    ]
