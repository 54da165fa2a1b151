"""What the containers ask of themselves, as they ask it."""

import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from deploy.plan import CHECKOUT
from shared.fleet import ALIVE_S
from shared.settings import Settings
from tests.support.api_server import api_server
from tests.support.waiting import wait_until
from tests.worker.receiver import http, receiver
from worker.beat_file import BeatFile

WORKER_SCRIPT = CHECKOUT / "deploy" / "worker_is_healthy.sh"


def asks(port: int, path: str = "/readyz") -> bool:
    command = [sys.executable, "-IS", CHECKOUT / "deploy" / "healthcheck.py", str(port), path]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stderr == ""
    return done.returncode == 0


def workers_are_healthy(state_dir: Path) -> bool:
    return subprocess.run([WORKER_SCRIPT], env={"ANANSE_STATE_DIR": str(state_dir)}).returncode == 0


@pytest.mark.service
@pytest.mark.redis
def test_an_api_that_can_take_jobs_is_healthy(settings: Settings) -> None:
    with api_server(settings) as api:
        port = int(api.url.rpartition(":")[2])
        wait_until(lambda: asks(port))
        assert not asks(port, "/no/such/page")


def test_who_answers_with_an_error_is_not() -> None:
    with receiver(http(503)) as unready:
        assert not asks(unready.port)


def test_who_does_not_answer_is_not() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    assert not asks(port)


def test_a_worker_is_healthy_while_it_beats(tmp_path: Path) -> None:
    assert not workers_are_healthy(tmp_path)
    BeatFile(Settings(state_dir=tmp_path), "host-1").touch()
    assert workers_are_healthy(tmp_path)


def test_one_silent_worker_of_a_container_is_enough(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path)
    for name in ("host-1", "host-2"):
        BeatFile(settings, name).touch()
    silent_since = time.time() - ALIVE_S - 1
    os.utime(tmp_path / "workers" / "host-1.beat", (silent_since, silent_since))

    assert not workers_are_healthy(tmp_path)


def test_silence_is_as_long_for_the_container_as_for_the_fleet() -> None:
    assert re.findall(r"(\d+) seconds", WORKER_SCRIPT.read_text()) == [str(int(ALIVE_S))]
