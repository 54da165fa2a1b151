"""gunicorn's settings, from ours. Threads, for clients that wait; the heartbeat is apart from requests, so
long uploads outlive `timeout`."""

import os
import resource
import signal
import sys
from types import FrameType
from typing import Any

from api import rebuilding
from api.auth import address_to_bind
from api.gunicorn_worker import Worker
from api.parts import EXTENSION
from shared import log
from shared.blobs import open_blobs
from shared.settings import Settings, SettingsError, load

_EXIT_CONFIGURATION = 78
_MOST_CONNECTIONS = 4096


def _load() -> Settings:
    """A start-up mistake is one sentence, not a traceback."""
    try:
        settings = load()
        # To see that there is such a store; every process opens its own.
        open_blobs(settings)
        return settings
    except SettingsError as error:
        sys.stderr.write(f"ananse: {error}\n")
        sys.exit(_EXIT_CONFIGURATION)


def _connections() -> int:
    """As many as there are file handles for, with one more each for its recording or Redis."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * _MOST_CONNECTIONS
    if 0 <= soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return min(wanted, soft) // 2 if soft >= 0 else _MOST_CONNECTIONS


_settings = _load()
log.configure(_settings.log_level)


bind = address_to_bind(_settings)
worker_class = Worker
workers = _settings.api_workers
threads = _settings.api_threads
worker_connections = _connections()
timeout = 60
graceful_timeout = int(_settings.stop_grace_s)
keepalive = 15
# A heartbeat file on a slow disk would stop the worker for no reason.
worker_tmp_dir = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
# It would write to the home folder, which a container has not.
control_socket_disable = True
# Options may stand in the query; a prompt in a script of three bytes a letter is long there.
limit_request_line = 8190
# Its lines go to our JSON log.
logconfig_dict = {
    "version": 1,
    "disable_existing_loggers": False,
    "root": {},
    "handlers": {},
    "formatters": {},
    "loggers": {name: {"handlers": [], "propagate": True} for name in ("gunicorn.error", "gunicorn.access")},
}


def post_worker_init(worker: Any) -> None:
    """Clients that wait are let go when the worker is told to stop; it would stand there for them."""
    stopping = worker.wsgi.extensions[EXTENSION].stopping
    finish = signal.getsignal(signal.SIGTERM)

    def stop(number: int, frame: FrameType | None) -> None:
        stopping.set()
        if callable(finish):
            finish(number, frame)

    signal.signal(signal.SIGTERM, stop)
    rebuilding.start(worker.wsgi.extensions[EXTENSION])
