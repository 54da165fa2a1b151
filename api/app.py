"""Composition root of the API: settings in, a Flask app with all its parts wired out."""

from contextlib import suppress
from threading import BoundedSemaphore, Event

from flask import Flask
from flask_openapi.openapi import OpenAPI

from api import (
    auth,
    docs,
    events,
    front,
    health,
    jobs,
    models,
    openai_audio,
    problems,
    recordings,
    requests,
    scale,
    seed,
    transcripts,
)
from api.answers import Problem
from api.estimates import Speeds
from api.ledger_metrics import LedgerCollector
from api.ledger_view import LedgerView
from api.listening import Listening
from api.metrics import Metrics
from api.openapi import INFO
from api.parts import EXTENSION, Parts
from shared import log, tracing
from shared.blobs import open_blobs
from shared.endings import Endings
from shared.errors import DependencyError
from shared.fleet import Fleet
from shared.job_store import JobStore
from shared.key_ring import KeyRing
from shared.ledger import Ledger
from shared.models import parse_models
from shared.outcomes import Outcomes
from shared.rebuild import Rebuild
from shared.redis_store import RedisStore, connect
from shared.settings import Settings, load
from shared.task_queue import CeleryQueue, Dispatcher, TaskQueue, make_celery, messages_of
from shared.usage import Usage

# Threads that clients who wait may never take, as a share of all.
_FREE_SHARE = 4
# Every answer is to come within five seconds, from a Redis that stands still too: a submission asks twice.
_STORE_S = 2.3
_HINT_S = 1.0


def create_app(settings: Settings | None = None, tasks: TaskQueue | None = None) -> Flask:
    """The WSGI app; `gunicorn -c api/gunicorn_conf.py 'api.app:create_app()'` serves it."""
    settings = settings or load()
    log.configure(settings.log_level)
    app = OpenAPI(
        __name__,
        static_folder=None,
        info=INFO,
        doc_ui=False,
        validation_error_model=Problem,
        validation_error_callback=problems.raise_validation,
    )
    app.extensions[EXTENSION] = parts = _wire(settings, tasks)
    with suppress(DependencyError):
        # A first start finds nothing to compare; what is not there yet is looked at again later.
        parts.rebuild.look()
    parts.metrics.add(LedgerCollector(parts.view, parts.blobs))
    parts.metrics.install(app)
    problems.install(app)
    requests.install(app, parts.tracer)
    auth.install(app, auth.Gate(settings, KeyRing(parts.store, parts.blobs)))
    for module in (jobs, transcripts, recordings, events, models, openai_audio, seed, health):
        app.register_api(module.blueprint)
    app.register_blueprint(docs.blueprint)
    app.register_blueprint(front.blueprint)
    app.register_blueprint(scale.blueprint)
    return app


def _wire(settings: Settings, tasks: TaskQueue | None) -> Parts:
    store = RedisStore(connect(settings.redis_url, timeout_s=_STORE_S, is_patient=False))
    ledger, fleet = Ledger(store, settings.lease_s), Fleet(store)
    jobs, blobs = JobStore(store), open_blobs(settings)
    models = parse_models(settings.models)
    celery = make_celery(settings.broker, _HINT_S)
    stopping = Event()
    return Parts(
        settings=settings,
        models=models,
        jobs=jobs,
        ledger=ledger,
        endings=Endings(ledger, Outcomes(store, blobs), settings),
        rebuild=Rebuild(store, jobs, blobs, settings.idempotency_s),
        store=store,
        fleet=fleet,
        usage=Usage(store),
        speeds=Speeds(fleet),
        blobs=blobs,
        dispatcher=Dispatcher(ledger, fleet, tasks or CeleryQueue(celery), settings.hint_s),
        tracer=tracing.start(settings, "api"),
        waiters=BoundedSemaphore(settings.api_threads - settings.api_threads // _FREE_SHARE),
        metrics=Metrics(),
        view=LedgerView(store, fleet, messages_of(settings, celery, store), [model.name for model in models]),
        stopping=stopping,
        listening=Listening(store, stopping, events.sse, events.is_end, settings.upload_idle_s),
    )
