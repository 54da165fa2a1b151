"""What was said: words, segments and the transcript they make. All times are seconds in the file."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Self

from pydantic import TypeAdapter

SPACELESS = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3000-\u30ff\u3400-\u9fff\uf900-\ufaff\uff00-\uffef"
    r"\U00020000-\U0003ffff]"
)
"""Thai, Lao, Burmese, Khmer, Japanese, Chinese and their punctuation: no space stands between words."""


@dataclass(frozen=True, slots=True)
class Word:
    start: float
    end: float
    text: str
    probability: float


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of speech; `flags` names what is doubtful about it (see docs/glossary.md)."""

    id: int
    start: float
    end: float
    text: str
    avg_logprob: float
    compression_ratio: float
    no_speech_prob: float
    temperature: float
    words: tuple[Word, ...] | None = None
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Suppressed:
    """A span whose text was removed, and why: nothing disappears without a reason."""

    start: float
    end: float
    text: str
    reason: str


@dataclass(frozen=True, slots=True)
class Language:
    code: str
    confidence: float | None = None


@dataclass(frozen=True, slots=True)
class WindowResult:
    """What one finished window adds to its file: the unit of a checkpoint."""

    index: int
    start: float
    end: float
    segments: tuple[Segment, ...]
    suppressed: tuple[Suppressed, ...] = ()
    language: Language | None = None
    inference_s: float = 0.0

    def to_json(self) -> str:
        return _window_result.dump_json(self).decode()

    @classmethod
    def from_json(cls, text: str | bytes) -> "WindowResult":
        return _window_result.validate_json(text)


@dataclass(frozen=True, slots=True)
class Transcript:
    text: str
    language: Language | None
    duration_s: float
    segments: tuple[Segment, ...]
    suppressed: tuple[Suppressed, ...] = ()
    warnings: tuple[str, ...] = ()
    partial: bool = False
    model: dict[str, str | None] = field(default_factory=dict)

    @classmethod
    def of(cls, results: Iterable[WindowResult], duration_s: float, *, partial: bool = False) -> Self:
        """Segments of all windows in file order, numbered from 0. The order of `results` does not matter."""
        ordered = sorted(results, key=lambda result: (result.start, result.index))
        segments = tuple(
            replace(segment, id=number)
            for number, segment in enumerate(segment for result in ordered for segment in result.segments)
        )
        return cls(
            text=joined(segment.text for segment in segments),
            language=main_language(ordered),
            duration_s=duration_s,
            segments=segments,
            suppressed=tuple(span for result in ordered for span in result.suppressed),
            partial=partial,
        )

    def to_json(self) -> str:
        return _transcript.dump_json(self).decode()

    @classmethod
    def from_json(cls, text: str | bytes) -> "Transcript":
        return _transcript.validate_json(text)


def joined(texts: Iterable[str]) -> str:
    """One text of several: a space between two, but for scripts that have none."""
    whole = ""
    for text in filter(None, map(str.strip, texts)):
        is_spaceless = whole and SPACELESS.match(whole[-1]) and SPACELESS.match(text[0])
        whole += text if is_spaceless or not whole else f" {text}"
    return whole


def main_language(results: Iterable[WindowResult]) -> Language | None:
    """The language of most seconds of speech, with the mean confidence over its windows."""
    seconds: dict[str, float] = {}
    confidences: dict[str, list[float]] = {}
    for result in results:
        if result.language is None:
            continue
        code = result.language.code
        seconds[code] = seconds.get(code, 0.0) + (result.end - result.start)
        if result.language.confidence is not None:
            confidences.setdefault(code, []).append(result.language.confidence)
    if not seconds:
        return None
    code = max(seconds, key=lambda c: seconds[c])
    known = confidences.get(code)
    return Language(code, round(sum(known) / len(known), 4) if known else None)


_window_result: TypeAdapter[WindowResult] = TypeAdapter(WindowResult)
_transcript: TypeAdapter[Transcript] = TypeAdapter(Transcript)
