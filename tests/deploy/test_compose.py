"""The composed service for real: built, started, scaled, killed, rolled over under load, taken down.

Needs `docker` with its compose plugin, and skips without. Prints what it saw (`pytest -s`).
"""

import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from deploy.plan import CHECKOUT
from tests.support.oracle import references, words
from tests.support.service import SAMPLES
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.service, pytest.mark.slow, pytest.mark.timeout(5400)]

CLIP = SAMPLES / "short-1.flac"
START_S = 900


def has_compose() -> bool:
    if not shutil.which("docker"):
        return False
    return subprocess.run(["docker", "compose", "version"], capture_output=True).returncode == 0


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

    def docker(self, *words: str) -> str:
        return self._run(["docker", *words])

    def container(self, service: str, number: int = 1) -> str:
        return f"{self.name}-{service}-{number}"

    def health(self, container: str) -> str:
        return self.docker("inspect", "-f", "{{.State.Health.Status}}", container).strip()

    def state(self, container: str, what: str) -> str:
        return self.docker("inspect", "-f", f"{{{{.State.{what}}}}}", container).strip()

    def say(self, what: str) -> None:
        sys.stdout.write(f"{time.monotonic() - self.began:7.1f} s  {what}\n")
        sys.stdout.flush()

    def _run(self, command: list[str]) -> str:
        done = subprocess.run(command, env=self.environment, cwd=CHECKOUT, text=True, capture_output=True)
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout


class Load:
    """Sends a clip again and again until told to stop, each with a key of its own and as long as it takes:
    a client that was not answered asks again."""

    def __init__(self, url: str, pause_s: float = 0.5) -> None:
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


@pytest.fixture
def composed(tmp_path: Path) -> Iterator[Composed]:
    if not has_compose():
        pytest.skip("no docker with compose")
    port = free_port()
    ours = {"ANANSE_PORT": str(port), "ANANSE_FLOWER_PORT": str(free_port()), "COMPOSE_PROFILES": ""}
    service = Composed("ananse-trial", os.environ | ours, f"http://127.0.0.1:{port}")
    try:
        service.compose("build", "api", "worker")
        service.say("built")
        yield service
    finally:
        service.compose("down", "-v")


def test_a_composed_service_lives_through_a_day(composed: Composed) -> None:
    composed.began = time.monotonic()
    composed.compose("up", "-d", "--wait")
    composed.say("up, all healthy")

    with httpx.Client(base_url=composed.url, trust_env=False, timeout=60) as client:

        def workers() -> int:
            try:
                return int(client.get("/readyz").json()["workers"])
            except (httpx.TransportError, KeyError):
                return -1

        def status(job: str) -> str:
            return str(client.get(f"/v1/jobs/{job}").json()["status"])

        sent = client.post("/v1/jobs", files={"file": CLIP.read_bytes()}, data={"word_timestamps": "true"})
        job = sent.json()["id"]
        wait_until(lambda: status(job) == "completed", 120)
        text = client.get(f"/v1/jobs/{job}/transcript", params={"format": "text"}).text
        assert words(text) == words(references()[CLIP.name]["text"])
        composed.say(f"transcribed: {text.strip()[:60]}")

        composed.compose("up", "-d", "--no-recreate", "--scale", "worker=3")
        wait_until(lambda: workers() == 3, START_S)
        composed.say("three workers")
        names = [composed.container("worker", number) for number in (1, 2, 3)]

        with Load(composed.url) as load:
            wait_until(lambda: len(load.jobs) > 5, 120)
            victim = names[1]
            before = composed.state(victim, "StartedAt")
            # Everything in there but its init, which then ends too; the restart policy brings it back.
            subprocess.run(["docker", "exec", victim, "sh", "-c", "kill -9 -1"], env=composed.environment)
            wait_until(lambda: composed.state(victim, "StartedAt") != before, 60)
            composed.say("one worker was killed with -9 and has been started again")
            wait_until(lambda: composed.health(victim) == "healthy", START_S)
            composed.say(f"it is healthy; {len(load.jobs)} jobs were taken so far")

            for name in names:
                composed.docker("restart", "-t", "40", name)
                wait_until(lambda name=name: composed.health(name) == "healthy", START_S)  # type: ignore[misc]
                composed.say(f"{name} restarted and healthy")
            composed.docker("restart", "-t", "40", composed.container("api"))
            wait_until(lambda: composed.health(composed.container("api")) == "healthy", START_S)
            composed.say("the API restarted and healthy")
            composed.docker("restart", "-t", "40", composed.container("redis"))
            wait_until(lambda: composed.health(composed.container("redis")) == "healthy", START_S)
            composed.say("Redis restarted and healthy")
            taken = len(load.jobs)
            wait_until(lambda: len(load.jobs) > taken + 5, 120)

        unfinished = set(load.jobs)

        def all_ended() -> bool:
            unfinished.difference_update(
                [job for job in sorted(unfinished) if status(job) not in ("queued", "running")]
            )
            return not unfinished

        wait_until(all_ended, START_S)
        ends = [status(job) for job in load.jobs]
        composed.say(
            f"{len(ends)} jobs taken, {ends.count('completed')} completed; {load.refused} tries repeated"
        )
        assert set(ends) == {"completed"}
        assert len(set(load.jobs)) == len(load.jobs)
