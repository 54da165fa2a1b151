"""What clients get, typed once. The OpenAPI document is made from these; making them is in `render.py`."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field

from shared.job import Stage, Status


class FieldError(BaseModel):
    field: str
    message: str


class Problem(BaseModel):
    """RFC 9457 problem document."""

    type: str = Field(examples=["/problems/invalid_option"])
    title: str
    status: int
    detail: str
    instance: str
    code: str = Field(description="Permanent; see the table of codes.", examples=["invalid_option"])
    request_id: str
    errors: list[FieldError] | None = None


class ErrorCodeOut(BaseModel):
    code: str
    title: str
    status: int
    retryable: bool


class ProgressOut(BaseModel):
    done_s: float = Field(description="Seconds of audio done.")
    total_s: float | None = Field(description="Seconds to do; grows while decoding.")
    fraction: float | None = Field(description="Of the audio; in the stage `fetching`, of the bytes.")
    done_bytes: int | None = Field(description="Bytes that are here; null but in the stage `fetching`.")
    total_bytes: int | None = Field(description="Bytes to come in all, if their server tells.")
    eta_s: float | None = Field(
        description="Seconds left: from the pace so far, or from what is ahead and the measured speed of "
        "live workers. null when nobody can tell."
    )


class QueueOut(BaseModel):
    position: int | None = Field(description="Files to be begun before this one; null when it does not wait.")
    ahead_s: float | None = Field(description="Seconds of audio before this one; null when it does not wait.")


class ModelUsedOut(BaseModel):
    name: str
    revision: str | None
    device: str | None
    dtype: str | None


class OptionsOut(BaseModel):
    """The snapshot every attempt uses. The value of your webhook header is kept to ourselves."""

    model: str
    language: str
    task: str
    word_timestamps: bool
    prompt: str | None
    temperature: float | None
    vad: Literal["on", "off"]
    vad_threshold: float
    vad_min_silence_s: float
    vad_min_speech_s: float
    vad_pad_s: float
    start_s: float | None
    end_s: float | None
    priority: int
    webhook_url: str | None = Field(description="Without its query, which may hold secrets.")
    webhook_auth_header_name: str | None
    tag: str | None
    retention_s: float | None
    deadline_s: float | None
    reuse: Literal["on", "off"]


class MediaOut(BaseModel):
    name: str
    size_bytes: int
    sha256: str
    duration_s: float | None
    container: str | None
    codec: str | None
    url: str | None = Field(
        description="The `audio_url`, without its query. Size and hash are 0 and empty until it was fetched."
    )


class LanguageOut(BaseModel):
    code: str
    confidence: float | None


class FailureOut(BaseModel):
    code: str
    detail: str
    retryable: bool


class TimingsOut(BaseModel):
    queued_s: float | None
    decode_s: float | None
    inference_s: float | None
    total_s: float | None
    rtf: float | None


class WebhookOut(BaseModel):
    url: str
    status: str | None = Field(
        description="`pending`, `retrying`, `delivered`, `failed`, or `disabled`: not sent, because the "
        "receiver only fails or is gone. null before the job has ended."
    )


class LinksOut(BaseModel):
    self: str
    transcript: str
    audio: str
    events: str
    deliveries: str
    cancel: str
    retry: str


class JobOut(BaseModel):
    id: str
    status: Status
    stage: Stage | None
    progress: ProgressOut
    queue: QueueOut
    model: ModelUsedOut
    options: OptionsOut
    media: MediaOut
    language: LanguageOut | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    expires_at: datetime | None
    attempt: int
    error: FailureOut | None
    timings: TimingsOut
    webhook: WebhookOut | None
    metadata: dict[str, str]
    warnings: list[str]
    retry_of: str | None
    reused_from: str | None = Field(description="The job of yours whose transcript this one was given.")
    links: LinksOut


class JobsOut(BaseModel):
    jobs: list[JobOut]
    next_cursor: str | None


class DeliveryOut(BaseModel):
    attempt: int = Field(description="Counts on over replays.")
    at: datetime
    status: int | None = Field(description="HTTP status of the answer; null when there was none.")
    duration_s: float
    error: str | None
    answer: str = Field(description="The start of what the receiver answered.")


class DeliveriesOut(BaseModel):
    deliveries: list[DeliveryOut]


class AbilitiesOut(BaseModel):
    languages: list[str]
    tasks: list[str]
    segment_timestamps: bool
    word_timestamps: bool
    language_detection: bool
    prompt: bool
    window_s: float
    repairs: list[str]


class PlacementOut(BaseModel):
    device: str = Field(description="As its workers name it: `cpu`, `cuda:1`.")
    dtype: str
    workers: int
    loaded: int = Field(description="Workers that have it in memory; elsewhere it is loaded when needed.")
    rtfx: float | None = Field(None, description="Measured: audio seconds per second, mean of its workers.")


class ModelOut(BaseModel):
    name: str
    default: bool
    live: bool = Field(description="Whether a worker that serves it is up.")
    workers: int
    slots: int = Field(description="Parts of recordings all its workers take at once.")
    revision: str | None = None
    device: str | None = None
    dtype: str | None = None
    parameters: int | None = None
    abilities: AbilitiesOut | None = None
    details: dict[str, str] = Field({}, description="How it runs there, in its worker's words.")
    rtfx: float | None = Field(None, description="Measured: audio seconds per second, mean of its workers.")
    placements: list[PlacementOut] = Field([], description="On which devices live workers serve it.")
    decoder_guards: list[str] | None = Field(
        None,
        description="Walls around the decoder that stand on all of its workers; see docs/media.md.",
    )


class OpenAiModelOut(BaseModel):
    id: str
    object: Literal["model"] = "model"
    created: int = Field(0, description="Nobody knows.")
    owned_by: str = "ananse"


class ModelsOut(BaseModel):
    models: list[ModelOut]
    object: Literal["list"] = "list"
    data: list[OpenAiModelOut] = Field([], description="The same models, for OpenAI's clients.")


class SeedMetadataOut(BaseModel):
    audio_duration_sec: float | None
    processing_time_sec: float | None
    inference_time_sec: float | None
    rtf: float | None
    device: str | None


class SeedOut(BaseModel):
    transcript: str
    metadata: SeedMetadataOut


class SeedHealthOut(BaseModel):
    status: Literal["healthy", "unhealthy"]
    model: str
    device: str | None
    torch_version: str | None
    code: Literal["no_worker", "store_unavailable"] | None = Field(
        None, description="Why it is unhealthy, in the words of problems."
    )


class LiveOut(BaseModel):
    status: Literal["live"]


class ReadyOut(BaseModel):
    status: Literal["ready"] = "ready"
    checks: dict[str, str]
    workers: int = Field(description="Live workers; for information, jobs wait when there are none.")


class SegmentOut(BaseModel):
    id: int
    start: float
    end: float
    text: str
    avg_logprob: float
    compression_ratio: float
    no_speech_prob: float
    temperature: float
    words: list["WordOut"] | None = None
    flags: list[str]


class WordOut(BaseModel):
    start: float
    end: float
    text: str
    probability: float


class SuppressedOut(BaseModel):
    start: float
    end: float
    text: str
    reason: str


class TranscriptOut(BaseModel):
    text: str
    language: LanguageOut | None
    duration_s: float
    segments: list[SegmentOut]
    suppressed: list[SuppressedOut]
    warnings: list[str]
    partial: bool = Field(description="True for a canceled job: this is what was done.")
    model: dict[str, str | None]
    options: OptionsOut
