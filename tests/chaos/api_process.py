"""The API as it is served, made to be killed: gunicorn with one worker, on a port that outlives restarts."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import psutil

from shared.settings import Settings
from tests.support.waiting import wait_until
from tests.support.worker_process import ROOT

SERVICE = "api.app:create_app()"
_START_S = 60.0
_LISTENING = re.compile(r"Listening at: http://[^:]+:([0-9]+)")


class ApiProcess:
    """`settings` as an operator would set them; `app` is what gunicorn serves."""

    def __init__(self, settings: Settings, log: Path, app: str = SERVICE) -> None:
        self._settings = settings
        self._app = app
        self._port = 0
        self.log = log
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def address(self) -> tuple[str, int]:
        return ("127.0.0.1", self._port)

    @property
    def worker(self) -> psutil.Process | None:
        """The process that serves requests; None while there is none."""
        with suppress(psutil.Error):
            return next(iter(psutil.Process(self._master.pid).children()), None)
        return None

    def start(self) -> None:
        began = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as output:
            self._master = subprocess.Popen(
                [sys.executable, "-m", "gunicorn", "-c", "python:api.gunicorn_conf", self._app],
                cwd=ROOT,
                env=self._environment(),
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        wait_until(lambda: self._has_port(began), _START_S)
        self.wait_live()

    def wait_live(self) -> None:
        wait_until(self._is_live, _START_S)

    def kill(self) -> None:
        """kill -9 of all of it; nothing serves until `start`."""
        worker = self.worker
        self._master.kill()
        self._master.wait()
        if worker is not None:
            with suppress(psutil.NoSuchProcess):
                worker.kill()
            wait_until(lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE)

    def kill_worker(self) -> None:
        """kill -9 of the process that serves; gunicorn starts another."""
        worker = self.worker
        assert worker is not None, self.log.read_text()[-2000:]
        worker.send_signal(signal.SIGKILL)
        wait_until(lambda: self.worker not in (None, worker), _START_S)

    def _is_live(self) -> bool:
        assert self._master.poll() is None, self.log.read_text()[-2000:]
        try:
            return httpx.get(f"{self.url}/livez", timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    def _has_port(self, began: int) -> bool:
        assert self._master.poll() is None, self.log.read_text()[-2000:]
        if found := _LISTENING.search(self.log.read_text()[began:]):
            self._port = int(found[1])
        return found is not None

    def _environment(self) -> dict[str, str]:
        names = self._settings.model_fields_set - {"port"}
        given = {f"ANANSE_{name.upper()}": str(getattr(self._settings, name)) for name in names}
        return os.environ | given | {"ANANSE_PORT": str(self._port)}


@contextmanager
def api_process(settings: Settings, log: Path, app: str = SERVICE) -> Iterator[ApiProcess]:
    process = ApiProcess(settings, log, app)
    try:
        yield process
    finally:
        process.kill()
