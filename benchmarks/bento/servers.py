"""Both sides as they are started by those who use them, and what they are seen to take and to survive."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from deploy import allocator
from deploy.readiness import responds
from shared.settings import PREFIX
from tests.support.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
BENTO_PYTHON = ROOT / "var" / "bento-venv" / "bin" / "python"
THREADS = 2

OUR_SETTINGS = {
    # As BentoML's side computes, whatever this processor could do.
    "ANANSE_DTYPE": "float32",
    "ANANSE_THREADS": str(THREADS),
    # The same recordings come round after round.
    "ANANSE_REUSE": "false",
    "ANANSE_FLOWER_PORT": "0",
}

_START_S = 600.0
_STOP_S = 60.0
_LOOK_S = 0.5


@dataclass(frozen=True, slots=True)
class Server:
    """`url` ends without a slash."""

    url: str
    process: "subprocess.Popen[bytes]"
    log: Path

    def processes(self) -> list[psutil.Process]:
        """All that it runs at the moment, itself included."""
        with suppress(psutil.NoSuchProcess):
            head = psutil.Process(self.process.pid)
            return [head, *head.children(recursive=True)]
        return []

    def kill(self, *words: str) -> int:
        """kill -9 of all whose command line holds one of `words`; how many there were."""
        killed = 0
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                if any(word in " ".join(process.cmdline()) for word in words):
                    process.kill()
                    killed += 1
        return killed

    def pss_bytes(self) -> int:
        """Memory of all of it, shared pages counted once."""
        total = 0
        for process in self.processes():
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                total += int(process.memory_full_info().pss)
        return total


class Peak:
    """The most memory that a server had while the block ran, looked at twice a second."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.bytes = 0

    def __enter__(self) -> "Peak":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            self.bytes = max(self.bytes, self._server.pss_bytes())
            if self._over.wait(_LOOK_S):
                return


@contextmanager
def ours(settings: Mapping[str, str] = OUR_SETTINGS) -> Iterator[Server]:
    """`ananse up`: Redis, API, one worker and Flower under the supervisor."""
    port = _free_port()
    with tempfile.TemporaryDirectory(prefix="ananse-") as folder:
        places = {"ANANSE_PORT": str(port), "ANANSE_STATE_DIR": folder, "PYTHONPATH": str(ROOT)}
        command = (sys.executable, "-m", "deploy.cli", "up")
        with _running(command, {**settings, **places}, port, "/health", Path(folder)) as server:
            yield server


@contextmanager
def bento(service: str) -> Iterator[Server]:
    """`bentoml serve` of one of the services in `service.py`."""
    port = _free_port()
    with tempfile.TemporaryDirectory(prefix="bento-") as folder:
        # The allocator is what `ananse up` gives its worker; `bentoml serve` alone would run without.
        settings = allocator.environment(os.environ) | {
            "OMP_NUM_THREADS": str(THREADS),
            "BENTOML_HOME": folder,
            "BENTOML_DO_NOT_TRACK": "True",
        }
        listen = ("--host", "127.0.0.1", "--port", str(port))
        where = ("--working-dir", str(ROOT))
        command = (str(BENTO_PYTHON), "-m", "bentoml", "serve", f"benchmarks.bento.service:{service}")
        with _running((*command, *listen, *where), settings, port, "/readyz", Path(folder)) as server:
            yield server


@contextmanager
def _running(
    command: tuple[str, ...], settings: dict[str, str], port: int, ready: str, folder: Path
) -> Iterator[Server]:
    """In a folder without a `.env`; what the shell has set for either side is not the benchmark's."""
    log = folder / "output.log"
    kept = {name: value for name, value in os.environ.items() if not name.startswith((PREFIX, "BENTOML_"))}
    kept.pop("PYTHONPATH", None)
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=folder, env=kept | settings, stdout=output, stderr=output)
    server = Server(f"http://127.0.0.1:{port}", process, log)
    try:
        with suppress(TimeoutError):
            wait_until(lambda: process.poll() is not None or responds(f"{server.url}{ready}"), _START_S)
        if not responds(f"{server.url}{ready}"):
            raise RuntimeError(f"{command[2]} did not start: {log.read_text()[-2000:]}")
        yield server
    finally:
        _end(server)


def _end(server: Server) -> None:
    processes = server.processes()
    server.process.send_signal(signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        server.process.wait(_STOP_S)
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    server.process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
