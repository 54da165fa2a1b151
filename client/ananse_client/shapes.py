"""What the service answers, as values. All times are seconds; `raw` is the answer as it came."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from typing_extensions import TypedDict

Format = Literal["json", "text", "srt", "vtt", "tsv", "csv"]
ENDED = frozenset({"completed", "failed", "canceled", "expired"})

Raw = Mapping[str, Any]


class Options(TypedDict, total=False):
    """Options of a job; docs/api.md of the service says what each means. What is None counts as left out."""

    model: "str | None"
    language: "str | None"
    task: "Literal['transcribe', 'translate'] | None"
    word_timestamps: "bool | None"
    prompt: "str | None"
    temperature: "float | None"
    vad: "Literal['on', 'off'] | None"
    vad_threshold: "float | None"
    vad_min_silence_s: "float | None"
    vad_min_speech_s: "float | None"
    vad_pad_s: "float | None"
    start_s: "float | None"
    end_s: "float | None"
    priority: "int | None"
    webhook_url: "str | None"
    webhook_auth_header_name: "str | None"
    webhook_auth_header_value: "str | None"
    metadata: "dict[str, str] | None"
    tag: "str | None"
    retention_s: "float | None"
    deadline_s: "float | None"
    reuse: "Literal['on', 'off'] | None"


class Shaping(TypedDict, total=False):
    """How subtitles are to be cut."""

    max_line_chars: "int | None"
    max_lines: "int | None"
    max_cps: "float | None"
    min_gap_s: "float | None"
    word_cues: "bool | None"


@dataclass(frozen=True, slots=True)
class Progress:
    done_s: float = 0.0
    total_s: float | None = None
    fraction: float | None = None
    eta_s: float | None = None


@dataclass(frozen=True, slots=True)
class ModelUsed:
    name: str = ""
    revision: str | None = None
    device: str | None = None
    dtype: str | None = None


@dataclass(frozen=True, slots=True)
class Media:
    name: str = ""
    size_bytes: int = 0
    sha256: str = ""
    duration_s: float | None = None
    container: str | None = None
    codec: str | None = None


@dataclass(frozen=True, slots=True)
class Language:
    code: str
    confidence: float | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    code: str
    detail: str = ""
    retryable: bool = False


@dataclass(frozen=True, slots=True)
class Timings:
    queued_s: float | None = None
    decode_s: float | None = None
    inference_s: float | None = None
    total_s: float | None = None
    rtf: float | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """`status` is queued, running, completed, failed, canceled or expired."""

    id: str
    status: str
    created_at: datetime
    stage: str | None = None
    progress: Progress = Progress()
    model: ModelUsed = ModelUsed()
    media: Media = Media()
    language: Language | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    expires_at: datetime | None = None
    attempt: int = 0
    error: Failure | None = None
    timings: Timings = Timings()
    metadata: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    retry_of: str | None = None
    reused_from: str | None = None
    raw: Raw = field(default_factory=dict, repr=False, compare=False)

    @property
    def has_ended(self) -> bool:
        return self.status in ENDED


@dataclass(frozen=True, slots=True)
class Page:
    """Of jobs, newest first; `next_cursor` is None on the last one."""

    jobs: tuple[Job, ...]
    next_cursor: str | None = None


@dataclass(frozen=True, slots=True)
class Word:
    start: float
    end: float
    text: str
    probability: float = 1.0


@dataclass(frozen=True, slots=True)
class Segment:
    """`flags` names what is doubtful about it. In events `id` is not known yet."""

    start: float
    end: float
    text: str
    id: int | None = None
    words: tuple[Word, ...] | None = None
    avg_logprob: float | None = None
    compression_ratio: float | None = None
    no_speech_prob: float | None = None
    temperature: float | None = None
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Suppressed:
    """Text that was removed, and why."""

    start: float
    end: float
    text: str
    reason: str


@dataclass(frozen=True, slots=True)
class Transcript:
    """`partial` is true for a canceled job: this is what was done."""

    text: str
    segments: tuple[Segment, ...]
    duration_s: float = 0.0
    language: Language | None = None
    suppressed: tuple[Suppressed, ...] = ()
    warnings: tuple[str, ...] = ()
    partial: bool = False
    raw: Raw = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Event:
    """`kind` is `state`, `progress` or `segments`; `id` is empty where it was found by asking."""

    kind: str
    id: str = ""
    status: str | None = None
    stage: str | None = None
    done_s: float | None = None
    total_s: float | None = None
    segments: tuple[Segment, ...] = ()
    raw: Raw = field(default_factory=dict, repr=False, compare=False)

    @property
    def is_end(self) -> bool:
        return self.status in ENDED


@dataclass(frozen=True, slots=True)
class Delivery:
    """One attempt to call the webhook; `status` is None when nothing came back."""

    attempt: int
    at: datetime
    status: int | None = None
    duration_s: float = 0.0
    error: str | None = None
    answer: str = ""
    raw: Raw = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Abilities:
    languages: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    segment_timestamps: bool = False
    word_timestamps: bool = False
    language_detection: bool = False
    prompt: bool = False
    window_s: float = 30.0
    repairs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Model:
    """`live` says whether a worker that serves it is up; `rtfx` is audio seconds per second."""

    name: str
    default: bool = False
    live: bool = False
    workers: int = 0
    device: str | None = None
    dtype: str | None = None
    revision: str | None = None
    abilities: Abilities | None = None
    rtfx: float | None = None
    raw: Raw = field(default_factory=dict, repr=False, compare=False)
