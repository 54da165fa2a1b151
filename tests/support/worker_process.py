"""Real worker processes for tests: started, waited for, killed."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from shared.fleet import Fleet
from shared.settings import Settings
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]
START_S = 120


class WorkerProcess:
    """`python -m worker` with the settings of the test; its log goes to a file beside the blobs."""

    def __init__(
        self, settings: Settings, fleet: Fleet, log: Path, module: Sequence[str] = ("worker",), **more: str
    ) -> None:
        self._fleet = fleet
        self.log = log
        self._before = {worker.name for worker in fleet.live()}
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *module],
                cwd=ROOT,
                env=environment(settings) | more,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_ready(self) -> None:
        wait_until(lambda: self._process.poll() is not None or self._is_live(), START_S)
        assert self._process.poll() is None, self.log.read_text()[-2000:]

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        """kill -9, no goodbye."""
        self._process.kill()
        self._process.wait()

    def stop(self, timeout_s: float = 60) -> int:
        """SIGTERM; the exit status."""
        self._process.terminate()
        return self._process.wait(timeout_s)

    def close(self) -> None:
        if self._process.poll() is None:
            self.kill()

    def _is_live(self) -> bool:
        suffix = f"-{self.pid}"
        return any(worker.name.endswith(suffix) for worker in self._fleet.live())


PLAIN = ("tests.chaos.plain_worker",)
"""The worker that starts at once, whose model is a function of the samples."""


@contextmanager
def worker_process(
    settings: Settings, fleet: Fleet, log: Path, module: Sequence[str] = ("worker",), **more: str
) -> Iterator[WorkerProcess]:
    """`more` are further environment variables."""
    process = WorkerProcess(settings, fleet, log, module, **more)
    try:
        process.wait_ready()
        yield process
    finally:
        process.close()


def environment(settings: Settings) -> dict[str, str]:
    """Only what differs from the defaults, as an operator would write it."""
    given = {
        f"ANANSE_{name.upper()}": _written(getattr(settings, name)) for name in settings.model_fields_set
    }
    return dict(os.environ) | given


def _written(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(str(part) for part in value)
    if hasattr(value, "get_secret_value"):
        return str(value.get_secret_value())
    return str(value)
