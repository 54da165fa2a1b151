"""A job's record as a value; in Redis it is a hash of strings, which the scripts write."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime

from pydantic import TypeAdapter

from shared.errors import StoreUnavailable
from shared.job import Delivery, Failure, Job, ModelUsed, Options, Stage, Status, Timings
from shared.media import Media
from shared.transcript import Language


def media_json(media: Media) -> str:
    return _media.dump_json(media).decode()


def read_delivery(row: str) -> Delivery:
    return _delivery.validate_json(row)


def read_record(record: Mapping[str, str]) -> Job:
    """Raises StoreUnavailable for what another version of the service has written."""
    try:
        return _job(record)
    except (KeyError, ValueError) as error:
        raise StoreUnavailable("A record of another version cannot be read.", retry_after_s=30) from error


def _job(record: Mapping[str, str]) -> Job:
    created_at = _instant(record["created_at"])
    started_at = _instant(record["started_at"]) if "started_at" in record else None
    finished_at = _instant(record["finished_at"]) if "finished_at" in record else None
    media = _media.validate_json(record["media"])
    return Job(
        id=record["id"],
        tenant=record["tenant"],
        status=Status(record["status"]),
        options=Options.from_json(record["options"]),
        media=media,
        created_at=created_at,
        request_id=record.get("request_id", ""),
        stage=Stage(record["stage"]) if record.get("stage") else None,
        done_s=float(record.get("done_s", 0)),
        total_s=float(record["total_s"]) if "total_s" in record else None,
        attempt=int(record.get("attempt", 0)),
        started_at=started_at,
        finished_at=finished_at,
        expires_at=_instant(record["expires_at"]) if "expires_at" in record else None,
        language=_language.validate_json(record["language"]) if record.get("language") else None,
        failure=_failure.validate_json(record["failure"]) if record.get("failure") else None,
        model=_model.validate_json(record["model"]) if record.get("model") else None,
        timings=_timings(record, created_at, started_at, finished_at, media),
        webhook_status=record.get("webhook_status"),
        retry_of=record.get("retry_of") or None,
        parts=int(record.get("parts", 0)),
        warnings=tuple(json.loads(record.get("warnings", "[]"))),
        reused_from=record.get("reused_from") or None,
        traceparent=record.get("traceparent", ""),
        fetched_bytes=int(record.get("fetched_bytes", 0)),
        fetch_bytes=int(record["fetch_bytes"]) if record.get("fetch_bytes", "null") != "null" else None,
    )


def _timings(
    record: Mapping[str, str],
    created_at: datetime,
    started_at: datetime | None,
    finished_at: datetime | None,
    media: Media,
) -> Timings:
    total_s = (finished_at - created_at).total_seconds() if finished_at else None
    worked_s = (finished_at - started_at).total_seconds() if finished_at and started_at else None
    return Timings(
        queued_s=(started_at - created_at).total_seconds() if started_at else None,
        decode_s=float(record["decode_s"]) if "decode_s" in record else None,
        inference_s=round(float(record["inference_s"]), 3) if "inference_s" in record else None,
        total_s=total_s,
        rtf=round(worked_s / media.duration_s, 4) if worked_s is not None and media.duration_s else None,
    )


def _instant(milliseconds: str) -> datetime:
    return datetime.fromtimestamp(float(milliseconds) / 1000, UTC)


_media: TypeAdapter[Media] = TypeAdapter(Media)
_language: TypeAdapter[Language] = TypeAdapter(Language)
_failure: TypeAdapter[Failure] = TypeAdapter(Failure)
_model: TypeAdapter[ModelUsed] = TypeAdapter(ModelUsed)
_delivery: TypeAdapter[Delivery] = TypeAdapter(Delivery)
