"""Keeps looking whether Redis still holds what it should: the API gets ready again where no worker is up."""

import threading

from api.parts import Parts
from shared.errors import DependencyError
from shared.log import get_logger

_log = get_logger()


def start(parts: Parts) -> None:
    """A thread that lives as long as the process."""
    threading.Thread(target=_run, args=(parts,), name="rebuilding", daemon=True).start()


def _run(parts: Parts) -> None:
    while not parts.stopping.wait(parts.settings.sweep_s):
        try:
            parts.rebuild.look()
        except DependencyError:
            # Redis or the disk is away; every request says so.
            continue
        except Exception:
            _log.exception("rebuild_failed")
