"""OpenAI's audio contract: its form becomes our options, our transcript its answer. Pure functions: no
requests, no waiting."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, Field

from api.formats import to_srt, to_vtt
from api.language_names import code_of, name_of
from api.problems import one_invalid
from shared.errors import UnsupportedOption
from shared.transcript import Segment, Transcript

FORMATS = ("json", "text", "srt", "verbose_json", "vtt")
THEIR_MODELS = frozenset({"whisper-1", "gpt-4o-transcribe", "gpt-4o-mini-transcribe"})
"""Names that clients have built in: they get the default model, unless one here is called so."""

_GRANULARITIES = frozenset({"word", "segment"})
_MOST_PROMPT_CHARS = 1000
_SEEK_PER_S = 100
_UNANSWERED = ("include[]", "known_speaker_names[]", "known_speaker_references[]")
_MIMETYPES = {"text": "text/plain", "srt": "text/plain", "vtt": "text/plain"}


@dataclass(frozen=True, slots=True)
class Wish:
    """How the answer is to look."""

    format: str = "json"
    words: bool = False
    segments: bool = True
    stream: bool = False
    task: str = "transcribe"

    @property
    def mimetype(self) -> str:
        return _MIMETYPES.get(self.format, "application/json")


def read_wish(fields: Mapping[str, str], task: str) -> Wish:
    """Raises InvalidOptions, UnsupportedOption."""
    format = fields.get("response_format", "json")
    if format == "diarized_json":
        raise UnsupportedOption("Speakers are not told apart here; response_format cannot be diarized_json.")
    if format not in FORMATS:
        raise one_invalid("response_format", f"must be one of {', '.join(FORMATS)}")
    wanted = frozenset(fields.get("timestamp_granularities[]", "segment").split(","))
    if not wanted <= _GRANULARITIES:
        raise one_invalid("timestamp_granularities[]", "must be word or segment")
    if "word" in wanted and format != "verbose_json":
        raise one_invalid("timestamp_granularities[]", "word needs response_format=verbose_json")
    stream = _truth("stream", fields.get("stream", "false"))
    return Wish(format, "word" in wanted, "segment" in wanted, stream, task)


def our_fields(fields: Mapping[str, str], wish: Wish, served: frozenset[str]) -> dict[str, str]:
    """The form as options of a job. What is ours alone (`priority`, `metadata`, ...) may stand in it too.

    Raises UnsupportedOption, InvalidOptions.
    """
    for name in _UNANSWERED:
        if fields.get(name):
            raise UnsupportedOption(f"{name} is not answered here: leave it out.")
    own = {name: value for name, value in fields.items() if not _is_theirs(name)}
    own |= _vad(fields)
    if own.get("model") in THEIR_MODELS - served:
        del own["model"]
    if "language" in own:
        own["language"] = code_of(own["language"])
    if "prompt" in own:
        # The model reads the end of a long prompt, and no line breaks.
        own["prompt"] = " ".join(own["prompt"].split())[-_MOST_PROMPT_CHARS:]
    if own.get("temperature") in ("0", "0.0"):
        # Theirs: 0 lets the temperature rise where decoding fails. Ours says so by silence.
        del own["temperature"]
    if wish.words:
        own["word_timestamps"] = "true"
    return own | {"task": wish.task}


def _is_theirs(name: str) -> bool:
    return name in (
        "response_format",
        "timestamp_granularities[]",
        "stream",
        *_UNANSWERED,
    ) or name.startswith("chunking_strategy")


def _vad(fields: Mapping[str, str]) -> dict[str, str]:
    """`chunking_strategy`: auto is what we do anyway."""
    given = {
        name.removeprefix("chunking_strategy[").rstrip("]"): value
        for name, value in fields.items()
        if name.startswith("chunking_strategy[")
    }
    whole = fields.get("chunking_strategy", "auto")
    if whole != "auto":
        try:
            given |= {name: str(value) for name, value in json.loads(whole).items()}
        except (ValueError, AttributeError):
            raise one_invalid("chunking_strategy", "must be auto, or an object of type server_vad") from None
    if not given:
        return {}
    if given.pop("type", "") != "server_vad":
        raise one_invalid("chunking_strategy", "must be auto, or an object of type server_vad")
    try:
        found = {"vad_threshold": given.get("threshold")}
        for ours, theirs in (
            ("vad_min_silence_s", "silence_duration_ms"),
            ("vad_pad_s", "prefix_padding_ms"),
        ):
            found[ours] = str(float(given[theirs]) / 1000) if theirs in given else None
    except ValueError:
        raise one_invalid("chunking_strategy", "must hold numbers") from None
    return {name: value for name, value in found.items() if value is not None}


def _truth(name: str, value: str) -> bool:
    if value.lower() not in ("true", "false", "1", "0"):
        raise one_invalid(name, "must be true or false")
    return value.lower() in ("true", "1")


class UsageOut(BaseModel):
    type: Literal["duration"] = "duration"
    seconds: int


class TextOut(BaseModel):
    text: str
    usage: UsageOut


class OpenAiSegmentOut(BaseModel):
    id: int
    seek: int
    start: float
    end: float
    text: str
    tokens: list[int] = Field(description="Always empty: they are not kept.")
    temperature: float
    avg_logprob: float
    compression_ratio: float
    no_speech_prob: float


class OpenAiWordOut(BaseModel):
    word: str
    start: float
    end: float


class VerboseOut(BaseModel):
    task: str
    language: str = Field(description="Its English name.")
    duration: float
    text: str
    segments: list[OpenAiSegmentOut] | None = None
    words: list[OpenAiWordOut] | None = None
    usage: UsageOut


class OpenAiFailure(BaseModel):
    message: str
    type: str
    param: str | None
    code: str


class OpenAiError(BaseModel):
    """OpenAI's envelope; `code` is ours."""

    error: OpenAiFailure


def answer_text(transcript: Transcript, wish: Wish) -> str:
    """The body of the answer."""
    if wish.format == "text":
        return f"{transcript.text}\n"
    if wish.format == "srt":
        return to_srt(transcript)
    if wish.format == "vtt":
        return to_vtt(transcript)
    if wish.format == "json":
        return TextOut(text=transcript.text, usage=usage(transcript)).model_dump_json()
    return _verbose(transcript, wish).model_dump_json(exclude_none=True)


def usage(transcript: Transcript) -> UsageOut:
    return UsageOut(seconds=math.ceil(transcript.duration_s))


def _verbose(transcript: Transcript, wish: Wish) -> VerboseOut:
    language = "en" if wish.task == "translate" else (transcript.language.code if transcript.language else "")
    return VerboseOut(
        task=wish.task,
        language=name_of(language),
        duration=transcript.duration_s,
        text=transcript.text,
        segments=[_segment(segment) for segment in transcript.segments] if wish.segments else None,
        words=_words(transcript) if wish.words else None,
        usage=usage(transcript),
    )


def _segment(segment: Segment) -> OpenAiSegmentOut:
    return OpenAiSegmentOut(
        id=segment.id,
        seek=round(segment.start * _SEEK_PER_S),
        start=segment.start,
        end=segment.end,
        text=segment.text,
        tokens=[],
        temperature=segment.temperature,
        avg_logprob=segment.avg_logprob,
        compression_ratio=segment.compression_ratio,
        no_speech_prob=segment.no_speech_prob,
    )


def _words(transcript: Transcript) -> list[OpenAiWordOut]:
    return [
        OpenAiWordOut(word=word.text, start=word.start, end=word.end)
        for segment in transcript.segments
        for word in segment.words or ()
    ]
