"""What an operator sees of the queues and of single steps. Only reads; the ledger changes while it does."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from shared.job_store import Event
from shared.ledger import Hint
from shared.redis_store import RedisStore


class Place(StrEnum):
    """Where a step is. `sent` is a hint that nobody has claimed yet; `nowhere` needs a requeue."""

    WAITING = "waiting"
    PUT_OFF = "put_off"
    SENT = "sent"
    HELD = "held"
    DONE = "done"
    NOWHERE = "nowhere"


@dataclass(frozen=True, slots=True)
class QueueState:
    """Steps by place, `clients` in line, the audio they wait for, and the age of the oldest job at the head
    of a line (None when nobody waits)."""

    name: str
    waiting: int
    put_off: int
    sent: int
    held: int
    clients: int
    waiting_audio_s: float
    oldest_s: float | None
    paused: bool


@dataclass(frozen=True, slots=True)
class StepState:
    """`due_in_s` is when a step that was put off may begin, `lease_left_s` when a held one lapses, or a hint
    that was sent; `position` counts from 1 in the line of its client."""

    step: str
    place: Place
    queue: str
    worker: str | None
    attempt: int
    claims: int
    failures: int
    audio_s: float
    done_s: float
    windows: int
    lease_left_s: float | None
    due_in_s: float | None
    position: int | None


class Survey:
    def __init__(self, store: RedisStore) -> None:
        self._store = store

    def queue(self, name: str) -> QueueState:
        key = self._store.key
        pipe = self._store.client.pipeline(transaction=False)
        pipe.zrange(key("lines", name), 0, -1)
        pipe.zcard(key("later", name))
        pipe.zrange(key("busy", name), 0, -1)
        pipe.hvals(key("waits", name))
        pipe.smembers(key("paused"))
        pipe.hget(key("lengths"), name)
        pipe.time()
        clients, put_off, busy, waits, paused, length, time = self._run(pipe)
        held = self._states(busy).count("leased")
        heads = self._heads(name, clients)
        created = [int(at) for at in self._fields([_job_of(head) for head in heads], "created_at") if at]
        return QueueState(
            name=name,
            # With those that stand aside, because enough is under way to their receiver.
            waiting=int(length or 0),
            put_off=put_off,
            sent=len(busy) - held,
            held=held,
            clients=len(clients),
            waiting_audio_s=sum(map(int, waits)) / 1000,
            oldest_s=max(0.0, _ms(time) - min(created)) / 1000 if created else None,
            paused=bool(paused & {name, "*"}),
        )

    def owed_s(self) -> dict[str, float]:
        """Audio seconds that jobs which have not ended owe, by model."""
        with self._store.guarded():
            amounts: dict[str, str] = self._store.client.hgetall(self._store.key("backlog"))
        return {model: int(amount) / 1000 for model, amount in amounts.items() if int(amount) > 0}

    def steps(self, job_id: str) -> tuple[StepState, ...]:
        """In the order in which they are worked on."""
        key = self._store.key
        with self._store.guarded():
            names: set[str] = self._store.client.smembers(key("steps", job_id))
            tenant: str = self._store.client.hget(key("job", job_id), "tenant") or ""
        return tuple(self._step(job_id, name, tenant) for name in sorted(names, key=_order))

    def held_by(self, worker: str) -> tuple[Hint, ...]:
        """Steps whose last claim is this worker's and still stands, lapsed or not."""
        return tuple(hint for hint, state, holder in self._out() if (state, holder) == ("leased", worker))

    def sent(self) -> tuple[Hint, ...]:
        """Steps whose hint nobody has followed yet."""
        return tuple(hint for hint, state, _ in self._out() if state == "waiting")

    def _out(self) -> list[tuple[Hint, str | None, str | None]]:
        """Every step that was given out, with its state and who claimed it last."""
        with self._store.guarded():
            queues: set[str] = self._store.client.smembers(self._store.key("queues"))
            busy = [
                reference
                for queue in sorted(queues)
                for reference in self._store.client.zrange(self._store.key("busy", queue), 0, -1)
            ]
        pipe = self._store.client.pipeline(transaction=False)
        for reference in busy:
            pipe.hmget(self._step_key(reference), "state", "worker")
        return [
            (Hint(*reference.split("/", 1)), state, worker)
            for reference, (state, worker) in zip(busy, self._run(pipe), strict=True)
        ]

    def last_events(self, job_id: str, count: int) -> tuple[Event, ...]:
        """The oldest of them first."""
        with self._store.guarded():
            rows = self._store.client.xrevrange(self._store.key("events", job_id), count=count)
        return tuple(Event(row_id, fields["kind"], fields["body"]) for row_id, fields in reversed(rows))

    def _step(self, job_id: str, name: str, tenant: str) -> StepState:
        key, reference = self._store.key, f"{job_id}/{name}"
        with self._store.guarded():
            record: dict[str, str] = self._store.client.hgetall(key("step", job_id, name))
        queue = record.get("queue", "")
        pipe = self._store.client.pipeline(transaction=False)
        pipe.zrank(key("waiting", queue, record.get("line", tenant)), reference)
        pipe.zscore(key("later", queue), reference)
        pipe.zscore(key("busy", queue), reference)
        pipe.hlen(key("windows", job_id, name))
        pipe.time()
        rank, later, busy, windows, time = self._run(pipe)
        place = _place(record.get("state"), rank, later, busy)
        return StepState(
            step=name,
            place=place,
            queue=queue,
            worker=record.get("worker") if place is not Place.WAITING else None,
            attempt=int(record.get("attempt", 0)),
            claims=int(record.get("claims", 0)),
            failures=int(record.get("failures", 0)),
            audio_s=int(record.get("audio_ms", 0)) / 1000,
            done_s=int(record.get("done_ms", 0)) / 1000,
            windows=windows,
            lease_left_s=None if busy is None else round((busy - _ms(time)) / 1000, 1),
            due_in_s=None if later is None else round((later - _ms(time)) / 1000, 1),
            position=None if rank is None else rank + 1,
        )

    def _heads(self, queue: str, clients: list[str]) -> list[str]:
        """The first of each line."""
        pipe = self._store.client.pipeline(transaction=False)
        for client in clients:
            pipe.zrange(self._store.key("waiting", queue, client), 0, 0)
        return [reference for first in self._run(pipe) for reference in first]

    def _states(self, references: list[str]) -> list[str | None]:
        pipe = self._store.client.pipeline(transaction=False)
        for reference in references:
            pipe.hget(self._step_key(reference), "state")
        return self._run(pipe)

    def _fields(self, job_ids: list[str], field: str) -> list[str | None]:
        pipe = self._store.client.pipeline(transaction=False)
        for job_id in job_ids:
            pipe.hget(self._store.key("job", job_id), field)
        return self._run(pipe)

    def _step_key(self, reference: str) -> str:
        return self._store.key("step", *reference.split("/", 1))

    def _run(self, pipe: Any) -> list[Any]:
        with self._store.guarded():
            answers: list[Any] = pipe.execute()
        return answers


def _place(state: str | None, rank: int | None, later: float | None, busy: float | None) -> Place:
    if state == "done":
        return Place.DONE
    if state == "leased":
        return Place.HELD
    if rank is not None:
        return Place.WAITING
    if later is not None:
        return Place.PUT_OFF
    return Place.SENT if busy is not None else Place.NOWHERE


def _order(step: str) -> tuple[int, int]:
    kind, _, number = step.partition("-")
    return ("fetch", "prepare", "part", "finish", "deliver").index(kind), int(number or 0)


def _job_of(reference: str) -> str:
    return reference.split("/", 1)[0]


def _ms(time: tuple[int, int]) -> float:
    seconds, microseconds = time
    return seconds * 1000 + microseconds / 1000
