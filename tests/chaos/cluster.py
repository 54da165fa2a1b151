"""The whole service as processes under a restarting hand: Redis with AOF, the API, and some plain workers."""

import os
import random
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from shared.redis_store import connect
from shared.settings import PREFIX, Settings
from tests.support.redis_server import RedisServer, find_binary

ROOT = Path(__file__).parents[2]
PREPARE_SLOTS = 4
"""Of each worker."""

_PAUSE_S = 0.3
_LOOK_S = 0.1


class Post:
    """A process that is started again when it dies, in a session of its own."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self._command, self._environment, self._log = command, environment, log
        self._lock = threading.Lock()
        self._is_open = True
        self.starts = 0
        self._start()
        self._thread = threading.Thread(target=self._tend, daemon=True)
        self._thread.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            self._process.kill()

    def children(self) -> list[psutil.Process]:
        with suppress(psutil.NoSuchProcess):
            return psutil.Process(self.pid).children(recursive=True)
        return []

    def close(self) -> None:
        with self._lock:
            self._is_open = False
        self._thread.join()
        left = self.children()
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for child in left:
            with suppress(psutil.NoSuchProcess):
                child.kill()

    def _start(self) -> None:
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command,
                cwd=ROOT,
                env=self._environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.starts += 1

    def _tend(self) -> None:
        while True:
            with self._lock:
                if not self._is_open:
                    return
                if self._process.poll() is not None:
                    time.sleep(_PAUSE_S)
                    self._start()
            time.sleep(_LOOK_S)


class Cluster:
    """`url` is the API's. Settings are impatient: a dead worker is noticed after three seconds."""

    def __init__(
        self, folder: Path, redis: RedisServer, redis_folder: Path, workers: int, pace: float
    ) -> None:
        self.redis = redis
        self._redis_folder = redis_folder
        # A server lives no longer than the thread that started it: this one stays.
        self._redis_hand = ThreadPoolExecutor(1)
        self.settings = _settings(folder, redis.url, _free_port())
        self.url = f"http://127.0.0.1:{self.settings.port}"
        environment = _environment(self.settings)
        gunicorn = ["-m", "gunicorn", "-c", "api/gunicorn_conf.py", "api.app:create_app()"]
        self.api = Post([sys.executable, *gunicorn], environment, folder / "api.log")
        worker = [sys.executable, "-m", "tests.chaos.plain_worker", "--pace", str(pace)]
        self.workers = [Post(worker, environment, folder / f"worker-{n}.log") for n in range(workers)]

    def strike(self, kind: str, chance: random.Random) -> str:
        """kill -9; or, of Redis, "emptied" and "old": its data gone, or that of the last time it was old.

        Where no decoder runs, the worker is hit; what was hit.
        """
        if kind == "emptied":
            with connect(self.settings.redis_url) as client:
                client.flushall()
            return kind
        if kind in ("redis", "old"):
            self._redis_hand.submit(self._restart_redis, kind == "old").result()
            return kind
        if kind == "api":
            chance.choice([self.api.kill, *(child.kill for child in self.api.children())])()
            return kind
        if kind == "child":
            children = [child for worker in self.workers for child in worker.children()]
            if children:
                with suppress(psutil.NoSuchProcess):
                    chance.choice(children).kill()
                return kind
        chance.choice(self.workers).kill()
        return "worker"

    def close(self) -> None:
        for post in (self.api, *self.workers):
            post.close()
        self.redis.kill()
        self._redis_hand.shutdown()

    def _restart_redis(self, is_old: bool) -> None:
        self.redis.kill()
        if is_old:
            self._turn_back()
        self.redis.start()

    def _turn_back(self) -> None:
        """The server's files as they were the last time; the first time there is nothing to go back to."""
        now, then = self._redis_folder / "appendonlydir", self._redis_folder / "then"
        if then.exists():
            shutil.rmtree(now)
            then.rename(now)
        shutil.copytree(now, then)


@contextmanager
def cluster(folder: Path, redis_folder: Path, workers: int = 4, pace: float = 0.01) -> Iterator[Cluster]:
    """`redis_folder` must have a short path: a socket lies in it. Raises RuntimeError without a server."""
    binary = find_binary()
    if binary is None:
        raise RuntimeError("no redis-server or valkey-server is installed")
    redis = RedisServer(binary, redis_folder, "--appendonly", "yes")
    made = Cluster(folder, redis, redis_folder, workers, pace)
    try:
        yield made
    finally:
        made.close()


def _settings(folder: Path, redis_url: str, port: int) -> Settings:
    return Settings(
        redis_url=redis_url,
        blob_url=f"file://{folder}/blobs",
        state_dir=folder / "state",
        port=port,
        lease_s=3,
        hint_s=2,
        sweep_s=0.5,
        part_s=30,
        prepare_slots=PREPARE_SLOTS,
        webhook_allow="127.0.0.0/8",
        webhook_retry_s=",".join(["0.2", "0.5", *["1"] * 60]),
        webhook_timeout_s=5,
        log_level="WARNING",
    )


def _environment(settings: Settings) -> dict[str, str]:
    """What differs from the defaults, as an operator would write it."""
    given: dict[str, str] = {}
    for name in settings.model_fields_set:
        value = getattr(settings, name)
        text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        given[PREFIX + name.upper()] = text
    return dict(os.environ) | given


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
