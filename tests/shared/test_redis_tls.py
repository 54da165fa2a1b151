"""Redis over TLS, with a server and certificates that are real: both ways to it, ours and Celery's."""

import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from shared.errors import StoreUnavailable
from shared.fleet import Fleet
from shared.job_store import JobStore
from shared.redis_store import RedisStore, connect
from shared.settings import Settings
from shared.task_queue import broker_url, make_celery
from tests.support.api_server import api_server
from tests.support.flower import flower
from tests.support.redis_server import require_binary, running
from tests.support.service import SAMPLES
from tests.support.tls import Certificates, make_certificates
from tests.support.waiting import wait_until
from tests.support.worker_process import PLAIN, worker_process

pytestmark = pytest.mark.redis

_GIVE_UP_S = 5.0
_HANDSHAKE = 0x16
_AWAY = (OperationalError, RedisError, OSError)


@dataclass(frozen=True, slots=True)
class Guarded:
    """A Redis that listens over TLS only and asks every client for its certificate."""

    port: int
    made: Certificates

    def url(self, authority: str = "ours", client: str = "ours-client", host: str = "127.0.0.1") -> str:
        own = f"&ssl_certfile={self.made.pem(client)}&ssl_keyfile={self.made.key(client)}" if client else ""
        return f"rediss://{host}:{self.port}/0?ssl_ca_certs={self.made.pem(authority)}{own}"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    made = make_certificates(tmp_path_factory.mktemp("tls"), "ours", "theirs")
    binary = require_binary()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = ("--tls-port", str(port), "--tls-ca-cert-file", str(made.pem("ours")))
    words += ("--tls-cert-file", str(made.pem("ours-server")), "--tls-key-file", str(made.key("ours-server")))
    if not has_tls(binary, words):
        pytest.skip(f"{binary.name} was built without TLS")
    with running(binary, *words):
        yield Guarded(port, made)


def has_tls(binary: Path, words: tuple[str, ...]) -> bool:
    """A server without refuses the settings at once, and says so; one with it would stay."""
    with suppress(subprocess.TimeoutExpired):
        tried = subprocess.run(
            [binary, "--port", "0", *words], capture_output=True, text=True, timeout=1, check=False
        )
        return "tls" not in (tried.stdout + tried.stderr).lower()
    return True


def ways(url: str) -> Iterator[None]:
    """Tries both."""
    with connect(url, timeout_s=_GIVE_UP_S, retries=0) as client:
        store = RedisStore(client)
        try:
            JobStore(store).ping()
        except StoreUnavailable:
            yield
    celery = make_celery(url, _GIVE_UP_S)
    with celery.connection_for_write() as connection:
        try:
            connection.ensure_connection(max_retries=1, interval_start=0)
            connection.default_channel.queue_declare("x", passive=False)
        except _AWAY:
            yield


def test_who_has_the_certificates_gets_in_both_ways(guarded: Guarded) -> None:
    assert list(ways(guarded.url())) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"authority": "theirs"},
        {"client": ""},
        {"client": "theirs-client"},
        {"host": "localhost"},
    ],
    ids=["a server of another authority", "no certificate", "another's certificate", "another name"],
)
def test_nobody_else_does_neither_way(guarded: Guarded, wrong: dict[str, str]) -> None:
    assert len(list(ways(guarded.url(**wrong)))) == 2


@pytest.mark.service
@pytest.mark.slow
def test_a_whole_job_over_tls(guarded: Guarded, tmp_path: Path) -> None:
    settings = Settings(
        redis_url=guarded.url(), blob_url=f"file://{tmp_path}/blobs", state_dir=tmp_path / "state"
    )
    with connect(guarded.url()) as client:
        fleet = Fleet(RedisStore(client))
        with (
            worker_process(settings, fleet, tmp_path / "worker.log", PLAIN),
            api_server(settings) as server,
            flower(settings) as watcher,
            httpx.Client(base_url=server.url, timeout=60) as http,
        ):
            sent = http.post("/v1/jobs", files={"file": (SAMPLES / "short-1.flac").read_bytes()})
            assert sent.status_code == 202, sent.text
            job = sent.headers["Location"]
            wait_until(lambda: http.get(job).json()["status"] == "completed", 120)
            wait_until(lambda: "ananse.finish" in watcher("/api/tasks"), 30)
            wait_until(lambda: "prepare" in watcher("/api/queues/length"), 30)


@pytest.mark.parametrize("query", ["", "?ssl_cert_reqs=required"])
def test_the_broker_is_never_spoken_to_in_the_clear(query: str) -> None:
    """kombu would, for an address without a word about TLS in its query; the first words are the password."""
    said: list[bytes] = []

    def hear(listener: socket.socket) -> None:
        listener.settimeout(_GIVE_UP_S)
        with suppress(OSError):
            client, _ = listener.accept()
            with client:
                client.settimeout(_GIVE_UP_S)
                said.append(client.recv(100))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=hear, args=(listener,))
        thread.start()
        url = f"rediss://api:marker@127.0.0.1:{listener.getsockname()[1]}/0{query}"
        with make_celery(url, 2).connection_for_write() as connection, suppress(*_AWAY):
            connection.ensure_connection(max_retries=1, interval_start=0)
        thread.join()

    assert said[0][0] == _HANDSHAKE, said
    assert broker_url(url).startswith(url.split("?", 1)[0])
