"""What happens to many jobs at once, for who listens to all of them; that of a single one is in
`job_store.py`."""

from collections.abc import Collection, Mapping

from shared.job import Status
from shared.job_store import Event
from shared.redis_store import RedisStore, rows_by_stream

_MOST_EVENTS = 100
"""Of a job in one answer: what is left comes with the next."""
_NUDGE_S = 60


class JobEvents:
    """`name` is the listener's own: who waits under it is woken by `nudge`."""

    def __init__(self, store: RedisStore, name: str) -> None:
        self._store = store
        self._nudges = store.key("events", name)
        self._nudged = "0"

    def wait(self, after: Mapping[str, str], wait_s: float) -> dict[str, tuple[Event, ...]]:
        """Events of each job after an id of it, as soon as there are any, or a nudge, or the time is over."""
        keys = {self._store.key("events", job_id): job_id for job_id in after}
        streams = {key: after[job_id] for key, job_id in keys.items()} | {self._nudges: self._nudged}
        with self._store.guarded():
            answer = self._store.client.xread(streams, count=_MOST_EVENTS, block=max(1, int(wait_s * 1000)))
        told = {key: _events(rows) for key, rows in rows_by_stream(answer).items()}
        if nudges := told.pop(self._nudges, ()):
            self._nudged = nudges[-1].id
        return {keys[key]: events for key, events in told.items()}

    def nudge(self) -> None:
        """Ends the wait at hand, or the next one."""
        with self._store.guarded(), self._store.client.pipeline(transaction=False) as pipeline:
            pipeline.xadd(self._nudges, {"kind": "nudge", "body": ""}, maxlen=1, approximate=False)
            pipeline.expire(self._nudges, _NUDGE_S)
            pipeline.execute()

    def over(self, job_ids: Collection[str]) -> set[str]:
        """Those that have ended or are gone."""
        with self._store.guarded(), self._store.client.pipeline(transaction=False) as pipeline:
            for job_id in job_ids:
                pipeline.hget(self._store.key("job", job_id), "status")
            statuses = pipeline.execute()
        return {
            job_id
            for job_id, status in zip(job_ids, statuses, strict=True)
            if status is None or Status(status).is_terminal
        }


def _events(rows: list[tuple[str, dict[str, str]]]) -> tuple[Event, ...]:
    return tuple(Event(row_id, fields["kind"], fields["body"]) for row_id, fields in rows)
