"""gunicorn's settings, from ours. Threads, for clients that wait; the heartbeat is apart from requests, so
long uploads outlive `timeout`."""

import os
import resource
import signal
import sys
from contextlib import suppress
from types import FrameType
from typing import Any

from api import count_files, rebuilding
from api.auth import address_to_bind
from api.gunicorn_log import Log
from api.gunicorn_worker import Worker
from api.parts import EXTENSION
from shared import log, tracing
from shared.blobs import open_blobs
from shared.errors import DependencyError
from shared.key_ring import require_keys
from shared.settings import Settings, SettingsError, load

_EXIT_CONFIGURATION = 78
_MOST_CONNECTIONS = 4096


def _load() -> Settings:
    """A start-up mistake is one sentence, not a traceback."""
    try:
        settings = load()
        tracing.require(settings)
        # To see that there is such a store; every process opens its own.
        blobs = open_blobs(settings)
        with suppress(DependencyError):
            # Nobody can tell now whether there are keys; whoever sends none is refused.
            require_keys(settings, blobs)
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
log.own_process()


bind = address_to_bind(_settings)
worker_class = Worker
logger_class = Log
workers = _settings.api_workers
threads = _settings.api_threads
worker_connections = _connections()
timeout = 60
graceful_timeout = int(_settings.stop_grace_s)
keepalive = 15
# A heartbeat file on a slow disk would stop the worker for no reason.
worker_tmp_dir = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
# Where all processes count, whichever of them is asked: prometheus_client looks here when it is loaded, which
# the app does, in each process.
raw_env = [f"PROMETHEUS_MULTIPROC_DIR={count_files.folder(os.getpid(), worker_tmp_dir)}"]
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


def on_starting(arbiter: Any) -> None:
    """Not at a reload: counts go on."""
    count_files.clean(count_files.folder(os.getpid(), worker_tmp_dir))


def on_exit(arbiter: Any) -> None:
    count_files.remove(count_files.folder(os.getpid(), worker_tmp_dir))


def child_exit(arbiter: Any, worker: Any) -> None:
    """What it has counted stays; who waited in it waits no more."""
    count_files.forget_process(count_files.folder(os.getpid(), worker_tmp_dir), worker.pid)


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


def worker_exit(server: Any, worker: Any) -> None:
    """Requests are answered by now; what is known of them goes out."""
    if app := getattr(worker, "wsgi", None):
        app.extensions[EXTENSION].tracer.close()
