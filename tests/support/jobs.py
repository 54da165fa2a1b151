"""Short ways to make jobs and to let time pass for them: the record's clock is stepped, nobody sleeps."""

from datetime import UTC, datetime

from shared.job import Job, Options
from shared.job_store import JobStore, NewJob
from shared.ledger import Claim, Hint
from shared.media import Media
from shared.redis_store import RedisStore

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def media(size_bytes: int = 10) -> Media:
    return Media("speech.wav", size_bytes, "0" * 64)


def submit(
    store: RedisStore,
    job_id: str = "job_1",
    *,
    tenant: str = "default",
    audio_s: float = 0.0,
    **options: object,
) -> Job:
    asked = Options(**({"model": "m"} | options))  # type: ignore[arg-type]
    job, _ = JobStore(store).create(NewJob(job_id, tenant, asked, media(), audio_s=audio_s))
    return job


def lapse_lease(store: RedisStore, claim: Claim) -> None:
    """As if the worker had been silent for longer than its lease."""
    step = store.key("step", claim.job_id, claim.step)
    store.client.hset(step, "lapses", 1)
    store.client.zadd(
        store.key("busy", store.client.hget(step, "queue")), {f"{claim.job_id}/{claim.step}": 1}
    )


def lapse_hint(store: RedisStore, queue: str, hint: Hint) -> None:
    """As if nobody had taken the message in time."""
    store.client.zadd(store.key("busy", queue), {f"{hint.job_id}/{hint.step}": 1}, xx=True)
