"""The composed service as its operator handles it, and a client that never stops sending."""

import json
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from deploy.plan import CHECKOUT
from tests.support.service import SAMPLES
from tests.support.waiting import wait_until

CLIP = SAMPLES / "short-1.flac"
_PATIENCE_S = 900
_LOOK_S = 1.0
"""A look at a container is a process of its own, beside those that are waited for."""


def has_compose() -> bool:
    if not shutil.which("docker"):
        return False
    return subprocess.run(["docker", "compose", "version"], capture_output=True).returncode == 0


def eventually(condition: Callable[[], object]) -> None:
    """Raises TimeoutError; only after a quarter of an hour, as machines are slow to start containers."""
    wait_until(condition, _PATIENCE_S, _LOOK_S)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@dataclass
class Composed:
    """One project of its own; `url` is the API's."""

    name: str
    environment: dict[str, str]
    url: str
    began: float = field(default_factory=time.monotonic)

    def compose(self, *words: str) -> str:
        command = ["docker", "compose", "-p", self.name, "-f", str(CHECKOUT / "docker-compose.yml"), *words]
        return self._run(command)

    def take_down(self) -> None:
        """With all that it keeps."""
        self.compose("--profile", "observe", "--profile", "keys", "down", "-v")

    def docker(self, *words: str) -> str:
        return self._run(["docker", *words])

    def container(self, service: str, number: int = 1) -> str:
        return f"{self.name}-{service}-{number}"

    def health(self, container: str) -> str:
        return self.docker("inspect", "-f", "{{.State.Health.Status}}", container).strip()

    def state(self, container: str, what: str) -> str:
        return self.docker("inspect", "-f", f"{{{{.State.{what}}}}}", container).strip()

    def inspect(self, container: str) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(self.docker("inspect", container))[0]
        return told

    def containers(self) -> list[str]:
        """Those that run."""
        return self._named("ps")

    def left(self) -> list[str]:
        """What is there of it, running or not."""
        kinds = (("ps", "-a"), ("volume", "ls"), ("network", "ls"))
        return [name for kind in kinds for name in self._named(*kind)]

    def _named(self, *kind: str) -> list[str]:
        shown = "{{.Names}}" if kind[0] == "ps" else "{{.Name}}"
        names = self.docker(*kind, "--format", shown).split()
        return [name for name in names if name.startswith(self.name)]

    def say(self, what: str) -> None:
        sys.stdout.write(f"{time.monotonic() - self.began:7.1f} s  {what}\n")
        sys.stdout.flush()

    def _run(self, command: list[str]) -> str:
        done = subprocess.run(command, env=self.environment, cwd=CHECKOUT, text=True, capture_output=True)
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout


class Client:
    """What the trial asks of the API."""

    def __init__(self, url: str) -> None:
        self._http = httpx.Client(base_url=url, trust_env=False, timeout=60)

    def close(self) -> None:
        self._http.close()

    def send(self, recording: Path, **options: str) -> str:
        sent = self._http.post("/v1/jobs", files={"file": recording.read_bytes()}, data=options)
        assert sent.status_code == 202, sent.text
        return str(sent.json()["id"])

    def job(self, job: str) -> dict[str, Any]:
        told: dict[str, Any] = self._http.get(f"/v1/jobs/{job}").json()
        return told

    def status(self, job: str) -> str:
        return str(self.job(job)["status"])

    def text(self, job: str) -> str:
        return self._http.get(f"/v1/jobs/{job}/transcript", params={"format": "text"}).text

    def workers(self) -> int:
        """How many are alive; -1 while nobody says."""
        try:
            return int(self._http.get("/readyz").json()["workers"])
        except (httpx.TransportError, KeyError):
            return -1


class Load:
    """Sends a clip again and again until told to stop, each with a key of its own and as long as it takes:
    a client that was not answered asks again."""

    def __init__(self, url: str, pause_s: float = 5.0) -> None:
        self.jobs: list[str] = []
        self.refused = 0
        self._url = url
        self._pause_s = pause_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Load":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        content = CLIP.read_bytes()
        number = 0
        with httpx.Client(base_url=self._url, trust_env=False, timeout=30) as client:
            while not self._stop.wait(self._pause_s):
                number += 1
                headers = {"Idempotency-Key": f"trial-{number}", "Content-Type": "audio/flac"}
                while (job := self._sent(client, content, headers)) is None:
                    self.refused += 1
                    time.sleep(self._pause_s)
                self.jobs.append(job)

    def _sent(self, client: httpx.Client, content: bytes, headers: dict[str, str]) -> str | None:
        try:
            answer = client.post("/v1/jobs", params={"reuse": "off"}, content=content, headers=headers)
        except httpx.TransportError:
            return None
        return str(answer.json()["id"]) if answer.status_code == 202 else None
