"""From what the model heard in each window to one transcript in file time.

Text that is not to be trusted is flagged, and text that is not speech is taken out; what is taken out is
recorded with its reason. Only texts without a letter or a digit vanish unrecorded.
"""

import math
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from shared.transcript import Language, Segment, Suppressed, Transcript, WindowResult, Word
from worker.engine.values import Hypothesis, Utterance, Window

# The thresholds of the original Whisper; the two of silence must both be passed, or speech is lost.
NO_SPEECH_PROBABILITY = 0.6
LOW_LOGPROB = -1.0
HIGH_COMPRESSION = 2.4

LEAST_SPEECH_S = 0.3
"""A window in which the detector found less than this holds no words worth keeping on weak evidence."""

LONGEST_LOOP_WORDS = 8
LONGEST_LOOP_CHARACTERS = 32
LEAST_REPEATS = 3
LEAST_REPEATS_OF_ONE_WORD = 4
"""People do say "no, no, no"."""

HALLUCINATIONS = frozenset(
    {
        "bye",
        "bye bye",
        "please subscribe",
        "please subscribe to my channel",
        "see you in the next video",
        "see you next time",
        "subtitles by the amara org community",
        "thank you",
        "thank you for watching",
        "thank you so much",
        "thank you very much",
        "thanks for watching",
        "you",
    }
)
"""What Whisper is known to hear in silence, as `_key` writes it. Asked only where there is no speech."""

_SPACELESS = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]")
"""Thai, Lao, Burmese, Khmer, Japanese, Chinese: no space between words, loops are counted in characters."""

_UNIT = re.compile(rf"{_SPACELESS.pattern}|(?:(?!{_SPACELESS.pattern})\S)+")


class Reason(StrEnum):
    """Why a text was taken out."""

    NO_SPEECH = "no_speech"
    REPETITION = "repetition"


class Flag(StrEnum):
    """What is doubtful about a text that was kept."""

    LOW_CONFIDENCE = "low_confidence"
    REPETITION = "repetition"


@dataclass(frozen=True, slots=True)
class _Passage:
    """An utterance on its way: times in the window, text cleaned; `reason` set once it is to go."""

    start: float
    end: float
    text: str
    avg_logprob: float
    words: tuple[Word, ...] | None
    flags: tuple[str, ...] = ()
    reason: Reason | None = None


def window_result(window: Window, hypothesis: Hypothesis) -> WindowResult:
    """What one window adds to its file, in file time: clipped to the window, in order, without overlap."""
    passages = [_passage(utterance) for utterance in hypothesis.utterances]
    passages = [passage for passage in passages if _has_text(passage.text)]
    passages = _without_loop(passages, hypothesis.compression_ratio)
    passages = [_judged(passage, window, hypothesis) for passage in passages]
    passages = _placed(passages, window)
    segments = tuple(
        _segment(number, passage, hypothesis)
        for number, passage in enumerate(passage for passage in passages if passage.reason is None)
    )
    return WindowResult(
        index=window.index,
        start=_ms(window.start_s) / 1000,
        end=_ms(window.start_s + window.duration_s) / 1000,
        segments=segments,
        suppressed=tuple(
            Suppressed(passage.start, passage.end, passage.text, passage.reason.value)
            for passage in passages
            if passage.reason is not None
        ),
        # A guess at the language of silence must not outvote the windows in which somebody speaks.
        language=_language(hypothesis) if segments else None,
        inference_s=hypothesis.inference_s,
    )


def assemble(results: Iterable[WindowResult], duration_s: float, *, partial: bool = False) -> Transcript:
    """The transcript of a file from its windows, in whatever order they come.

    Segments do not overlap; of a sentence said over and over, the first is kept.
    """
    transcript = Transcript.of(results, duration_s, partial=partial)
    kept, repeated = _without_echoes(_without_overlap(transcript.segments))
    return replace(
        transcript,
        text=" ".join(segment.text for segment in kept),
        segments=tuple(replace(segment, id=number) for number, segment in enumerate(kept)),
        suppressed=tuple(
            sorted([*transcript.suppressed, *repeated], key=lambda span: (span.start, span.end, span.text))
        ),
    )


def _passage(utterance: Utterance) -> _Passage:
    words = None
    if utterance.words is not None:
        words = tuple(replace(word, text=_clean(word.text)) for word in utterance.words if _clean(word.text))
    return _Passage(utterance.start, utterance.end, _clean(utterance.text), utterance.avg_logprob, words)


def _clean(text: str) -> str:
    """One spelling for each letter: accented Akan vowels come composed and decomposed."""
    return unicodedata.normalize("NFC", text).strip()


def _has_text(text: str) -> bool:
    return any(character.isalnum() for character in text)


def _key(text: str) -> str:
    """What two texts have in common when they say the same: letters and digits, in lower case."""
    return " ".join(re.sub(r"[^\w\s]|_", " ", text.casefold()).split())


def _judged(passage: _Passage, window: Window, hypothesis: Hypothesis) -> _Passage:
    if passage.reason is not None:
        return passage
    if _is_silence(passage, window, hypothesis):
        return replace(passage, reason=Reason.NO_SPEECH)
    if passage.avg_logprob < LOW_LOGPROB:
        return replace(passage, flags=(Flag.LOW_CONFIDENCE.value, *passage.flags))
    return passage


def _is_silence(passage: _Passage, window: Window, hypothesis: Hypothesis) -> bool:
    if hypothesis.no_speech_prob > NO_SPEECH_PROBABILITY and hypothesis.avg_logprob < LOW_LOGPROB:
        return True
    is_weak = passage.avg_logprob < LOW_LOGPROB or _key(passage.text) in HALLUCINATIONS
    return window.speech_s < LEAST_SPEECH_S and is_weak


def _without_loop(passages: list[_Passage], compression_ratio: float) -> list[_Passage]:
    """Marks what a window in a loop repeats; the passage in which the first round ends stays, flagged.

    A window that compresses too well without ending in a loop is flagged all over.
    """
    if compression_ratio <= HIGH_COMPRESSION:
        return passages
    units = [_UNIT.findall(passage.text) for passage in passages]
    keys = [_key(unit) or unit for texts in units for unit in texts]
    keep = _loop_start(keys)
    is_loop = keep < len(keys)
    cut: list[_Passage] = []
    for passage, texts in zip(passages, units, strict=True):
        if not is_loop or 0 < keep <= len(texts):
            passage = replace(passage, flags=(Flag.REPETITION.value,))
        cut += _cut(passage, max(keep, 0))
        keep -= len(texts)
    return [passage for passage in cut if _has_text(passage.text)]


def _loop_start(keys: Sequence[str]) -> int:
    """How many units to keep so that what the text ends with is said once; all if it ends in no loop."""
    is_spaceless = sum(_SPACELESS.match(key) is not None for key in keys) > len(keys) / 2
    longest = LONGEST_LOOP_CHARACTERS if is_spaceless else LONGEST_LOOP_WORDS
    keep = len(keys)
    for size in range(1, min(longest, len(keys) // LEAST_REPEATS) + 1):
        # Each unit against the one a round before: the model may have been cut off in the middle of a round.
        begin = len(keys)
        while begin > size and keys[begin - 1] == keys[begin - 1 - size]:
            begin -= 1
        repeats = (len(keys) - begin) // size + 1
        least = LEAST_REPEATS_OF_ONE_WORD if size == 1 else LEAST_REPEATS
        if repeats >= least:
            keep = min(keep, begin)
    return keep


def _cut(passage: _Passage, keep: int) -> list[_Passage]:
    """Splits a passage after its first `keep` units; the second half goes."""
    ends = [unit.end() for unit in _UNIT.finditer(passage.text)]
    if keep >= len(ends):
        return [passage]
    if keep == 0:
        return [replace(passage, flags=(), reason=Reason.REPETITION)]
    head, tail = passage.text[: ends[keep - 1]], passage.text[ends[keep - 1] :].strip()
    border = passage.start + (passage.end - passage.start) * keep / len(ends)
    words = passage.words
    if words is not None and len(words) == len(ends):
        border, words = words[keep].start, words[:keep]
    elif words is not None:
        words = tuple(word for word in words if word.start < border)
    first = replace(passage, end=border, text=head, words=words)
    return [first, replace(passage, start=border, text=tail, words=None, flags=(), reason=Reason.REPETITION)]


def _placed(passages: list[_Passage], window: Window) -> list[_Passage]:
    """Moves passages and their words to file time, each within the window and after the one before."""
    low, high = _ms(window.start_s), _ms(window.start_s + window.duration_s)
    spans = _fitted([(window.start_s + p.start, window.start_s + p.end) for p in passages], low, high)
    return [
        replace(p, start=start, end=end, words=_words(p.words, start, end, window.start_s))
        for p, (start, end) in zip(passages, spans, strict=True)
    ]


def _words(
    words: tuple[Word, ...] | None, start: float, end: float, offset_s: float
) -> tuple[Word, ...] | None:
    if words is None:
        return None
    spans = _fitted([(offset_s + w.start, offset_s + w.end) for w in words], _ms(start), _ms(end))
    return tuple(replace(w, start=a, end=b) for w, (a, b) in zip(words, spans, strict=True))


def _fitted(spans: Sequence[tuple[float, float]], low: int, high: int) -> list[tuple[float, float]]:
    """Spans in seconds, made to lie in order between `low` and `high` (milliseconds), none empty.

    Where there are more spans than milliseconds, `high` gives way.
    """
    high = max(high, low + len(spans))
    fitted = []
    for number, (start, end) in enumerate(spans):
        left = len(spans) - number - 1
        first = min(max(_ms(start), low), high - left - 1)
        last = min(max(_ms(end), first + 1), high - left)
        fitted.append((first / 1000, last / 1000))
        low = last
    return fitted


def _ms(seconds: float) -> int:
    return round(seconds * 1000) if math.isfinite(seconds) else 0


def _segment(number: int, passage: _Passage, hypothesis: Hypothesis) -> Segment:
    return Segment(
        id=number,
        start=passage.start,
        end=passage.end,
        text=passage.text,
        avg_logprob=passage.avg_logprob,
        compression_ratio=hypothesis.compression_ratio,
        no_speech_prob=hypothesis.no_speech_prob,
        temperature=hypothesis.temperature,
        words=passage.words,
        flags=passage.flags,
    )


def _language(hypothesis: Hypothesis) -> Language | None:
    if hypothesis.language is None:
        return None
    return Language(hypothesis.language, hypothesis.language_probability)


def _without_overlap(segments: Sequence[Segment]) -> list[Segment]:
    """A segment ends where the next begins; only where both begin together is the later one moved."""
    spans = [(segment.start, segment.end) for segment in segments]
    for number, (start, _) in enumerate(spans[1:]):
        before = spans[number]
        if before[0] < start < before[1]:
            spans[number] = (before[0], start)
    last = max((_ms(end) for _, end in spans), default=0)
    return [
        segment
        if (segment.start, segment.end) == (start, end)
        else replace(segment, start=start, end=end, words=_words(segment.words, start, end, 0.0))
        for segment, (start, end) in zip(segments, _fitted(spans, 0, last), strict=True)
    ]


def _without_echoes(segments: Sequence[Segment]) -> tuple[list[Segment], list[Suppressed]]:
    """Of a text that comes in several segments in a row, keeps the first, flagged, and records the others."""
    kept: list[Segment] = []
    repeated: list[Suppressed] = []
    start = 0
    while start < len(segments):
        key = _key(segments[start].text)
        end = start + 1
        while end < len(segments) and _key(segments[end].text) == key:
            end += 1
        run = segments[start:end]
        least = LEAST_REPEATS if " " in key else LEAST_REPEATS_OF_ONE_WORD
        if len(run) >= least:
            kept.append(_flagged(run[0]))
            repeated += [Suppressed(s.start, s.end, s.text, Reason.REPETITION.value) for s in run[1:]]
        else:
            kept += run
        start = end
    return kept, repeated


def _flagged(segment: Segment) -> Segment:
    return replace(segment, flags=tuple(dict.fromkeys((*segment.flags, Flag.REPETITION.value))))
