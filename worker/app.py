"""The worker's composition root: settings → parts, put together once, before Celery says it is ready."""

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass

from celery import Celery, signals

from shared.blobs import open_blobs
from shared.endings import Endings
from shared.fleet import Fleet
from shared.job_store import JobStore
from shared.ledger import Ledger
from shared.log import get_logger
from shared.models import ModelCard, ModelSource, parse_models
from shared.outcomes import Outcomes
from shared.rebuild import Rebuild
from shared.redis_store import RedisStore, connect, webhook_secret
from shared.settings import Settings, SettingsError
from shared.task_queue import CeleryQueue, Dispatcher, Messages, make_celery
from worker import tasks
from worker.context import Context
from worker.engine.engine import Engine
from worker.engine.values import Runner
from worker.heartbeat import Heartbeat
from worker.http_guard import GuardedSender
from worker.leases import Leases
from worker.sweeper import Sweeper
from worker.webhooks import key_of

EXIT_CONSUMER_ENDED = 72
"""Celery gave up although nobody told it to: whoever restarts failures is to restart this."""

_REDIS_RETRIES = 6
_SPARE_THREADS = 2

Load = Callable[[ModelSource, Settings], Runner]
"""Makes a model ready to run. Raises ModelUnavailable."""

_log = get_logger()


@dataclass(frozen=True, slots=True)
class Worker:
    """Everything that runs beside Celery's own threads."""

    celery: Celery
    context: Context
    heartbeat: Heartbeat
    sweeper: Sweeper

    def start(self) -> None:
        self.heartbeat.start()
        self.sweeper.start()

    def drain(self) -> None:
        """From now on nothing is claimed, and what is held goes back between two windows."""
        self.context.leases.draining.set()

    def close(self) -> None:
        self.sweeper.close()
        self.heartbeat.close()
        self.context.leases.close()
        for engine, _ in self.context.engines.values():
            engine.close(self.context.settings.stop_grace_s)


def load_whisper(source: ModelSource, settings: Settings) -> Runner:
    # torch and transformers: not for a worker that runs something else.
    from worker.engine.whisper import load_runner  # noqa: PLC0415

    return load_runner(
        source,
        device=settings.device,
        dtype=settings.dtype,
        threads=settings.threads,
        hf_endpoint=settings.hf_endpoint,
    )


def build(settings: Settings, load: Load = load_whisper) -> Worker:
    """Loads the models, which takes a while. Raises ModelUnavailable when one cannot be had."""
    name = f"{socket.gethostname()}-{os.getpid()}"
    # Before the models: what is wrong here is told at once.
    blobs = open_blobs(settings)
    engines = _engines(settings, load)
    store = RedisStore(connect(settings.redis_url, retries=_REDIS_RETRIES))
    ledger = Ledger(store, settings.lease_s)
    fleet = Fleet(store)
    jobs = JobStore(store)
    celery = make_celery(settings.redis_url)
    dispatcher = Dispatcher(ledger, fleet, CeleryQueue(celery), settings.hint_s)
    outcomes = Outcomes(store, blobs)
    context = Context(
        name=name,
        settings=settings,
        blobs=blobs,
        jobs=jobs,
        ledger=ledger,
        endings=Endings(ledger, outcomes, settings),
        fleet=fleet,
        dispatcher=dispatcher,
        messages=Messages(store),
        leases=Leases(ledger, settings.lease_s),
        engines=engines,
        sender=GuardedSender(allow=settings.webhook_allow, timeout_s=settings.webhook_timeout_s),
        webhook_secrets=_secrets(settings, store),
    )
    tasks.register(celery, context)
    rebuild = Rebuild(store, jobs, blobs, settings.idempotency_s)
    return Worker(celery, context, Heartbeat(context), Sweeper(context, store, outcomes, rebuild))


def run(worker: Worker) -> None:
    """Hands over to Celery until it is told to stop; SIGTERM hands unfinished windows back."""

    @signals.worker_ready.connect(weak=False)  # type: ignore[untyped-decorator]
    def on_ready(**_: object) -> None:
        worker.start()
        _log.info("worker_ready", models=list(worker.context.engines))

    @signals.worker_shutting_down.connect(weak=False)  # type: ignore[untyped-decorator]
    def on_stop(**_: object) -> None:
        worker.drain()

    worker.celery.worker_main(_arguments(worker.context))
    if not worker.context.leases.draining.is_set():
        _log.error("consumer_ended")
        raise SystemExit(EXIT_CONSUMER_ENDED)


def _arguments(context: Context) -> list[str]:
    slots = context.slots
    return [
        "worker",
        "--pool=threads",
        f"--concurrency={sum(slots.values()) + _SPARE_THREADS}",
        f"--queues={','.join(slots)}",
        f"--hostname=ananse@{context.name}",
        f"--loglevel={context.settings.log_level}",
        "--without-gossip",
        "--without-mingle",
        "--task-events",
    ]


def _engines(settings: Settings, load: Load) -> dict[str, tuple[Engine, ModelCard]]:
    engines = {}
    for source in parse_models(settings.models):
        runner = load(source, settings)
        engines[source.name] = (Engine(runner, settings.batch_size), runner.card)
        _log.info("model_loaded", model=source.name, device=runner.card.device, dtype=runner.card.dtype)
    return engines


def _secrets(settings: Settings, store: RedisStore) -> tuple[str, ...]:
    """The setting, else one that is made once and kept where all workers find it."""
    if settings.webhook_secret is not None:
        secret = settings.webhook_secret.get_secret_value()
        try:
            key_of(secret)
        except ValueError as error:
            raise SettingsError(f"ANANSE_WEBHOOK_SECRET: {error}") from error
        return (secret,)
    return (webhook_secret(store),)
