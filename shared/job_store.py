"""Job records: making, reading, listing and removing them. What moves a job along is in `ledger.py`."""

import itertools
import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from shared.api_keys import NO_LIMITS, Limits
from shared.errors import (
    BacklogFull,
    IdempotencyMismatch,
    NotFound,
    StorageFull,
    StoreUnavailable,
    TooManyJobs,
    TooMuchAudio,
    TooMuchStored,
    UploadTooLarge,
)
from shared.job import Delivery, Job, Options, Status
from shared.job_record import media_json, read_delivery, read_record
from shared.ledger import FETCH, FETCH_QUEUE, PREPARE, prepare_queue_of
from shared.media import Media
from shared.redis_store import RedisStore, rows_by_stream
from shared.transcript import WindowResult

MOST_OWED_S = 1e12
"""No bound: some thirty thousand years."""

LIMIT_RETRY_S = 30.0
"""When a limit of a key may have room again nobody knows: jobs end at their own pace."""

_REACHED = {"jobs": TooManyJobs, "audio": TooMuchAudio, "stored": TooMuchStored}
_SCAN = 200
_MOST_SCANNED = 5_000
_CHUNK = 500
_BLOCK_S = 1.0


@dataclass(frozen=True, slots=True)
class NewJob:
    """What `create` needs; `request_hash` tells whether an Idempotency-Key is used for the same request.

    `audio_s` is how much audio it seems to be, before anybody decoded it. `accepted_at` is an API's clock.
    `key_id` is the API key that it counts for; empty where none was asked for.
    """

    id: str
    tenant: str
    options: Options
    media: Media
    request_id: str = ""
    retry_of: str | None = None
    idempotency_key: str = ""
    request_hash: str = ""
    audio_s: float = 0.0
    accepted_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    traceparent: str = ""
    key_id: str = ""


@dataclass(frozen=True, slots=True)
class Ahead:
    """What comes before a job: `files` to be begun, `audio_s` seconds of audio; and what it owes itself."""

    files: int
    audio_s: float
    own_s: float


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

    def create(
        self,
        new: NewJob,
        idempotency_s: float = 0.0,
        most_owed_s: float = MOST_OWED_S,
        limits: Limits = NO_LIMITS,
    ) -> tuple[Job, bool]:
        """The job, and whether it is new. With a known idempotency key the job made first is given.

        Raises IdempotencyMismatch when the key was used with another request, BacklogFull when the service
        owes `most_owed_s` of audio already, StorageFull when Redis has no room for more jobs,
        LimitReached when the API key would have more than its `limits`, and UploadTooLarge when this job
        alone is more than they allow, at any time.
        """
        outcome, job_id = self._enter(new, {}, idempotency_s, int(most_owed_s * 1000), limits)
        if outcome == "mismatch":
            raise IdempotencyMismatch()
        if outcome == "backlog":
            raise BacklogFull()
        if outcome == "full":
            raise StorageFull("The job store is full.", retry_after_s=30)
        if outcome == "never_audio":
            raise above_audio_limit(new.audio_s, limits)
        if outcome == "never_stored":
            raise above_stored_limit(limits)
        if outcome in _REACHED:
            raise _REACHED[outcome](retry_after_s=LIMIT_RETRY_S)
        is_new = outcome == "created"
        try:
            return self.get(job_id), is_new
        except NotFound as error:
            if is_new:
                # Nobody else knows its id: Redis has lost it since.
                raise StoreUnavailable(retry_after_s=5) from error
            raise

    def create_again(self, accepted: NewJob, idempotency_s: float) -> bool:
        """Makes the record of a job that was accepted before and forgotten; it waits as if it had just come.

        False when its idempotency key leads to another job.
        """
        created_at = str(int(accepted.accepted_at.timestamp() * 1000))
        outcome, _ = self._enter(accepted, {"created_at": created_at}, idempotency_s, 0, NO_LIMITS)
        return bool(outcome == "created")

    def _enter(
        self, new: NewJob, more: dict[str, str], idempotency_s: float, most_ms: int, limits: Limits
    ) -> tuple[str, str]:
        options = new.options
        fields = {
            "options": options.to_json(),
            "media": media_json(new.media),
            "model_name": options.model,
            "priority": str(options.priority),
            "tag": options.tag or "",
            "request_id": new.request_id,
            "retry_of": new.retry_of or "",
            "traceparent": new.traceparent,
        }
        if options.deadline_s is not None:
            fields["deadline_ms"] = str(int(options.deadline_s * 1000))
        outcome, job_id = self._store.run(
            "create",
            new.id,
            new.tenant,
            *first_step(new.media),
            json.dumps(fields | more),
            int(new.audio_s * 1000),
            new.idempotency_key,
            new.request_hash,
            max(1, int(idempotency_s * 1000)),
            most_ms,
            new.media.size_bytes,
            new.key_id,
            limits.jobs,
            int(limits.audio_s * 1000),
            limits.stored_bytes,
        )
        return outcome, job_id

    def get(self, job_id: str, tenant: str | None = None) -> Job:
        """Raises NotFound, also for a job of another tenant: they are not to be told apart."""
        with self._store.guarded():
            record: Mapping[str, str] = self._store.client.hgetall(self._store.key("job", job_id))
        if not record.get("status") or (tenant is not None and record["tenant"] != tenant):
            raise NotFound("There is no such job.")
        return read_record(record)

    def request_of(self, job_id: str) -> str:
        """The request that made the job, also of a record that this version cannot read; "" if not known."""
        with self._store.guarded():
            name: str | None = self._store.client.hget(self._store.key("job", job_id), "request_id")
        return name or ""

    def without_record(self, job_ids: Iterable[str]) -> Iterator[str]:
        """Those of `job_ids` that have no record; thousands are asked for with few questions."""
        rows = iter(job_ids)
        while chunk := tuple(itertools.islice(rows, _CHUNK)):
            with self._store.guarded():
                pipe = self._store.client.pipeline(transaction=False)
                for job_id in chunk:
                    pipe.hexists(self._store.key("job", job_id), "status")
                are_known: list[bool] = pipe.execute()
            yield from (job_id for job_id, is_known in zip(chunk, are_known, strict=True) if not is_known)

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
            for (job_id, created), job in zip(batch, self._read(batch, filters.limit), strict=False):
                cursor = f"{int(created)}-{job_id}"
                if job is not None and _matches(job, filters):
                    found.append(job)
                if len(found) == filters.limit:
                    break
        return Page(tuple(found), cursor)

    def ahead(self, job_id: str) -> Ahead:
        """An estimate: others get their fair share before a job that waits to be begun, the files of a client
        are taken to be of one length, and what is not decoded yet is judged by its size."""
        files, audio_ms, own_ms = self._store.run("ahead", job_id)
        return Ahead(int(files), int(audio_ms) / 1000, int(own_ms) / 1000)

    def owed_s(self) -> float:
        """Seconds of audio of all jobs that have not ended."""
        with self._store.guarded():
            amounts: list[str] = self._store.client.hvals(self._store.key("backlog"))
        return sum(int(amount) for amount in amounts) / 1000

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
        rows = rows_by_stream(streams).get(self._store.key("events", job_id), ())
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
        return tuple(read_delivery(row) for row in rows)

    def remember_result(self, tenant: str, fingerprint: str, job_id: str, seconds: float) -> None:
        """The job whose transcript has this fingerprint, for so long as it is kept."""
        with self._store.guarded():
            self._store.client.set(
                self._store.key("result", tenant, fingerprint), job_id, px=max(1, int(seconds * 1000))
            )

    def job_with_result(self, tenant: str, fingerprint: str) -> str | None:
        with self._store.guarded():
            job_id: str | None = self._store.client.get(self._store.key("result", tenant, fingerprint))
        return job_id

    def expire(self, job_id: str, tombstone_s: float) -> None:
        """Marks an ended job whose data was deleted."""
        self._store.run("expire", job_id, int(tombstone_s * 1000))

    def put_off_expiry(self, job: Job) -> None:
        """The recording is gone, the rest stays until its own time."""
        if job.expires_at is not None:
            self._store.run("recording_gone", job.id, int(job.expires_at.timestamp() * 1000))

    def due_for_expiry(self, limit: int = 100) -> tuple[str, ...]:
        return self._due("expiry", limit)

    def past_deadline(self, limit: int = 100) -> tuple[str, ...]:
        """Jobs that should have ended by now."""
        return self._due("deadlines", limit)

    def _due(self, kind: str, limit: int) -> tuple[str, ...]:
        with self._store.guarded():
            due: list[str] = self._store.client.zrangebyscore(
                self._store.key(kind), "-inf", self.now_ms(), start=0, num=limit
            )
        return tuple(due)

    def now(self) -> datetime:
        """By Redis' clock, which all hosts share."""
        return datetime.fromtimestamp(self.now_ms() / 1000, UTC)

    def now_ms(self) -> int:
        """Redis TIME, the clock of all instants in records."""
        with self._store.guarded():
            seconds, microseconds = self._store.client.time()
        return int(seconds) * 1000 + int(microseconds) // 1000

    def delete(self, job_id: str) -> bool:
        """Removes the record and all that hangs on it; the bytes are the blob store's."""
        return bool(self._store.run("delete", job_id, 0))

    def forget(self, job_id: str) -> bool:
        """`delete`, unless another sweeper has only just made it the tombstone that it is."""
        return bool(self._store.run("delete", job_id, 1))

    def ping(self) -> None:
        with self._store.guarded():
            self._store.client.ping()

    def _read(self, rows: Sequence[tuple[str, float]], at_once: int) -> Iterator[Job | None]:
        """The jobs of rows of the index, `at_once` with each answer of Redis; None of one that is gone."""
        for start in range(0, len(rows), at_once):
            with self._store.guarded():
                pipe = self._store.client.pipeline(transaction=False)
                for job_id, _ in rows[start : start + at_once]:
                    pipe.hgetall(self._store.key("job", job_id))
                records: list[Mapping[str, str]] = pipe.execute()
            yield from (read_record(record) if record.get("status") else None for record in records)

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


def above_audio_limit(audio_s: float, limits: Limits) -> UploadTooLarge:
    """No wait would help, so it is no LimitReached."""
    return UploadTooLarge(
        f"This recording alone counts as {audio_s:.0f} s of audio, by its header or its size; the API key "
        f"may have {limits.audio_s:.0f} s unfinished at a time."
    )


def above_stored_limit(limits: Limits) -> UploadTooLarge:
    return UploadTooLarge(
        "This recording alone is larger than all that the API key may have stored: "
        f"{limits.stored_bytes} bytes."
    )


def first_step(media: Media) -> tuple[str, str]:
    """Where a job begins: the step and its queue."""
    if not media.is_here:
        return FETCH, FETCH_QUEUE
    return PREPARE, prepare_queue_of(media.size_bytes)


def _matches(job: Job, filters: Filters) -> bool:
    return (
        (filters.status is None or job.status is filters.status)
        and (filters.model is None or job.options.model == filters.model)
        and (filters.tag is None or job.options.tag == filters.tag)
    )
