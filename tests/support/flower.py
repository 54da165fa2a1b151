"""Flower as it is run, on a port of its own, asked with its password."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from shared.settings import Settings
from tests.support.waiting import wait_until

_ROOT = Path(__file__).parents[2]
_PASSWORD = "a-password-of-tests"


@contextmanager
def flower(settings: Settings) -> Iterator[Callable[[str], str]]:
    """A function that gives what Flower answers to a path."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    ours = {
        "ANANSE_REDIS_URL": settings.redis_url,
        "ANANSE_FLOWER_PORT": str(port),
        "ANANSE_FLOWER_PASSWORD": _PASSWORD,
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "deploy.flower_app"],
        cwd=_ROOT,
        env=os.environ | ours,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    client = httpx.Client(
        base_url=f"http://127.0.0.1:{port}", auth=("ananse", _PASSWORD), trust_env=False, timeout=20
    )

    def ask(path: str) -> str:
        try:
            return client.get(path).text
        except httpx.TransportError:
            return ""

    try:
        wait_until(lambda: process.poll() is None and ask("/healthcheck") == "OK", 60)
        yield ask
    finally:
        client.close()
        process.terminate()
        process.wait()
