"""The whole service, watched: API, a worker with its metrics, Flower, and a few jobs they have worked on."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_network
from os import environ
from pathlib import Path

import httpx

from deploy.addresses import claim
from deploy.readiness import responds
from shared.fleet import Fleet
from shared.redis_store import RedisStore, connect
from shared.settings import Settings
from tests.support.api_server import api_server
from tests.support.service import SAMPLES
from tests.support.waiting import wait_until
from tests.support.worker_process import PLAIN, ROOT, worker_process
from tests.worker.receiver import http, receiver

USER = ("ananse", "swordfish")
_PATIENCE_S = 60.0


@dataclass(frozen=True, slots=True)
class Observed:
    """Where each of them answers, without a slash at the end."""

    api: str
    worker: str
    flower: str

    def pages(self) -> tuple[str, str, str]:
        """Metrics of API, worker and Flower."""
        api, worker, flower = (httpx.get(f"{url}/metrics") for url in (self.api, self.worker, self.flower))
        return api.text, worker.text, flower.text

    def flower_api(self, path: str) -> httpx.Response:
        return httpx.get(f"{self.flower}/api/{path}", auth=USER)

    def transcribe(self, **options: str) -> dict[str, object]:
        """A job that has ended."""
        with Path(SAMPLES, "short-1.flac").open("rb") as file:
            job = httpx.post(f"{self.api}/v1/jobs", data=options, files={"file": file}).json()
        ended: dict[str, object] = {}

        def has_ended() -> bool:
            ended.update(httpx.get(f"{self.api}{job['links']['self']}?wait=5", timeout=30).json())
            return ended["status"] not in ("queued", "running")

        wait_until(has_ended, _PATIENCE_S)
        return ended


@contextmanager
def observed(redis_url: str, folder: Path) -> Iterator[Observed]:
    """With a completed job and its webhook, a failed one, and one that was refused."""
    ports = [claim("127.0.0.1", 0, "").port for _ in range(2)]
    settings = Settings(redis_url=redis_url, blob_url=f"file://{folder}/blobs")
    of_worker = settings.model_copy(
        update={"metrics_port": ports[0], "webhook_allow": (ip_network("127.0.0.0/8"),)}
    )
    with (
        connect(redis_url) as client,
        _flower(redis_url, ports[1]) as flower,
        api_server(settings) as api,
        worker_process(of_worker, Fleet(RedisStore(client)), folder / "worker.log", PLAIN),
        receiver(http(204)) as hook,
    ):
        watched = Observed(api.url, f"http://127.0.0.1:{ports[0]}", flower)
        wait_until(lambda: "flower_worker_online{" in watched.pages()[2], _PATIENCE_S)
        job = watched.transcribe(webhook_url=hook.url())
        assert job["status"] == "completed", job
        wait_until(lambda: hook.requests, _PATIENCE_S)
        with httpx.stream("GET", f"{api.url}/v1/jobs/{job['id']}/events") as events:
            events.read()
        audio = {"Content-Type": "audio/wav"}
        sent = httpx.post(f"{api.url}/v1/jobs", content=b"no sound", headers=audio).json()
        httpx.get(f"{api.url}{sent['links']['self']}?wait=30", timeout=60)
        httpx.post(f"{api.url}/v1/jobs?priority=99", content=b"no sound", headers=audio)
        yield watched


@contextmanager
def _flower(redis_url: str, port: int) -> Iterator[str]:
    settings = {
        "ANANSE_REDIS_URL": redis_url,
        "ANANSE_FLOWER_PORT": str(port),
        "ANANSE_FLOWER_USER": USER[0],
        "ANANSE_FLOWER_PASSWORD": USER[1],
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "deploy.flower_app"],
        cwd=ROOT,
        env=dict(environ) | settings,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: responds(f"{url}/healthcheck"), _PATIENCE_S)
        yield url
    finally:
        process.terminate()
        process.wait()
