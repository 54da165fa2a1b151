"""A job as the record holds it, the options it was asked with, and the states it may take.

The record itself changes only in the Lua scripts beside `ledger.py`; `TRANSITIONS` is the law they are
tested against.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Literal

from pydantic import TypeAdapter

from shared.media import Media
from shared.transcript import Language


class Status(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELED = "canceled"
    EXPIRED = "expired"

    @property
    def is_terminal(self) -> bool:
        return self not in (Status.QUEUED, Status.RUNNING)


TRANSITIONS: Mapping[Status, frozenset[Status]] = {
    Status.QUEUED: frozenset({Status.RUNNING, Status.FAILED, Status.CANCELED}),
    Status.RUNNING: frozenset({Status.COMPLETED, Status.FAILED, Status.CANCELED}),
    # `expired` is a retention mark on a job that has ended: its data is gone, its outcome stands.
    Status.COMPLETED: frozenset({Status.EXPIRED}),
    Status.FAILED: frozenset({Status.EXPIRED}),
    Status.CANCELED: frozenset({Status.EXPIRED}),
    Status.EXPIRED: frozenset(),
}


class Stage(StrEnum):
    FETCHING = "fetching"
    DECODING = "decoding"
    TRANSCRIBING = "transcribing"
    FINISHING = "finishing"


@dataclass(frozen=True, slots=True)
class VadOptions:
    """`threshold` is a probability; gaps shorter than `min_silence_s` do not split speech."""

    enabled: bool = True
    threshold: float = 0.5
    min_silence_s: float = 0.3
    min_speech_s: float = 0.1
    pad_s: float = 0.15


@dataclass(frozen=True, slots=True)
class Options:
    """What the client asked for. A snapshot: every attempt of the job uses these and no others."""

    model: str
    language: str | None = None
    task: Literal["transcribe", "translate"] = "transcribe"
    word_timestamps: bool = False
    prompt: str | None = None
    temperature: float | None = None
    vad: VadOptions = VadOptions()
    start_s: float | None = None
    end_s: float | None = None
    priority: int = 0
    webhook_url: str | None = None
    webhook_auth_header_name: str | None = None
    webhook_auth_header_value: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    tag: str | None = None
    retention_s: float | None = None
    deadline_s: float | None = None
    reuse: bool = True

    def to_json(self) -> str:
        return _options.dump_json(self).decode()

    @classmethod
    def from_json(cls, text: str | bytes) -> "Options":
        return _options.validate_json(text)


@dataclass(frozen=True, slots=True)
class Failure:
    code: str
    detail: str
    retryable: bool


@dataclass(frozen=True, slots=True)
class ModelUsed:
    name: str
    revision: str | None = None
    device: str | None = None
    dtype: str | None = None


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds. `inference_s` adds up over workers, so it may exceed the wall time; `rtf` is wall time
    from claim to end over audio duration."""

    queued_s: float | None = None
    decode_s: float | None = None
    inference_s: float | None = None
    total_s: float | None = None
    rtf: float | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """`done_s` and `total_s` are seconds of audio; of a recording that is being fetched `fetched_bytes` are
    there, of `fetch_bytes` if its server tells. Instants are aware UTC. `traceparent` is the trace of the
    request that made it (W3C)."""

    id: str
    tenant: str
    status: Status
    options: Options
    media: Media
    created_at: datetime
    request_id: str = ""
    stage: Stage | None = None
    done_s: float = 0.0
    total_s: float | None = None
    attempt: int = 0
    started_at: datetime | None = None
    finished_at: datetime | None = None
    expires_at: datetime | None = None
    language: Language | None = None
    failure: Failure | None = None
    model: ModelUsed | None = None
    timings: Timings = Timings()
    webhook_status: str | None = None
    retry_of: str | None = None
    parts: int = 0
    warnings: tuple[str, ...] = ()
    reused_from: str | None = None
    traceparent: str = ""
    fetched_bytes: int = 0
    fetch_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Delivery:
    """One attempt to hand a webhook to its receiver; `answer` is the start of what came back."""

    attempt: int
    at: datetime
    status: int | None
    duration_s: float
    error: str | None = None
    answer: str = ""


_options: TypeAdapter[Options] = TypeAdapter(Options)
