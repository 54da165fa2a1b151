"""What clients send, typed once: options, paths and queries. The OpenAPI document is made from these; what
clients get is in `answers.py`."""

import re
import unicodedata
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)
from pydantic_core import from_json

from api.subtitles import Shaping
from shared.job import Options, Status, VadOptions

MOST_METADATA = 16
MOST_HEADERS = 8
MOST_METADATA_CHARS = 16_384

_TOKEN = r"^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}$"
_PLAIN = r"^[^\u0000-\u001f\u007f-\u009f]*$"
_ADDRESS = r"^[Hh][Tt][Tt][Pp][Ss]?://[^\s\u0000-\u0020\u007f-\u009f]+$"
_SOURCE = r"^([Hh][Tt][Tt][Pp][Ss]?|[Ss]3)://[^\s\u0000-\u0020\u007f-\u009f]+$"
# A bare number would be taken for seconds since 1970.
_INSTANT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ]")
_HEADER_VALUE = r"^[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?$"
# A client may add one header of its own, not change what frames, routes or signs the message.
_RESERVED_HEADERS = frozenset(
    {
        *("host", "content-length", "content-type", "content-encoding", "transfer-encoding", "connection"),
        *("keep-alive", "te", "trailer", "upgrade", "expect", "user-agent", "proxy-authorization"),
        *("proxy-connection", "webhook-id", "webhook-timestamp", "webhook-signature"),
    }
)


def _plain(text: str) -> str:
    """No control characters, no halves of surrogate pairs."""
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in text):
        raise ValueError("must not hold control characters")
    return text


def _instant(given: Any) -> Any:
    if isinstance(given, str) and not _INSTANT.match(given):
        raise ValueError("must be ISO 8601 with a time zone")
    return given


def _callback_url(text: str) -> str:
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        raise ValueError("must be a URL") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be an http or https URL")
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not hold a user name or password; use webhook_auth_header_name and _value")
    if any(character.isspace() for character in text):
        raise ValueError("must not hold spaces")
    return text


def _audio_url(text: str) -> str:
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        raise ValueError("must be a URL") from None
    if parts.scheme not in ("http", "https", "s3") or not parts.hostname:
        raise ValueError("must be an http, https or s3 URL")
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not hold a user name or password; use audio_url_headers")
    if any(character.isspace() for character in text):
        raise ValueError("must not hold spaces")
    return text


def _header_name(text: str) -> str:
    if text.lower() in _RESERVED_HEADERS:
        raise ValueError("is a header that cannot be set")
    return text


def _json_object(given: Any) -> Any:
    if not isinstance(given, str):
        return given
    if len(given) > MOST_METADATA_CHARS:
        raise ValueError(f"must not be longer than {MOST_METADATA_CHARS} characters")
    try:
        return from_json(given)
    except ValueError:
        raise ValueError("must be a JSON object of strings") from None


# `pattern` in the document only: what the functions check, as far as it can be said there.
Plain = Annotated[str, AfterValidator(_plain), Field(json_schema_extra={"pattern": _PLAIN})]
CallbackUrl = Annotated[
    str,
    StringConstraints(max_length=2048),
    AfterValidator(_plain),
    AfterValidator(_callback_url),
    Field(json_schema_extra={"pattern": _ADDRESS}),
]
AudioUrl = Annotated[
    str,
    StringConstraints(max_length=8192),
    AfterValidator(_plain),
    AfterValidator(_audio_url),
    Field(json_schema_extra={"pattern": _SOURCE}),
]
HeaderName = Annotated[str, StringConstraints(pattern=_TOKEN), AfterValidator(_header_name)]
HeaderValue = Annotated[str, StringConstraints(pattern=_HEADER_VALUE, max_length=4096)]
MetadataKey = Annotated[Plain, StringConstraints(min_length=1, max_length=64)]
MetadataValue = Annotated[Plain, StringConstraints(max_length=512)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Strict(BaseModel):
    """A request: names nobody knows are refused, not dropped."""

    model_config = ConfigDict(extra="forbid")


class OptionsIn(Strict):
    """Options of a job; the same names in a form, a query and JSON."""

    model: Plain | None = Field(None, description="A name from `GET /v1/models`; by default the first.")
    language: Annotated[str, StringConstraints(pattern=r"^([A-Za-z]{2,3}|auto)$", to_lower=True)] = Field(
        "auto", description="ISO 639 code of the language spoken, or `auto`.", examples=["en"]
    )
    task: Literal["transcribe", "translate"] = Field(
        "transcribe", description="`translate` gives English text."
    )
    word_timestamps: bool = Field(False, description="Times of single words.")
    prompt: Annotated[Plain, StringConstraints(max_length=1000)] | None = Field(
        None, description="Words and names the model should expect."
    )
    temperature: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = Field(
        None, description="Fixed sampling temperature; when left out it rises only where decoding fails."
    )
    vad: Literal["on", "off"] = Field("on", description="Find speech first; `off` transcribes everything.")
    vad_threshold: Annotated[float, Field(gt=0, lt=1)] = Field(
        VadOptions().threshold, description="Probability from which sound counts as speech."
    )
    vad_min_silence_s: Annotated[float, Field(ge=0, le=30)] = Field(
        VadOptions().min_silence_s, description="Shorter pauses do not split speech."
    )
    vad_min_speech_s: Annotated[float, Field(ge=0, le=30)] = Field(
        VadOptions().min_speech_s, description="Shorter sounds are not speech."
    )
    vad_pad_s: Annotated[float, Field(ge=0, le=5)] = Field(
        VadOptions().pad_s, description="Kept before and after speech."
    )
    start_s: Seconds | None = Field(None, description="Transcribe from here on.")
    end_s: Seconds | None = Field(None, description="Transcribe up to here.")
    priority: Annotated[int, Field(ge=-10, le=10)] = Field(0, description="Higher goes first.")
    webhook_url: CallbackUrl | None = Field(None, description="Called with a signed POST when the job ends.")
    webhook_auth_header_name: HeaderName | None = Field(
        None, description="A header of your own on the webhook."
    )
    webhook_auth_header_value: HeaderValue | None = Field(None, description="Its value; never shown again.")
    metadata: Annotated[
        dict[MetadataKey, MetadataValue], Field(max_length=MOST_METADATA), BeforeValidator(_json_object)
    ] = Field(
        {},
        description="Your own strings, as a JSON object; given back with the job.",
        json_schema_extra={"additionalProperties": False},
    )
    tag: Annotated[Plain, StringConstraints(max_length=64)] | None = Field(
        None, description="A word to list jobs by."
    )
    retention_s: Annotated[float, Field(ge=1, allow_inf_nan=False)] | None = Field(
        None, description="Data of the ended job is deleted after this."
    )
    deadline_s: Annotated[float, Field(ge=1, le=31_536_000, allow_inf_nan=False)] | None = Field(
        None, description="A job that has not ended so long after it came fails with `deadline_exceeded`."
    )
    reuse: Literal["on", "off"] = Field(
        "on", description="`off` transcribes again what you sent before, with the same options."
    )

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.start_s is not None and self.end_s is not None and self.end_s <= self.start_s:
            raise ValueError("end_s must be more than start_s")
        if (self.webhook_auth_header_name is None) != (self.webhook_auth_header_value is None):
            raise ValueError("webhook_auth_header_name and webhook_auth_header_value go together")
        if self.webhook_auth_header_name is not None and self.webhook_url is None:
            raise ValueError("webhook_auth_header_name needs a webhook_url")
        return self

    def to_options(self, default_model: str) -> Options:
        return Options(
            model=self.model or default_model,
            language=None if self.language == "auto" else self.language,
            task=self.task,
            word_timestamps=self.word_timestamps,
            prompt=self.prompt,
            temperature=self.temperature,
            vad=VadOptions(
                enabled=self.vad == "on",
                threshold=self.vad_threshold,
                min_silence_s=self.vad_min_silence_s,
                min_speech_s=self.vad_min_speech_s,
                pad_s=self.vad_pad_s,
            ),
            start_s=self.start_s,
            end_s=self.end_s,
            priority=self.priority,
            webhook_url=self.webhook_url,
            webhook_auth_header_name=self.webhook_auth_header_name,
            webhook_auth_header_value=self.webhook_auth_header_value,
            metadata=dict(self.metadata),
            tag=self.tag,
            retention_s=self.retention_s,
            deadline_s=self.deadline_s,
            reuse=self.reuse == "on",
        )


class UrlJobIn(OptionsIn):
    """A job whose audio is to be fetched."""

    audio_url: AudioUrl = Field(
        description="Where the recording lies: http, https, or s3 for buckets that the operator opened."
    )
    audio_url_headers: Annotated[
        dict[HeaderName, HeaderValue], Field(max_length=MOST_HEADERS), BeforeValidator(_json_object)
    ] = Field(
        {},
        description="Headers to fetch it with, to its own server only; never shown again.",
        json_schema_extra={"additionalProperties": False},
    )

    @model_validator(mode="after")
    def _have_a_use(self) -> Self:
        if self.audio_url_headers and self.audio_url.startswith("s3:"):
            raise ValueError("audio_url_headers are for http and https")
        return self


class JobPath(BaseModel):
    job_id: str = Field(description="Id of the job.", examples=["job_k3v6zq2m5x7hcdw4n8r1tys9ba"])


class DeliveryPath(JobPath):
    number: Annotated[int, Field(ge=1, le=10**9)] = Field(description="`attempt` of a row of the log.")


class ProblemPath(BaseModel):
    code: str = Field(description="Code of the problem.")


class NoQuery(Strict):
    """Takes no query."""


class JobQuery(Strict):
    wait: Seconds = Field(0, description="Wait up to so many seconds for the job's state to change.")


class FollowHeader(BaseModel):
    last_event_id: Annotated[str, StringConstraints(pattern=r"^[0-9]{1,16}(-[0-9]{1,16})?$")] = Field(
        "0", alias="Last-Event-ID", description="Go on after this event."
    )


class JobsQuery(Strict):
    status: Status | None = None
    model: Plain | None = None
    tag: Plain | None = None
    created_after: Annotated[AwareDatetime, BeforeValidator(_instant)] | None = Field(
        None, description="ISO 8601 with a time zone."
    )
    cursor: Annotated[str, StringConstraints(pattern=r"^[0-9]{1,16}-[A-Za-z0-9_-]{1,64}$")] | None = Field(
        None, description="`next_cursor` of the page before."
    )
    limit: Annotated[int, Field(ge=1, le=100)] = 20


class CorrectionIn(Strict):
    id: Annotated[int, Field(ge=0, le=10**9, strict=True)] = Field(description="Of the segment.")
    text: Annotated[Plain, StringConstraints(max_length=10_000)] = Field(
        description="What it is to say; empty takes it out of text and subtitles."
    )


class CorrectionsIn(Strict):
    corrections: Annotated[list[CorrectionIn], Field(max_length=100_000)]

    @model_validator(mode="after")
    def _name_each_once(self) -> Self:
        if len(self.texts()) < len(self.corrections):
            raise ValueError("a segment is corrected twice")
        return self

    def texts(self) -> dict[int, str]:
        return {correction.id: correction.text for correction in self.corrections}


class ShapeQuery(Strict):
    """How a transcript is written."""

    format: Literal["json", "text", "srt", "vtt", "tsv", "csv"] | None = Field(
        None, description="Goes before the Accept header."
    )
    guard_formulas: bool = Field(
        False, description="CSV only: an apostrophe before cells a spreadsheet would run as a formula."
    )
    max_line_chars: Annotated[int, Field(ge=8, le=500)] | None = Field(
        None, description="Subtitles: characters in a line; longer segments become several cues."
    )
    max_lines: Annotated[int, Field(ge=1, le=10)] | None = Field(
        None, description="Subtitles: lines of a cue; 2 where only max_line_chars is given."
    )
    max_cps: Annotated[float, Field(ge=1, le=100)] | None = Field(
        None, description="Subtitles: characters a second; a cue stays longer where the next one allows it."
    )
    min_gap_s: Annotated[float, Field(ge=0, le=5)] = Field(
        0, description="Subtitles: seconds between two cues."
    )
    word_cues: bool = Field(False, description="WebVTT: the time of each word inside its cue.")

    def shaping(self) -> Shaping:
        return Shaping(self.max_line_chars, self.max_lines, self.max_cps, self.min_gap_s)


class TranscriptQuery(ShapeQuery):
    wait: Seconds = Field(0, description="Wait up to so many seconds for the job to end.")
