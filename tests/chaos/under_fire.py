"""One service to fire at: its settings, processes and files, and what clients of it do again and again."""

import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import httpx

from shared.fleet import Fleet
from shared.redis_store import RedisStore
from shared.settings import Settings
from tests.chaos.api_process import SERVICE, ApiProcess, api_process
from tests.chaos.scene import encoded, impatient, noise
from tests.support.waiting import wait_until
from tests.support.worker_process import PLAIN, WorkerProcess, worker_process

JOBS = "/v1/jobs"
WAV = {"Content-Type": "audio/wav"}
GIVE_UP_S = 30.0
_SURELY_ON_DISK = 500_000
_TERMINAL = ("completed", "failed", "canceled", "expired")


@dataclass(frozen=True, slots=True)
class UnderFire:
    settings: Settings
    store: RedisStore
    logs: Path

    @property
    def root(self) -> Path:
        """The blob store's folder."""
        return Path(self.settings.blob_url.removeprefix("file://"))

    def api(self, app: str = SERVICE, **more: Any) -> AbstractContextManager[ApiProcess]:
        return api_process(self.settings.model_copy(update=more), self.logs / "api.log", app)

    def worker(self, pace: float = 0.0, **more: str) -> AbstractContextManager[WorkerProcess]:
        module = (*PLAIN, "--pace", str(pace))
        return worker_process(self.settings, Fleet(self.store), self.logs / "worker.log", module, **more)

    @classmethod
    def at(cls, redis_url: str, store: RedisStore, folder: Path) -> "UnderFire":
        """A lost hint is sent again after a second, a silent client is cut after two."""
        settings = impatient(redis_url, folder, upload_idle_s=2)
        return cls(settings, store, folder)

    def uploads(self) -> set[str]:
        """Names of the files that are not whole yet, or never will be."""
        return {name for name in self.files() if name.startswith("incoming/")}

    def files(self) -> dict[str, int]:
        """Sizes of all files in the blob store, by name."""
        found = {}
        for path in self.root.rglob("*"):
            # One that went in between was no file.
            with suppress(FileNotFoundError):
                if path.is_file():
                    found[str(path.relative_to(self.root))] = path.stat().st_size
        return found


def http(api: ApiProcess, timeout_s: float = GIVE_UP_S) -> httpx.Client:
    return httpx.Client(base_url=api.url, timeout=timeout_s)


def sound(seed: int, seconds: float) -> bytes:
    """A WAV file that no other seed gives."""
    return encoded(noise(seconds, seed))


def submit(
    client: httpx.Client, content: bytes, headers: Mapping[str, str] | None = None, **options: str
) -> httpx.Response:
    """Without detection, which would load a model of its own."""
    return client.post(
        JOBS, content=content, headers=WAV | dict(headers or {}), params={"vad": "off"} | options
    )


def begun_upload(fire: UnderFire, api: ApiProcess, chance: Random) -> socket.socket:
    """Sends a part of a recording, as a body or in a form, and stays there; much of it is on disk by then."""
    size = chance.choice((1_000, 100_000, 3_000_000))
    content = chance.randbytes(size)
    head = b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n"
    if chance.random() < 0.5:
        message = head % (b"audio/wav", size) + content
    else:
        form = b'--cut\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n%b\r\n--cut--\r\n'
        body = form % content
        message = head % (b"multipart/form-data; boundary=cut", len(body)) + body
    sent = chance.randrange(1, len(message))
    before = fire.uploads()
    connection = socket.create_connection(api.address, timeout=GIVE_UP_S)
    connection.sendall(message[:sent])
    if sent > _SURELY_ON_DISK:
        wait_until(lambda: fire.uploads() - before)
    return connection


def keyed(key: str) -> dict[str, str]:
    return {"Idempotency-Key": key}


def listed(client: httpx.Client, **filters: str) -> list[dict[str, Any]]:
    """Every page of the list."""
    return list(_pages(client, {"limit": "100"} | filters))


def ended(client: httpx.Client, job_id: str, timeout_s: float = 60) -> dict[str, Any]:
    """The job, once it has ended."""
    deadline = time.monotonic() + timeout_s
    while True:
        job: dict[str, Any] = client.get(f"{JOBS}/{job_id}", params={"wait": 2}).json()
        if job["status"] in _TERMINAL:
            return job
        assert time.monotonic() < deadline, job


def connections(api: ApiProcess) -> int:
    """Of clients, at the process that serves them."""
    assert api.worker is not None
    return sum(found.status != "LISTEN" for found in api.worker.net_connections("inet"))


def _pages(client: httpx.Client, query: dict[str, str]) -> Iterator[dict[str, Any]]:
    while True:
        page = client.get(JOBS, params=query).json()
        yield from page["jobs"]
        if page["next_cursor"] is None:
            return
        query = query | {"cursor": page["next_cursor"]}
