"""The client's book: what it was promised and what it saw. Whether promises were kept is a comparison."""

import threading
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

TERMINAL = ("completed", "failed", "canceled")


@dataclass(slots=True)
class Promise:
    """A job by its idempotency key. `job_ids` has more than one entry when the key led to several."""

    key: str
    recording: int
    job_ids: set[str] = field(default_factory=set)
    was_answered: bool = False
    was_canceled: bool = False


class Book:
    """Written by all clients at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.promises: dict[str, Promise] = {}
        self.ends: dict[str, set[str]] = defaultdict(set)
        self.hooks: dict[str, set[bytes]] = defaultdict(set)

    def ask(self, key: str, recording: int) -> Promise:
        with self._lock:
            return self.promises.setdefault(key, Promise(key, recording))

    def answered(self, promise: Promise, job_id: str) -> None:
        with self._lock:
            promise.was_answered = True
            promise.job_ids.add(job_id)

    def saw(self, job_id: str, status: str) -> None:
        if status in TERMINAL:
            with self._lock:
                self.ends[job_id].add(status)

    def called(self, webhook_id: str, body: bytes) -> None:
        with self._lock:
            self.hooks[webhook_id].add(body)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Each names the jobs, keys or webhook ids of which it is true. All but `recovered` break a promise."""

    lost: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    duplicated: tuple[str, ...] = ()
    recovered: tuple[str, ...] = ()
    stuck: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    uncalled: tuple[str, ...] = ()

    @property
    def is_kept(self) -> bool:
        return not any(
            (
                self.lost,
                self.unexpected,
                self.duplicated,
                self.stuck,
                self.wrong,
                self.changed,
                self.failed,
                self.uncalled,
            )
        )


def judge(
    book: Book, records: Iterable[Mapping[str, Any]], texts: Mapping[str, str], right: Mapping[int, str]
) -> Verdict:
    """`records` are all jobs as the service lists them in the end; `texts` holds the transcripts of those
    that completed, `right` the only right text of each recording. A job's tag is its idempotency key."""
    by_id = {str(record["id"]): record for record in records}
    by_key: dict[str, list[str]] = defaultdict(list)
    for job_id, record in by_id.items():
        by_key[str(record["options"]["tag"])].append(job_id)
    promised = {job_id: promise for promise in book.promises.values() for job_id in promise.job_ids}
    answered = [promise for promise in book.promises.values() if promise.was_answered]
    known = {job_id: book.promises.get(str(record["options"]["tag"])) for job_id, record in by_id.items()}
    return Verdict(
        lost=_sorted(job_id for job_id in promised if job_id not in by_id),
        unexpected=_sorted(job_id for job_id, promise in known.items() if promise is None),
        duplicated=_sorted(
            [key for key, ids in by_key.items() if len(ids) > 1]
            + [promise.key for promise in answered if len(promise.job_ids) > 1]
            + [webhook for webhook, bodies in book.hooks.items() if len(bodies) > 1]
        ),
        recovered=_sorted(
            job_id for job_id, promise in known.items() if promise is not None and not promise.was_answered
        ),
        stuck=_sorted(job_id for job_id, record in by_id.items() if record["status"] not in TERMINAL),
        wrong=_sorted(
            job_id
            for job_id, text in texts.items()
            if (promise := known.get(job_id)) is not None and text != right[promise.recording]
        ),
        changed=_sorted(
            job_id
            for job_id, ends in book.ends.items()
            if len(ends) > 1 or (job_id in by_id and by_id[job_id]["status"] not in ends)
        ),
        failed=_sorted(
            job_id
            for job_id, record in by_id.items()
            if record["status"] == "failed"
            or (
                record["status"] == "canceled"
                and not ((promise := known[job_id]) is not None and promise.was_canceled)
            )
        ),
        uncalled=_sorted(
            job_id
            for job_id, record in by_id.items()
            if record.get("webhook") and record["status"] in TERMINAL and not _was_called(book, job_id)
        ),
    )


def _was_called(book: Book, job_id: str) -> bool:
    return f"msg_{job_id}_deliver-0" in book.hooks


def _sorted(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(names)))
