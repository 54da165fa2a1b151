"""The ledger: steps of jobs, who works on them and how they end.

Every method is one Lua script, so it happens whole or not at all, on Redis time, fenced by the attempt
number of the claim. Records are the truth; queue messages are hints.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from shared.errors import StoreUnavailable
from shared.job import Delivery, Status
from shared.models import long_queue_of, queue_of
from shared.redis_store import RedisStore
from shared.transcript import WindowResult

FETCH = "fetch"
PREPARE = "prepare"
FINISH = "finish"
DELIVER = "deliver-0"
FETCH_QUEUE = "fetch"
PREPARE_QUEUE = "prepare"
LONG_PREPARE_QUEUE = "prepare-long"
DELIVER_QUEUE = "deliver"
ALL_QUEUES = "*"

MOST_HINTS = 100
"""Steps of a queue that one dispatch takes: it is soon over, and whoever looks next takes the next ones."""

MOST_SWEPT = 200

FIVE_DAYS_S = 432_000.0

LONG_PART_S = 60.0
LONG_MEDIA_BYTES = 16 * 2**20
"""Above these a part, or a recording yet to be decoded, takes the lane for long work."""


class Fenced(Exception):
    """The caller no longer holds its step: another worker does, or the job has ended or is gone."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class ClaimOutcome(StrEnum):
    """Only `claimed` and `exhausted` hold the step; the latter was begun too often and must be failed.

    `newer` is a record of a later version of the service, which one of its workers will take. `suspect` is
    a step that workers may have died of: it is to be claimed by one that does nothing else meanwhile.
    """

    CLAIMED = "claimed"
    EXHAUSTED = "exhausted"
    TAKEN = "taken"
    DONE = "done"
    ENDED = "ended"
    GONE = "gone"
    NEWER = "newer"
    SUSPECT = "suspect"


@dataclass(frozen=True, slots=True)
class Claim:
    """A step held by this worker until its lease lapses.

    `attempt` is the fence and only grows. `claims` counts the beginnings that are held against the step,
    whatever became of them; `failures` those that ended in an error. `waited_s` is since it came into line.
    """

    job_id: str
    step: str
    outcome: ClaimOutcome
    attempt: int = 0
    claims: int = 0
    body: str = "{}"
    failures: int = 0
    waited_s: float = 0.0

    @property
    def is_held(self) -> bool:
        return self.outcome in (ClaimOutcome.CLAIMED, ClaimOutcome.EXHAUSTED)


class RequeueOutcome(StrEnum):
    """Only `requeued` moved the step; `waiting` stands in line already, `other` is not held by the worker
    that was named."""

    REQUEUED = "requeued"
    WAITING = "waiting"
    OTHER = "other"
    DONE = "done"
    ENDED = "ended"
    GONE = "gone"
    NEWER = "newer"


class ReplayOutcome(StrEnum):
    """`sending` is under way, with a new schedule behind it; `early` is a job that has not ended; `gone` had
    no webhook, or is unknown."""

    REPLAYED = "replayed"
    SENDING = "sending"
    EARLY = "early"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class Requeued:
    """`queue` is where the step belongs; empty when there is no such step."""

    outcome: RequeueOutcome
    queue: str


@dataclass(frozen=True, slots=True)
class Hint:
    """A step that is to be sent to its queue."""

    job_id: str
    step: str


def part_step(number: int) -> str:
    return f"part-{number}"


def prepare_queue_of(size_bytes: int) -> str:
    return LONG_PREPARE_QUEUE if size_bytes > LONG_MEDIA_BYTES else PREPARE_QUEUE


class Ledger:
    """Claim, beat, finish, fail, cancel: compare-and-set on the record."""

    def __init__(self, store: RedisStore, lease_s: float = 30.0) -> None:
        self._store = store
        self._lease_ms = int(lease_s * 1000)

    def claim(
        self, job_id: str, step: str, worker: str, max_claims: int = 0, max_claims_beside: int = 0
    ) -> Claim:
        """Takes the step if nobody holds it. `max_claims` bounds how often it may be begun at all,
        `max_claims_beside` how often by a worker that holds other steps too; 0 is no bound."""
        outcome, *held = self._store.run(
            "claim", job_id, step, worker, self._lease_ms, max_claims, max_claims_beside
        )
        if not held:
            return Claim(job_id, step, ClaimOutcome(outcome))
        attempt, claims, body, failures, waited_ms = held
        return Claim(
            job_id,
            step,
            ClaimOutcome(outcome),
            int(attempt),
            int(claims),
            body,
            int(failures),
            waited_s=int(waited_ms) / 1000,
        )

    def beat(self, claim: Claim) -> None:
        """Renews the lease. Raises Fenced when it is lost; so do all methods that take a claim."""
        self._held("beat", claim, self._lease_ms)

    def checkpoint(self, claim: Claim, result: WindowResult, seconds: float) -> bool:
        """Keeps a finished window and renews the lease; `seconds` of audio count as done.

        False when the part should be handed back now, because others wait for the first slot of this queue
        and its job has more than one.
        """
        word = self._store.run(
            "checkpoint",
            claim.job_id,
            claim.step,
            claim.attempt,
            self._lease_ms,
            result.index,
            result.to_json(),
            seconds,
            result.inference_s,
        )
        if word != "yield":
            _raise_unless_ok(word)
        return bool(word == "ok")

    def kept_windows(self, claim: Claim) -> tuple[WindowResult, ...]:
        """What earlier attempts at this part finished."""
        with self._store.guarded():
            texts: list[str] = self._store.client.hvals(self._store.key("windows", claim.job_id, claim.step))
        return tuple(WindowResult.from_json(text) for text in texts)

    def offer_part(self, prepare: Claim, number: int, model: str, body: str, seconds: float) -> None:
        """Makes a part ready to be claimed. Offered again by a later attempt, it stays as it is."""
        word = self._store.run(
            "offer_part",
            prepare.job_id,
            prepare.attempt,
            self._lease_ms,
            part_step(number),
            long_queue_of(model) if seconds > LONG_PART_S else queue_of(model),
            body,
            seconds,
        )
        _raise_unless_ok(word)

    def has_room(self, job_id: str, size_bytes: int) -> bool:
        """Whether the job's API key may have so much more stored; then it is counted."""
        return bool(self._store.run("room", job_id, size_bytes))

    def fetched(self, fetch: Claim, media: dict[str, Any], audio_s: float) -> None:
        """Ends `fetch`: the recording is here, and `prepare` can be claimed."""
        size = media["size_bytes"]
        queue = prepare_queue_of(size)
        self._held("fetched", fetch, _flat({"media": media}), size, queue, int(audio_s * 1000))

    def prepared(self, prepare: Claim, parts: int, fields: dict[str, Any]) -> None:
        """Ends `prepare`: so many parts were offered. `fields` go into the record.

        Raises StoreUnavailable when Redis does not know them all: it was killed in between, and had
        acknowledged more than it had written.
        """
        word = self._store.run("prepared", prepare.job_id, prepare.attempt, _flat(fields), parts)
        if word == "incomplete":
            raise StoreUnavailable("The job store has forgotten parts.", retry_after_s=1)
        _raise_unless_ok(word)

    def note(self, claim: Claim, fields: dict[str, Any]) -> None:
        """Puts `fields` into the record of a job this worker still holds a step of."""
        self._held("note", claim, _flat(fields))

    def finish_part(self, claim: Claim) -> None:
        """Ends a part whose results lie in the blob store; the last one offers `finish`."""
        self._held("finish_part", claim)

    def end(
        self,
        claim: Claim,
        status: Status,
        fields: dict[str, Any],
        *,
        webhook: bytes | None,
        retention_s: float,
        media_retention_s: float | None = None,
    ) -> None:
        """The terminal transition, and the webhook's outbox row with it. The recording goes with the rest, or
        before it."""
        self._held(
            "end", claim, status, _flat(fields), _text(webhook), *_kept(retention_s, media_retention_s)
        )

    def close(
        self,
        job_id: str,
        status: Status,
        fields: dict[str, Any],
        *,
        webhook: bytes | None,
        retention_s: float,
        media_retention_s: float | None = None,
    ) -> bool:
        """Ends the job from outside, whoever works on it. False when it had ended before, or is gone."""
        word = self._store.run(
            "end",
            job_id,
            "",
            0,
            status,
            _flat(fields),
            _text(webhook),
            *_kept(retention_s, media_retention_s),
        )
        return bool(word == "ok")

    def cancel(self, job_id: str, *, webhook: bytes | None, retention_s: float) -> bool:
        """Ends the job as `canceled`; as `close` does."""
        return self.close(job_id, Status.CANCELED, {}, webhook=webhook, retention_s=retention_s)

    def release(self, claim: Claim, delay_s: float = 0.0) -> None:
        """Hands the step back through no fault of its own, to be claimed by anybody after `delay_s`."""
        self._held("release", claim, int(delay_s * 1000), 0)

    def try_again(self, claim: Claim, delay_s: float) -> None:
        """Hands the step back after it failed; the claim counts."""
        self._held("release", claim, int(delay_s * 1000), 1)

    def delivered(
        self, claim: Claim, delivery: Delivery, outcome: str, disable_s: float = FIVE_DAYS_S
    ) -> None:
        """Ends a delivery: `delivered`, `failed`, `gone` (the receiver wants no more, ever), or `disabled`:
        nothing was sent, because it only failed for `disable_s` or said that it is gone."""
        self._held("delivered", claim, _delivery_json(delivery), outcome, int(disable_s * 1000))

    def redeliver(
        self, claim: Claim, delivery: Delivery, delay_s: float, disable_s: float = FIVE_DAYS_S
    ) -> bool:
        """Puts a delivery off. False when its receiver is disabled by this failure: then it has ended."""
        word = self._store.run(
            "redeliver",
            claim.job_id,
            claim.step,
            claim.attempt,
            _delivery_json(delivery),
            int(delay_s * 1000),
            int(disable_s * 1000),
        )
        if word != "disabled":
            _raise_unless_ok(word)
        return bool(word == "ok")

    def replay(self, job_id: str) -> ReplayOutcome:
        """Makes a job's delivery once more, and asks its receiver again if it was disabled."""
        return ReplayOutcome(self._store.run("replay", job_id, DELIVER))

    def attempts(self, job_id: str) -> int:
        """The number of the last delivery in the log; 0 when there was none."""
        with self._store.guarded():
            row: str | None = self._store.client.lindex(self._store.key("deliveries", job_id), -1)
        return int(json.loads(row)["attempt"]) if row else 0

    def tries(self, claim: Claim) -> int:
        """How often this delivery was tried and put off."""
        with self._store.guarded():
            tries = self._store.client.hget(self._store.key("step", claim.job_id, claim.step), "tries")
        return int(tries or 0)

    def return_hint(self, job_id: str, step: str) -> str | None:
        """A hint came to a worker that takes nothing more: the step waits in line again, in this queue. None
        when there is nothing to return."""
        return self._store.run("return_hint", job_id, step) or None

    def requeue(self, job_id: str, step: str, worker: str = "") -> Requeued:
        """Takes the step from whoever has it, or from `worker` only; the claim it was held by is fenced."""
        word, queue = self._store.run("requeue", job_id, step, worker)
        return Requeued(RequeueOutcome(word), queue)

    def pause(self, queues: Iterable[str]) -> None:
        """No step of these is given out until `resume`; what was given out goes on. ALL_QUEUES is every one,
        those to come as well."""
        with self._store.guarded():
            self._store.client.sadd(self._store.key("paused"), *queues)

    def resume(self, queues: Iterable[str]) -> None:
        with self._store.guarded():
            self._store.client.srem(self._store.key("paused"), *queues)

    def paused(self) -> frozenset[str]:
        with self._store.guarded():
            return frozenset(self._store.client.smembers(self._store.key("paused")))

    def dispatch(self, queue: str, capacity: int, hint_s: float, most: int = MOST_HINTS) -> tuple[Hint, ...]:
        """Due steps of `queue`, in fair order, up to what live workers can hold; to be sent at once."""
        return tuple(hint for _, hint in self.dispatch_each({queue: capacity}, hint_s, most))

    def dispatch_each(
        self, capacities: Mapping[str, int], hint_s: float, most: int = MOST_HINTS
    ) -> tuple[tuple[str, Hint], ...]:
        """`dispatch` of several queues in one act; each hint with its queue. Of one queue `most` at a time:
        Redis does nothing else meanwhile."""
        rooms = [word for room in capacities.items() for word in room]
        words: list[str] = self._store.run("dispatch", int(hint_s * 1000), most, *rooms)
        return tuple(
            (queue, Hint(*reference.split("/", 1)))
            for queue, reference in zip(words[::2], words[1::2], strict=True)
        )

    def sweep(self, queue: str, limit: int = MOST_SWEPT) -> tuple[int, int]:
        """Puts back lapsed leases and unclaimed hints, `limit` of both together at most; how many of each."""
        expired, resent = self._store.run("sweep", queue, limit)
        return int(expired), int(resent)

    def queues(self) -> tuple[str, ...]:
        """Every queue that ever held a step."""
        with self._store.guarded():
            names: set[str] = self._store.client.smembers(self._store.key("queues"))
        return tuple(sorted(names))

    def _held(self, script: str, claim: Claim, *args: object) -> None:
        _raise_unless_ok(self._store.run(script, claim.job_id, claim.step, claim.attempt, *args))


def _raise_unless_ok(word: str) -> None:
    if word != "ok":
        raise Fenced(word)


def _flat(fields: dict[str, Any]) -> str:
    """Fields of a hash: text as it is, everything else as JSON."""
    return json.dumps(
        {name: value if isinstance(value, str) else json.dumps(value) for name, value in fields.items()}
    )


def _kept(retention_s: float, media_retention_s: float | None) -> tuple[int, int]:
    media_s = retention_s if media_retention_s is None else min(retention_s, media_retention_s)
    return int(retention_s * 1000), int(media_s * 1000)


def _text(body: bytes | None) -> str:
    return body.decode() if body else ""


def _delivery_json(delivery: Delivery) -> str:
    return json.dumps(asdict(delivery) | {"at": delivery.at.isoformat()})
