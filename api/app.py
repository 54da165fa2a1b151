"""Composition root of the API: settings in, a Flask app with all its parts wired out."""

from threading import BoundedSemaphore

from flask import Flask
from flask_openapi.openapi import OpenAPI

from api import docs, events, health, jobs, models, problems, recordings, seed, transcripts
from api.answers import Problem
from api.openapi import INFO
from api.parts import EXTENSION, Parts
from shared import log
from shared.blob_store import BlobStore
from shared.fleet import Fleet
from shared.job_store import JobStore
from shared.ledger import Ledger
from shared.models import parse_models
from shared.redis_store import RedisStore, connect
from shared.settings import Settings, load
from shared.task_queue import CeleryQueue, Dispatcher, TaskQueue, make_celery

# Threads that clients who wait may never take, as a share of all.
_FREE_SHARE = 4


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
    app.extensions[EXTENSION] = _wire(settings, tasks)
    problems.install(app)
    for module in (jobs, transcripts, recordings, events, models, seed, health):
        app.register_api(module.blueprint)
    app.register_blueprint(docs.blueprint)
    return app


def _wire(settings: Settings, tasks: TaskQueue | None) -> Parts:
    store = RedisStore(connect(settings.redis_url))
    ledger, fleet = Ledger(store, settings.lease_s), Fleet(store)
    return Parts(
        settings=settings,
        models=parse_models(settings.models),
        jobs=JobStore(store),
        ledger=ledger,
        fleet=fleet,
        blobs=BlobStore(settings.blob_url),
        dispatcher=Dispatcher(
            ledger, fleet, tasks or CeleryQueue(make_celery(settings.redis_url)), settings.hint_s
        ),
        waiters=BoundedSemaphore(settings.api_threads - settings.api_threads // _FREE_SHARE),
    )
