"""Job records: making, reading, listing and removing them. What moves a job along is in `ledger.py`."""

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic import TypeAdapter

from shared.errors import IdempotencyMismatch, NotFound
from shared.job import Delivery, Failure, Job, ModelUsed, Options, Stage, Status, Timings
from shared.ledger import PREPARE, prepare_queue_of
from shared.media import Media
from shared.redis_store import RedisStore
from shared.transcript import Language, WindowResult

_SCAN = 200
_MOST_SCANNED = 5_000
_BLOCK_S = 2.0


@dataclass(frozen=True, slots=True)
class NewJob:
    """What `create` needs; `request_hash` tells whether an Idempotency-Key is used for the same request."""

    id: str
    tenant: str
    options: Options
    media: Media
    request_id: str = ""
    retry_of: str | None = None
    idempotency_key: str = ""
    request_hash: str = ""


@dataclass(frozen=True, slots=True)
class Filters:
    """`cursor` is what the page before gave as its own."""

    status: Status | None = None
    model: str | None = None
    tag: str | None = None
    created_after: datetime | None = None
    cursor: str | None = None
    limit: int = 20


@dataclass(frozen=True, slots=True)
class Page:
    jobs: tuple[Job, ...]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class Event:
    """`id` orders events of one job; `body` is JSON."""

    id: str
    kind: str
    body: str


class JobStore:
    """Records in Redis. Every method raises StoreUnavailable when Redis does not answer."""

    def __init__(self, store: RedisStore) -> None:
        self._store = store

    def create(self, new: NewJob, idempotency_s: float = 0.0) -> tuple[Job, bool]:
        """The job, and whether it is new. With a known idempotency key the job made first is given.

        Raises IdempotencyMismatch when the key was used with another request.
        """
        fields = {
            "options": new.options.to_json(),
            "media": _media.dump_json(new.media).decode(),
            "model_name": new.options.model,
            "priority": str(new.options.priority),
            "tag": new.options.tag or "",
            "request_id": new.request_id,
            "retry_of": new.retry_of or "",
        }
        outcome, job_id = self._store.run(
            "create",
            new.id,
            new.tenant,
            prepare_queue_of(new.media.size_bytes),
            json.dumps(fields),
            new.idempotency_key,
            new.request_hash,
            int(idempotency_s * 1000),
        )
        if outcome == "mismatch":
            raise IdempotencyMismatch()
        return self.get(job_id), outcome == "created"

    def get(self, job_id: str, tenant: str | None = None) -> Job:
        """Raises NotFound, also for a job of another tenant: they are not to be told apart."""
        with self._store.guarded():
            record: Mapping[str, str] = self._store.client.hgetall(self._store.key("job", job_id))
        if not record.get("status") or (tenant is not None and record["tenant"] != tenant):
            raise NotFound("There is no such job.")
        return job_of(record)

    def page(self, tenant: str, filters: Filters) -> Page:
        """Newest first. A page may be short of `limit` and still have a next one when filters are narrow."""
        found: list[Job] = []
        cursor = filters.cursor
        scanned = 0
        while len(found) < filters.limit and scanned < _MOST_SCANNED:
            batch = self._ids_before(tenant, cursor, filters.created_after)
            if not batch:
                return Page(tuple(found), None)
            scanned += len(batch)
            for job_id, created in batch:
                cursor = f"{int(created)}-{job_id}"
                job = self._find(job_id)
                if job is not None and _matches(job, filters):
                    found.append(job)
                if len(found) == filters.limit:
                    break
        return Page(tuple(found), cursor)

    def position(self, job: Job) -> int | None:
        """How many files wait to be begun before this one; None when it does not wait."""
        lane = prepare_queue_of(job.media.size_bytes)
        with self._store.guarded():
            rank: int | None = self._store.client.zrank(
                self._store.key("waiting", lane), f"{job.id}/{PREPARE}"
            )
        return rank

    def wait(self, job_id: str, tenant: str | None, seconds: float, *, until_end: bool = False) -> Job:
        """The job once its state has changed (or, `until_end`, once it has ended), or as it is in the end."""
        deadline = time.monotonic() + seconds
        last = self._last_event(job_id)
        job = self.get(job_id, tenant)
        while not job.status.is_terminal and (left := deadline - time.monotonic()) > 0:
            events = self.events(job_id, last, min(left, _BLOCK_S))
            if events:
                last = events[-1].id
            if any(event.kind == "state" for event in events):
                job = self.get(job_id, tenant)
                if not until_end or job.status.is_terminal:
                    return job
        return self.get(job_id, tenant)

    def events(self, job_id: str, after: str, wait_s: float) -> tuple[Event, ...]:
        """Events after the id `after` ("0" for all), waiting up to `wait_s` for the first."""
        with self._store.guarded():
            streams = self._store.client.xread(
                {self._store.key("events", job_id): after}, count=500, block=max(1, int(wait_s * 1000))
            )
        rows = _stream_rows(streams)
        return tuple(Event(row_id, fields["kind"], fields["body"]) for row_id, fields in rows)

    def windows(self, job_id: str) -> tuple[WindowResult, ...]:
        """Finished windows of parts that are still being worked on."""
        with self._store.guarded():
            steps: set[str] = self._store.client.smembers(self._store.key("steps", job_id))
            kept = [
                self._store.client.hvals(self._store.key("windows", job_id, step))
                for step in sorted(steps)
                if step.startswith("part")
            ]
        return tuple(WindowResult.from_json(text) for texts in kept for text in texts)

    def deliveries(self, job_id: str) -> tuple[Delivery, ...]:
        with self._store.guarded():
            rows: list[str] = self._store.client.lrange(self._store.key("deliveries", job_id), 0, -1)
        return tuple(_delivery.validate_json(row) for row in rows)

    def expire(self, job_id: str, tombstone_s: float) -> None:
        """Marks an ended job whose data was deleted."""
        self._store.run("expire", job_id, int(tombstone_s * 1000))

    def due_for_expiry(self, limit: int = 100) -> tuple[str, ...]:
        with self._store.guarded():
            seconds, _ = self._store.client.time()
            due: list[str] = self._store.client.zrangebyscore(
                self._store.key("expiry"), "-inf", seconds * 1000, start=0, num=limit
            )
        return tuple(due)

    def delete(self, job_id: str) -> bool:
        """Removes the record and all that hangs on it; the bytes are the blob store's."""
        return bool(self._store.run("delete", job_id))

    def ping(self) -> None:
        with self._store.guarded():
            self._store.client.ping()

    def _find(self, job_id: str) -> Job | None:
        try:
            return self.get(job_id)
        except NotFound:
            return None

    def _ids_before(
        self, tenant: str, cursor: str | None, created_after: datetime | None
    ) -> list[tuple[str, float]]:
        newest, _, last_id = cursor.partition("-") if cursor else ("+inf", "", "")
        oldest = f"({created_after.timestamp() * 1000:.0f}" if created_after else "-inf"
        start = 0
        while True:
            with self._store.guarded():
                rows: list[tuple[str, float]] = self._store.client.zrevrangebyscore(
                    self._store.key("jobs", tenant), newest, oldest, start=start, num=_SCAN, withscores=True
                )
            # Ids of one millisecond come in falling order, so the cursor's own is where the last page ended.
            found = [
                (job_id, score)
                for job_id, score in rows
                if not last_id or score < float(newest) or job_id < last_id
            ]
            if found or len(rows) < _SCAN:
                return found
            start += _SCAN

    def _last_event(self, job_id: str) -> str:
        with self._store.guarded():
            rows = self._store.client.xrevrange(self._store.key("events", job_id), count=1)
        return str(rows[0][0]) if rows else "0"


def job_of(record: Mapping[str, str]) -> Job:
    """The record's hash as a value."""
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


def _matches(job: Job, filters: Filters) -> bool:
    return (
        (filters.status is None or job.status is filters.status)
        and (filters.model is None or job.options.model == filters.model)
        and (filters.tag is None or job.options.tag == filters.tag)
    )


def _instant(milliseconds: str) -> datetime:
    return datetime.fromtimestamp(float(milliseconds) / 1000, UTC)


def _stream_rows(streams: object) -> Iterator[tuple[str, dict[str, str]]]:
    """redis-py answers a list of pairs under RESP2 and a dict of lists of lists under RESP3."""
    if isinstance(streams, dict):
        for batches in streams.values():
            for batch in batches:
                yield from batch
    elif isinstance(streams, list):
        for _, rows in streams:
            yield from rows


_media: TypeAdapter[Media] = TypeAdapter(Media)
_language: TypeAdapter[Language] = TypeAdapter(Language)
_failure: TypeAdapter[Failure] = TypeAdapter(Failure)
_model: TypeAdapter[ModelUsed] = TypeAdapter(ModelUsed)
_delivery: TypeAdapter[Delivery] = TypeAdapter(Delivery)
