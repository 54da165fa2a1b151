"""A worker's parts put together on the test's own Redis and folder, with a scripted model and no Celery."""

import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from shared import job_files
from shared.blobs import open_blobs
from shared.endings import Endings
from shared.fleet import Fleet
from shared.job_store import JobStore
from shared.ledger import PREPARE, Ledger, part_step
from shared.outcomes import Outcomes
from shared.receivers import Receivers
from shared.redis_store import RedisStore
from shared.settings import Settings
from shared.task_queue import Dispatcher, RedisMessages
from tests.fakes import ScriptedRunner
from tests.support.jobs import submit
from tests.support.recording_queue import RecordingQueue
from worker import parts
from worker.app import fetchers_of
from worker.context import Context
from worker.engine.engine import Engine
from worker.engine.values import SAMPLE_RATE
from worker.engine.windows import Cut
from worker.http_guard import GuardedSender
from worker.leases import Leases

MODEL = "m"
SECRET = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
_CLOSE_S = 10.0


@contextmanager
def worker_context(
    settings: Settings, store: RedisStore, runner: ScriptedRunner | None = None, name: str = "worker-1"
) -> Iterator[Context]:
    """`runner` is the one model it serves, under the name MODEL."""
    runner = runner or ScriptedRunner()
    ledger, fleet = Ledger(store, settings.lease_s), Fleet(store)
    blobs = open_blobs(settings)
    engine, leases = Engine(runner, settings.batch_size), Leases(ledger, settings.lease_s)
    try:
        yield Context(
            name=name,
            settings=settings,
            blobs=blobs,
            jobs=JobStore(store),
            ledger=ledger,
            endings=Endings(ledger, Outcomes(store, blobs), settings),
            fleet=fleet,
            dispatcher=Dispatcher(ledger, fleet, RecordingQueue(), settings.hint_s),
            messages=RedisMessages(store),
            leases=leases,
            engines={MODEL: (engine, runner.card)},
            sender=GuardedSender(
                settings.webhook_timeout_s, settings.webhook_allow, ssl_context=ssl.create_default_context()
            ),
            webhook_secrets=lambda: (SECRET,),
            receivers=Receivers(store),
            fetchers=fetchers_of(settings),
        )
    finally:
        leases.close()
        runner.let_go.set()
        assert engine.close(_CLOSE_S)


def cuts(seconds: Sequence[float]) -> list[Cut]:
    """Windows of these lengths one after another, of sound that is nowhere the same."""
    found, start = [], 0
    for index, length_s in enumerate(seconds):
        samples = round(length_s * SAMPLE_RATE)
        pcm = np.arange(start, start + samples).astype(np.int16)
        found.append(Cut(index, start, pcm, length_s / 2))
        start += samples
    return found


def submit_part(
    context: Context, store: RedisStore, seconds: Sequence[float], job_id: str = "job_1", **options: object
) -> str:
    """A job whose only part, of windows of these lengths, waits to be transcribed; the part's step."""
    submit(store, job_id, **({"model": MODEL} | options))
    prepare = context.ledger.claim(job_id, PREPARE, "other")
    part, flac = parts.encode(cuts(seconds), 0.0)
    context.blobs.write(job_files.part_audio(job_id, part_step(0)), flac)
    context.ledger.offer_part(prepare, 0, MODEL, part.to_json(), part.seconds)
    context.ledger.prepared(prepare, 1, {"decode_s": 0.1})
    return part_step(0)
