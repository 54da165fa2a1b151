"""What a reader put right in a transcript. Pure functions: the transcript that was made is never changed.

A corrected segment keeps its times. So do its words that stayed; words that are new share the time of those
they stand for, or of the gap they were put into.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher

from shared.transcript import Segment, Transcript, Word, joined

CORRECTED = "corrected"
LOW_CONFIDENCE = "low_confidence"

_SURE = 1.0


@dataclass(frozen=True, slots=True)
class Span:
    start: float
    end: float


def corrected(transcript: Transcript, texts: Mapping[int, str]) -> Transcript:
    """With the texts of the segments of these ids; an empty text takes it out of text and subtitles."""
    segments = tuple(
        _corrected(segment, texts[segment.id].strip()) if segment.id in texts else segment
        for segment in transcript.segments
    )
    return replace(transcript, segments=segments, text=joined(segment.text for segment in segments))


def unknown(transcript: Transcript, texts: Mapping[int, str]) -> list[int]:
    """Ids that no segment has."""
    return sorted(texts.keys() - {segment.id for segment in transcript.segments})


def _corrected(segment: Segment, text: str) -> Segment:
    if text == segment.text.strip():
        return segment
    flags = (*(flag for flag in segment.flags if flag != LOW_CONFIDENCE), CORRECTED)
    words = None if segment.words is None else tuple(_words(segment, text))
    return replace(segment, text=text, flags=flags, words=words)


def _words(segment: Segment, text: str) -> Iterator[Word]:
    old, new = segment.words or (), text.split()
    matcher = SequenceMatcher(None, [word.text.strip() for word in old], new, autojunk=False)
    for kind, i1, i2, j1, j2 in matcher.get_opcodes():
        if kind == "equal":
            yield from old[i1:i2]
        else:
            yield from _shared(_room(segment, old, i1, i2), new[j1:j2])


def _room(segment: Segment, old: Sequence[Word], first: int, last: int) -> Span:
    """From the first of the words that go to the last, or between the words that stay."""
    if first < last:
        return Span(old[first].start, old[last - 1].end)
    start = old[first - 1].end if first else segment.start
    end = old[first].start if first < len(old) else segment.end
    return Span(start, max(start, end))


def _shared(room: Span, texts: Sequence[str]) -> Iterator[Word]:
    """By their length. A person wrote them, so they are sure."""
    chars = sum(map(len, texts))
    at = room.start
    for text in texts:
        end = at + (room.end - room.start) * len(text) / chars
        yield Word(round(at, 3), round(end, 3), text, _SURE)
        at = end
