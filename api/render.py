"""Jobs and their options as clients see them: what is ours alone (tenant, secrets, paths) stays behind."""

import hashlib
import math
from urllib.parse import urlsplit, urlunsplit

from api.answers import (
    FailureOut,
    JobOut,
    LanguageOut,
    LinksOut,
    MediaOut,
    ModelUsedOut,
    OptionsOut,
    ProgressOut,
    QueueOut,
    TimingsOut,
    WebhookOut,
)
from api.estimates import Estimate
from shared.job import Job, ModelUsed, Options, Stage, Status

_SOONEST_S = 1
_LATEST_S = 30
_UNKNOWN_S = 2


def job_out(job: Job, estimate: Estimate) -> JobOut:
    model = job.model or ModelUsed(job.options.model)
    return JobOut(
        id=job.id,
        status=job.status,
        stage=job.stage,
        progress=progress(job, estimate),
        queue=QueueOut(position=estimate.files, ahead_s=estimate.ahead_s),
        model=ModelUsedOut(name=model.name, revision=model.revision, device=model.device, dtype=model.dtype),
        options=options_out(job.options),
        media=MediaOut(
            name=job.media.name,
            size_bytes=job.media.size_bytes,
            sha256=job.media.sha256,
            duration_s=job.media.duration_s,
            container=job.media.container,
            codec=job.media.codec,
            url=job.media.url,
        ),
        language=LanguageOut(code=job.language.code, confidence=job.language.confidence)
        if job.language
        else None,
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
        expires_at=job.expires_at,
        attempt=job.attempt,
        error=FailureOut(code=job.failure.code, detail=job.failure.detail, retryable=job.failure.retryable)
        if job.failure
        else None,
        timings=TimingsOut(
            queued_s=job.timings.queued_s,
            decode_s=job.timings.decode_s,
            inference_s=job.timings.inference_s,
            total_s=job.timings.total_s,
            rtf=job.timings.rtf,
        ),
        webhook=WebhookOut(url=_without_query(job.options.webhook_url), status=job.webhook_status)
        if job.options.webhook_url
        else None,
        metadata=job.options.metadata,
        warnings=list(job.warnings),
        retry_of=job.retry_of,
        reused_from=job.reused_from,
        links=_links(job.id),
    )


def options_out(options: Options) -> OptionsOut:
    return OptionsOut(
        model=options.model,
        language=options.language or "auto",
        task=options.task,
        word_timestamps=options.word_timestamps,
        prompt=options.prompt,
        temperature=options.temperature,
        vad="on" if options.vad.enabled else "off",
        vad_threshold=options.vad.threshold,
        vad_min_silence_s=options.vad.min_silence_s,
        vad_min_speech_s=options.vad.min_speech_s,
        vad_pad_s=options.vad.pad_s,
        start_s=options.start_s,
        end_s=options.end_s,
        priority=options.priority,
        webhook_url=_without_query(options.webhook_url) if options.webhook_url else None,
        webhook_auth_header_name=options.webhook_auth_header_name,
        tag=options.tag,
        retention_s=options.retention_s,
        deadline_s=options.deadline_s,
        reuse="on" if options.reuse else "off",
    )


def progress(job: Job, estimate: Estimate) -> ProgressOut:
    fraction = None
    is_fetching = job.stage is Stage.FETCHING
    if job.status is Status.COMPLETED:
        fraction = 1.0
    elif job.total_s:
        fraction = round(min(1.0, job.done_s / job.total_s), 4)
    elif is_fetching and job.fetch_bytes:
        fraction = round(min(1.0, job.fetched_bytes / job.fetch_bytes), 4)
    return ProgressOut(
        done_s=round(job.done_s, 3),
        total_s=job.total_s,
        fraction=fraction,
        done_bytes=job.fetched_bytes if is_fetching else None,
        total_bytes=job.fetch_bytes if is_fetching else None,
        eta_s=estimate.eta_s,
    )


def retry_after_s(job: JobOut) -> int:
    """When looking again is worth it."""
    if job.progress.eta_s is None:
        return _UNKNOWN_S
    return min(_LATEST_S, max(_SOONEST_S, math.ceil(job.progress.eta_s)))


def etag(job: JobOut) -> str:
    """Changes with the job, not with the clock: estimates are left out."""
    text = job.model_dump_json(exclude={"progress": {"eta_s"}, "queue": {"ahead_s"}})
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def job_path(job_id: str) -> str:
    return f"/v1/jobs/{job_id}"


def _links(job_id: str) -> LinksOut:
    path = job_path(job_id)
    return LinksOut(
        self=path,
        transcript=f"{path}/transcript",
        audio=f"{path}/audio",
        events=f"{path}/events",
        deliveries=f"{path}/deliveries",
        cancel=f"{path}/cancel",
        retry=f"{path}/retry",
    )


def _without_query(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc, parts.path, "", ""))
