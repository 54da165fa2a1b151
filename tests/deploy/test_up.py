"""`ananse up` as a real process: the service's own Redis, API, worker and Flower."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from deploy import first_run
from deploy.plan import CHECKOUT
from shared.settings import PREFIX
from tests.support.redis_server import require_binary

pytestmark = [pytest.mark.service, pytest.mark.slow]

LAST_LINE = "Ctrl-C stops all of it."


class Up:
    """A running `ananse up`, its output so far, and every process that came of it."""

    def __init__(self, process: "subprocess.Popen[str]", state_dir: Path) -> None:
        self.process = process
        self.text = ""
        self._mark = str(state_dir)

    def read_until(self, text: str) -> str:
        assert self.process.stdout
        while text not in self.text:
            line = self.process.stdout.readline()
            assert line, f"it ended before it said {text!r}:\n{self.text}"
            self.text += line
        return self.text

    def value(self, name: str) -> str:
        """What stands behind `name` in the lines about where to find what."""
        return next(line.split()[1] for line in self.text.splitlines() if line.split()[:1] == [name])

    def processes(self) -> list[psutil.Process]:
        """All that name our state folder, wherever they hang in the tree."""
        return [process for process in psutil.process_iter() if self._is_ours(process)]

    def running(self, *words: str) -> psutil.Process:
        return next(process for process in self.processes() if set(words) <= set(process.cmdline()))

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            # Redis writes its socket's path over its arguments and environment.
            return process.environ().get("ANANSE_STATE_DIR") == self._mark or any(
                self._mark in word for word in process.cmdline()
            )
        except psutil.Error:
            return False


def environment(state_dir: Path, **settings: str) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    ours = {"STATE_DIR": str(state_dir), "PORT": "0", "FLOWER_PORT": "0", **settings}
    return clean | {PREFIX + name: value for name, value in ours.items()}


@contextmanager
def up(state_dir: Path, *arguments: str, **settings: str) -> Iterator[Up]:
    command = [sys.executable, "-m", "deploy.cli", "up", *arguments]
    with subprocess.Popen(
        command, env=environment(state_dir, **settings), cwd=CHECKOUT, text=True, stdout=-1
    ) as process:
        running = Up(process, state_dir)
        try:
            yield running
        finally:
            process.send_signal(signal.SIGINT)
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=60)


def refused(state_dir: Path, **settings: str) -> str:
    """The one sentence on standard error."""
    done = subprocess.run(
        [sys.executable, "-m", "deploy.cli", "up"],
        env=environment(state_dir, **settings),
        cwd=CHECKOUT,
        text=True,
        capture_output=True,
        timeout=120,
    )
    assert done.returncode != 0, done.stdout
    assert done.stderr.startswith("ananse: ")
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def wait(condition: Callable[[], bool], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.05)


def first_sentence(recording: Path) -> str:
    references = json.loads((recording.parent / "references.json").read_text())
    return str(references[recording.name]["segments"][0]["text"])


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    require_binary()
    return tmp_path / "state"


@pytest.mark.model
def test_transcribes_restarts_what_dies_and_leaves_nothing_behind(state_dir: Path) -> None:
    with up(state_dir, "--demo") as service:
        shown = service.read_until(LAST_LINE)
        assert "set ANANSE_MODELS for real recordings" in shown
        assert first_sentence(first_run.SAMPLE) in shown
        assert "real-time factor" in shown
        page = service.value("Page")

        password = shown.split("password ")[1].split(")")[0]
        flower = service.value("Flower")
        assert httpx.get(flower, trust_env=False).status_code == 401
        assert httpx.get(flower, auth=("ananse", password), trust_env=False).status_code == 200
        assert all(password not in " ".join(one.cmdline()) for one in service.processes())

        first = service.running("worker")
        first.kill()
        service.read_until("worker ended (SIGKILL")
        again = subprocess.run(
            [sys.executable, "-m", "deploy.cli", "demo", "--url", page],
            env=environment(state_dir),
            cwd=CHECKOUT,
            text=True,
            capture_output=True,
            timeout=120,
        )
        assert "real-time factor" in again.stdout, again.stderr
        assert service.running("worker").pid != first.pid

        started = service.processes()
        assert len(started) >= 6
        service.process.send_signal(signal.SIGINT)
        assert service.process.wait(timeout=60) == 0
        assert service.processes() == []
        assert not any(one.is_running() for one in started)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ties a child's life to its parent's")
@pytest.mark.model
def test_a_killed_supervisor_takes_all_with_it(state_dir: Path) -> None:
    with up(state_dir) as service:
        service.read_until(LAST_LINE)
        started = service.processes()
        assert len(started) >= 6
        service.process.kill()
        wait(lambda: not any(one.is_running() for one in started if one.pid != service.process.pid), 15)
        assert [one for one in service.processes() if one.pid != service.process.pid] == []


def test_a_taken_port_is_one_sentence(state_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        assert f"port {port} is taken" in refused(state_dir, PORT=port)
        assert "ANANSE_FLOWER_PORT" in refused(state_dir, FLOWER_PORT=port)


def test_an_address_that_others_reach_takes_a_key(state_dir: Path) -> None:
    sentence = refused(state_dir, HOST="0.0.0.0")
    assert "ananse keys create NAME" in sentence
    assert "ANANSE_TRUSTED_NETWORK" in sentence


def test_a_silent_redis_is_one_sentence(state_dir: Path) -> None:
    assert "ANANSE_REDIS_URL" in refused(state_dir, REDIS_URL="redis://127.0.0.1:1/0")


def test_a_wrong_setting_is_one_sentence(state_dir: Path) -> None:
    sentence = refused(state_dir, PORT="many", COLOUR="blue")
    assert "ANANSE_PORT" in sentence
    assert "ANANSE_COLOUR is not a setting" in sentence


def test_a_missing_model_is_one_sentence(state_dir: Path) -> None:
    sentence = refused(state_dir, MODELS="models/none-such")
    assert "none-such" in sentence
