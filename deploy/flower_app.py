"""`python -m deploy.flower_app`: Flower for our broker, read-only and behind a password.

The password is handed over inside the process, so it stands on no command line.
"""

import os
import secrets
import sys
from collections.abc import Iterable

import flower.options  # noqa: F401 - defines the options set below
from tornado.options import options

from deploy.errors import EXIT_CONFIGURATION
from shared.settings import Settings, SettingsError, load
from shared.task_queue import make_celery

MAX_TASKS = 10_000
PURGE_OFFLINE_WORKERS_S = 300
TASKS_COLUMNS = "name,args,state,received,started,runtime,worker,uuid"
"""The arguments are a job's id and its step: what an operator looks for."""

_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_OTHERS = "FLOWER_"


def main() -> None:
    try:
        run(load())
    except SettingsError as error:
        sys.stderr.write(f"ananse: {error}\n")
        sys.exit(EXIT_CONFIGURATION)


def run(settings: Settings) -> None:
    """Raises SettingsError where Flower would be open to strangers."""
    _refuse_foreign_options(os.environ)
    options.basic_auth = [f"{settings.flower_user}:{_password(settings)}"]
    make_celery(settings.broker).start(
        [
            "flower",
            f"--address={settings.host}",
            f"--port={settings.flower_port}",
            # Not whatever file of that name lies in the current folder: it is run as Python.
            f"--conf={os.devnull}",
            "--read_only",
            f"--tasks_columns={TASKS_COLUMNS}",
            "--persistent=False",
            f"--max_tasks={MAX_TASKS}",
            f"--purge_offline_workers={PURGE_OFFLINE_WORKERS_S}",
        ]
    )


def _refuse_foreign_options(names: Iterable[str]) -> None:
    """Flower reads variables of its own, which would go before ours: its password, its door for everybody."""
    if found := sorted(name for name in names if name.startswith(_OTHERS)):
        raise SettingsError(
            f"{', '.join(found)}: Flower is set up by ANANSE_FLOWER_* alone; unset the others."
        )


def make_password() -> str:
    return secrets.token_urlsafe(12)


def _password(settings: Settings) -> str:
    if settings.flower_password:
        password = settings.flower_password.get_secret_value()
    elif settings.host not in _LOOPBACK:
        # One that is made up stands in the log, which others read.
        raise SettingsError(
            f"ANANSE_FLOWER_PASSWORD must be set: at {settings.host} Flower can be reached from elsewhere."
        )
    else:
        password = make_password()
        sys.stderr.write(f"flower: user {settings.flower_user}, password {password}\n")
    if not (settings.flower_user + password).isascii():
        raise SettingsError("ANANSE_FLOWER_USER and ANANSE_FLOWER_PASSWORD must be plain ASCII")
    return password


if __name__ == "__main__":
    main()
