"""The worker's composition root: settings → parts, put together once, before Celery says it is ready."""

import os
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

from celery import Celery, signals
from celery.apps import worker as celery_worker
from celery.worker.consumer import Consumer

from shared import tracing
from shared.blobs import open_blobs
from shared.devices import AUTO, CUDA
from shared.endings import Endings
from shared.errors import ServiceError
from shared.fleet import Fleet
from shared.job import Job, Status
from shared.job_store import JobStore
from shared.ledger import Ledger
from shared.log import get_logger
from shared.models import ModelCard, ModelSource, models_on, parse_models
from shared.outcomes import Outcomes
from shared.rebuild import Rebuild
from shared.receivers import Receivers
from shared.redis_store import RedisStore, connect
from shared.settings import Settings, SettingsError
from shared.task_queue import CeleryQueue, Dispatcher, make_celery, messages_of
from shared.webhook_secrets import WebhookSecrets
from worker import decoder_guards, tasks
from worker.context import Context
from worker.engine import vad
from worker.engine.engine import Engine
from worker.engine.residence import Residence
from worker.engine.values import Runner
from worker.fetcher import Fetcher, GuardedFetcher
from worker.heartbeat import Heartbeat
from worker.http_guard import GuardedSender
from worker.intake import Intake
from worker.leases import Leases
from worker.metrics import Metrics, Page
from worker.readings import Readings
from worker.steps import PEACEFUL
from worker.sweeper import Sweeper
from worker.webhooks import key_of

EXIT_CONSUMER_ENDED = 72
"""Celery gave up although nobody told it to: whoever restarts failures is to restart this."""

_REDIS_RETRIES = 6
_SPARE_THREADS = 2

Load = Callable[[ModelSource, Settings], Runner]
"""Makes a model ready to run. Raises ModelUnavailable, or MemoryError when there is no room."""

_log = get_logger()


@dataclass(frozen=True, slots=True)
class Worker:
    """Everything that runs beside Celery's own threads."""

    celery: Celery
    context: Context
    heartbeat: Heartbeat
    sweeper: Sweeper
    intake: Intake
    page: Page | None

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
        if self.page:
            self.page.close()
        self.context.tracer.close()


def load_whisper(source: ModelSource, settings: Settings) -> Runner:
    """For a process that sees only the card it was given (`see_only`): to torch it is the first."""
    # torch and transformers: not for a worker that runs something else.
    from worker.engine.whisper import load_runner  # noqa: PLC0415

    vad.warm_up()
    runner = load_runner(
        source,
        device=CUDA if settings.device.startswith(CUDA) else settings.device,
        dtype=source.dtype or settings.dtype,
        threads=settings.threads,
        hf_endpoint=settings.hf_endpoint,
        batch_size=source.batch_size or settings.batch_size,
    )
    if settings.device.startswith(f"{CUDA}:"):
        runner.card = replace(runner.card, device=settings.device)
    return runner


def build(settings: Settings, load: Load = load_whisper) -> Worker:
    """Loads the models, which takes a while. Raises ModelUnavailable when one cannot be had."""
    metrics = Metrics()
    page = metrics.serve(settings)
    tracer = tracing.start(settings, "worker", peaceful=PEACEFUL)
    name = f"{socket.gethostname()}-{os.getpid()}"
    # Before the models: what is wrong here is told at once.
    blobs = open_blobs(settings)
    guards = decoder_guards.examine(settings)
    engines = _engines(settings, load)
    store = RedisStore(connect(settings.redis_url, retries=_REDIS_RETRIES))
    ledger = Ledger(store, settings.lease_s)
    fleet = Fleet(store)
    jobs = JobStore(store)
    celery = make_celery(settings.broker)
    dispatcher = Dispatcher(ledger, fleet, CeleryQueue(celery), settings.hint_s)
    outcomes = Outcomes(store, blobs)
    context = Context(
        name=name,
        settings=settings,
        blobs=blobs,
        jobs=jobs,
        ledger=ledger,
        endings=Endings(ledger, outcomes, settings, _counted(metrics, jobs)),
        fleet=fleet,
        dispatcher=dispatcher,
        messages=messages_of(settings, celery, store),
        leases=Leases(ledger, settings.lease_s),
        engines=engines,
        sender=GuardedSender(allow=settings.webhook_allow, timeout_s=settings.webhook_timeout_s),
        webhook_secrets=secrets_of(settings, store),
        receivers=Receivers(store),
        fetchers=fetchers_of(settings),
        metrics=metrics,
        tracer=tracer,
        guards=guards,
    )
    metrics.add(Readings(context))
    tasks.register(celery, context)
    rebuild = Rebuild(store, jobs, blobs, settings.idempotency_s)
    intake = Intake()
    heartbeat = Heartbeat(context, intake)
    sweeper = Sweeper(context, store, outcomes, rebuild)
    return Worker(celery, context, heartbeat, sweeper, intake, page)


def run(worker: Worker) -> None:
    """Hands over to Celery until it is told to stop; SIGTERM hands unfinished windows back."""

    @signals.worker_ready.connect(weak=False)  # type: ignore[untyped-decorator]
    def on_ready(sender: Consumer, **_: object) -> None:
        worker.intake.attach(sender)
        worker.start()
        _log.info("worker_ready", models=list(worker.context.engines))

    @signals.worker_shutting_down.connect(weak=False)  # type: ignore[untyped-decorator]
    def on_stop(**_: object) -> None:
        worker.drain()

    @signals.setup_logging.connect(weak=False)  # type: ignore[untyped-decorator]
    def on_logging(**_: object) -> None:
        """Somebody listens here, so Celery leaves the logging as it is."""

    # It takes leave on stdout, in plain text; our last line says it.
    celery_worker.safe_say = _say_nothing
    worker.celery.worker_main(_arguments(worker.context))
    _log.info("worker_stopped")
    if not worker.context.leases.draining.is_set():
        _log.error("consumer_ended")
        raise SystemExit(EXIT_CONSUMER_ENDED)


def _say_nothing(*_: object) -> None:
    pass


def _arguments(context: Context) -> list[str]:
    slots = context.slots
    return [
        # Without its banner, which is no JSON.
        "--quiet",
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
    residence = Residence(settings.max_loaded)
    engines = {}
    for source in _sources(settings):
        engine = Engine(
            residence.add(partial(load, source, settings)),
            source.batch_size or settings.batch_size,
            idle_s=settings.model_idle_s,
        )
        # One after the other: two that load at once take the memory of both, twice.
        engines[source.name] = (engine, engine.card())
    return engines


def _sources(settings: Settings) -> tuple[ModelSource, ...]:
    models = parse_models(settings.models)
    device = settings.device
    if device == AUTO and any(model.devices for model in models):
        from worker.engine.loading import choose_device  # noqa: PLC0415

        device = str(choose_device(device))
    sources = models_on(models, device)
    if not sources:
        raise SettingsError(f"ANANSE_MODELS places no model on {device}, where this worker is.")
    return sources


def _counted(metrics: Metrics, jobs: JobStore) -> Callable[[Job, Status], None]:
    def count(job: Job, status: Status) -> None:
        # The job has ended; that its time cannot be had is no failure of anything.
        with suppress(ServiceError):
            metrics.job_ended(job, status, jobs.now())

    return count


def fetchers_of(settings: Settings) -> dict[str, Fetcher]:
    """Raises SettingsError when no client of buckets can be made."""
    timeout_s, most = settings.fetch_timeout_s, settings.max_upload_bytes
    web = GuardedFetcher(timeout_s, most, settings.fetch_allow)
    fetchers: dict[str, Fetcher] = {"http": web, "https": web}
    if settings.fetch_buckets:
        # As for the blob store: what a disk does not need is not loaded.
        from shared.s3_client import access_of  # noqa: PLC0415
        from worker.bucket_fetcher import BucketFetcher  # noqa: PLC0415

        fetchers["s3"] = BucketFetcher(settings.fetch_buckets, access_of(settings), timeout_s, most)
    return fetchers


def secrets_of(settings: Settings, store: RedisStore) -> Callable[[], tuple[str, ...]]:
    """The settings', the current one first, else those that are kept where all workers find them."""
    given = {
        "ANANSE_WEBHOOK_SECRET": settings.webhook_secret,
        "ANANSE_WEBHOOK_SECRET_PREVIOUS": settings.webhook_secret_previous,
    }
    secrets = {name: secret.get_secret_value() for name, secret in given.items() if secret}
    for name, secret in secrets.items():
        try:
            key_of(secret)
        except ValueError as error:
            raise SettingsError(f"{name}: {error}") from error
    if secrets:
        return lambda: tuple(secrets.values())
    kept = WebhookSecrets(store)
    # Here already, so that the first to ask for it is no message in a hurry.
    kept.all()
    return kept.all
