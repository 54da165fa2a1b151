"""From generated tokens to timed stretches of text, and from text tokens to words. No torch, no model."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

SECONDS_PER_TIMESTAMP = 0.02

_SPACELESS = frozenset({"zh", "ja", "th", "lo", "my", "yue"})
_OPENING = frozenset("\"'“¡¿([{-")
_CLOSING = frozenset("\"'.。,，!！?？:：”)]}、…")
_BROKEN_CHARACTER = "\ufffd"

Decode = Callable[[Sequence[int]], str]
"""Text of text tokens."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Text tokens between two timestamps, in seconds from the window's start. `first` is the position of its
    first token among the generated ones."""

    start: float
    end: float
    tokens: tuple[int, ...]
    first: int


@dataclass(frozen=True, slots=True)
class Piece:
    """A written word, or a character where words are not spaced, and the text tokens it is made of."""

    text: str
    tokens: tuple[int, ...]


def split_at_timestamps(
    tokens: Sequence[int], timestamps: range, duration_s: float, *, is_text: Callable[[int], bool]
) -> tuple[Stretch, ...]:
    """Stretches in order, inside the window and without overlap, whatever the model wrote: a missing start is
    the end before it, a missing end is the window's, times never run backwards."""
    stretches: list[Stretch] = []
    clock = 0.0
    pending: list[int] = []
    first = 0
    for position, token in enumerate(tokens):
        if token in timestamps:
            now = min(max(clock, (token - timestamps.start) * SECONDS_PER_TIMESTAMP), duration_s)
            if pending:
                stretches.append(Stretch(round(clock, 2), round(now, 2), tuple(pending), first))
                pending = []
            clock = now
        elif is_text(token):
            first = first if pending else position
            pending.append(token)
    if pending:
        stretches.append(Stretch(round(clock, 2), round(duration_s, 2), tuple(pending), first))
    return tuple(stretches)


def open_tail_s(tokens: Sequence[int], timestamps: range) -> float | None:
    """Where the model broke off: it opened a stretch with a second timestamp and wrote nothing into it."""
    if len(tokens) >= 3 and tokens[-1] in timestamps and tokens[-2] in timestamps:
        return (tokens[-1] - timestamps.start) * SECONDS_PER_TIMESTAMP
    return None


def split_words(tokens: Sequence[int], language: str | None, decode: Decode) -> tuple[Piece, ...]:
    """Words with the punctuation that belongs to them; their texts joined are the tokens' text."""
    characters = _whole_characters(tokens, decode)
    words = characters if language in _SPACELESS else _join_until_space(characters)
    return tuple(_attach_punctuation(words))


def _whole_characters(tokens: Sequence[int], decode: Decode) -> list[Piece]:
    """One piece per token, but tokens that are parts of one character stay together."""
    pieces: list[Piece] = []
    pending: list[int] = []
    for token in tokens:
        pending.append(token)
        text = decode(pending)
        if _BROKEN_CHARACTER not in text or len(pending) >= 8:
            pieces.append(Piece(text, tuple(pending)))
            pending = []
    if pending:
        pieces.append(Piece(decode(pending), tuple(pending)))
    return pieces


def _join_until_space(pieces: Iterable[Piece]) -> list[Piece]:
    words: list[Piece] = []
    for piece in pieces:
        if not words or piece.text.startswith(" "):
            words.append(piece)
        else:
            words[-1] = _joined(words[-1], piece)
    return words


def _attach_punctuation(words: Sequence[Piece]) -> list[Piece]:
    """Marks that stand alone: opening ones go with the word after them, the others with the word before."""
    attached: list[Piece] = []
    opening: Piece | None = None
    for word in words:
        mark = word.text.strip()
        if mark and _OPENING.issuperset(mark) and (word.text.startswith(" ") or mark not in _CLOSING):
            opening = word if opening is None else _joined(opening, word)
        elif attached and opening is None and _CLOSING.issuperset(mark):
            attached[-1] = _joined(attached[-1], word)
        else:
            attached.append(word if opening is None else _joined(opening, word))
            opening = None
    return attached if opening is None else [*attached, opening]


def _joined(left: Piece, right: Piece) -> Piece:
    return Piece(left.text + right.text, left.tokens + right.tokens)
