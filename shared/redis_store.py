"""The one door to Redis: keys under our prefix, the Lua scripts beside this file, and redis-py's errors
translated into ours."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from redis import Redis
from redis.backoff import ExponentialBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import (
    MasterDownError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from shared.errors import StorageFull, StoreUnavailable

PREFIX = "ananse:"
_MOST_CONNECTIONS = 4096
SCRIPTS = Path(__file__).with_name("lua")


def connect(url: str, *, timeout_s: float = 4.0, retries: int = 1, is_patient: bool = True) -> "Redis":
    """A client whose calls end within about `timeout_s` times `retries` + 1, even when Redis is frozen.

    Without patience only a connection that broke is tried again, not an answer that did not come: then calls
    end within `timeout_s`.
    """
    errors = (RedisConnectionError, RedisTimeoutError) if is_patient else (RedisConnectionError,)
    return Redis.from_url(
        url,
        decode_responses=True,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        # Each client that waits for a job holds one.
        max_connections=_MOST_CONNECTIONS,
        retry=Retry(ExponentialBackoff(cap=1, base=0.05), retries, errors),
        retry_on_error=list(errors),
    )


class RedisStore:
    """Keys, scripts and translated errors over one client."""

    def __init__(self, client: "Redis", prefix: str = PREFIX, scripts: Path = SCRIPTS) -> None:
        # redis-py types every answer as "now or awaitable"; the callers say what they get.
        self.client: Any = client
        self.prefix = prefix
        prelude = (scripts / "prelude.lua").read_text()
        self._scripts = {
            path.stem: client.register_script(_with_its_prelude(path.read_text(), prelude))
            for path in sorted(scripts.glob("*.lua"))
            if path.stem != "prelude"
        }

    def key(self, *parts: str) -> str:
        return self.prefix + ":".join(parts)

    def run(self, script: str, *args: object) -> Any:
        """Runs one of the scripts; it happens whole or not at all."""
        with self.guarded():
            return self._scripts[script](keys=[self.prefix], args=[str(arg) for arg in args])

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Raises StoreUnavailable for whatever keeps Redis from answering, StorageFull when it is full."""
        try:
            yield
        except OutOfMemoryError as error:
            raise StorageFull("The job store is full.", retry_after_s=30) from error
        except (ReadOnlyError, MasterDownError, NoPermissionError) as error:
            raise StoreUnavailable(retry_after_s=5) from error
        except ResponseError as error:
            # Redis writes no more when its disk is full (MISCONF) and answers nothing while it loads.
            # In a pipeline the word stands behind the command's number.
            if any(word in str(error) for word in ("MISCONF", "OOM command")):
                raise StorageFull("The job store cannot write.", retry_after_s=30) from error
            if str(error).startswith(("LOADING", "BUSY", "NOREPLICAS")):
                raise StoreUnavailable(retry_after_s=5) from error
            raise
        except (RedisError, OSError) as error:
            raise StoreUnavailable(retry_after_s=5) from error


def _with_its_prelude(script: str, prelude: str) -> str:
    """The script behind those parts of the prelude that it uses, which blank lines set apart.

    Redis makes every function of a script anew each time it is run, and that takes its time.
    """
    parts = prelude.split("\n\n")
    used: set[int] = set()
    words = _words(script)
    while more := {number for number, part in enumerate(parts) if _made_in(part) & words} - used:
        used |= more
        words = words.union(*(_words(parts[number]) for number in more))
    return "\n\n".join([*(parts[number] for number in sorted(used)), script])


def _made_in(part: str) -> set[str]:
    return set(re.findall(r"^local (?:function )?(\w+)", part, re.MULTILINE))


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text))


def rows_by_stream(answer: object) -> dict[str, list[tuple[str, dict[str, str]]]]:
    """What XREAD found, by key. redis-py answers a list of pairs under RESP2 and a dict of lists of lists
    under RESP3."""
    if isinstance(answer, dict):
        return {key: [row for batch in batches for row in batch] for key, batches in answer.items()}
    return dict(answer) if isinstance(answer, list) else {}
