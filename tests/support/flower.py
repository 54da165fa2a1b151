"""Flower as it is run, on a port of its own, asked with its password."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from shared.settings import Settings
from tests.support.waiting import wait_until

_ROOT = Path(__file__).parents[2]
PASSWORD = "marker-flower-password"


@dataclass(frozen=True, slots=True)
class Watcher:
    """Called with a path, it gives what Flower answers to who has the password."""

    url: str
    client: httpx.Client

    def __call__(self, path: str) -> str:
        try:
            return self.client.get(path).text
        except httpx.TransportError:
            return ""


@contextmanager
def flower(settings: Settings, log: Path = Path(os.devnull)) -> Iterator[Watcher]:
    """Flower, as it is run; what it writes goes to `log`."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    ours = {
        "ANANSE_REDIS_URL": settings.redis_url,
        "ANANSE_HOST": settings.host,
        "ANANSE_FLOWER_PORT": str(port),
        "ANANSE_FLOWER_PASSWORD": PASSWORD,
    }
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "deploy.flower_app"],
            cwd=_ROOT,
            env=os.environ | ours,
            stdout=output,
            stderr=output,
        )
    url = f"http://127.0.0.1:{port}"
    client = httpx.Client(base_url=url, auth=("ananse", PASSWORD), trust_env=False, timeout=20)
    watcher = Watcher(url, client)
    try:
        wait_until(lambda: process.poll() is None and watcher("/healthcheck") == "OK", 60)
        yield watcher
    finally:
        client.close()
        process.terminate()
        process.wait()
