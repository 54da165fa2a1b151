"""A real API for the client's tests: gunicorn on a real Redis, and a worker that spells what it hears."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ananse_client import Client, Patience
from shared.blobs import open_blobs
from shared.fleet import Fleet
from shared.ledger import Ledger
from shared.redis_store import RedisStore, connect
from shared.settings import Settings
from tests.support.api_server import api_server
from tests.support.redis_server import redis_server, require_binary
from tests.support.worker_hand import WorkerHand
from tests.support.worker_process import PLAIN, worker_process

QUICK = Patience(retries=3, first_s=0.01, chance=lambda: 0.0)


@dataclass(frozen=True, slots=True)
class Served:
    """`hand` acts as a worker where no process of one is up."""

    url: str
    settings: Settings
    store: RedisStore
    hand: WorkerHand


@pytest.fixture(scope="module")
def served(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """No worker: jobs stay as the test moves them."""
    settings = Settings(
        redis_url=redis_url,
        blob_url=f"file://{tmp_path_factory.mktemp('client')}",
        api_threads=16,
        max_wait_s=2,
        max_upload_bytes=20_000_000,
    )
    with api_server(settings) as server, connect(redis_url) as redis:
        redis.flushdb()
        store = RedisStore(redis)
        yield Served(
            server.url, settings, store, WorkerHand(Ledger(store), Fleet(store), open_blobs(settings))
        )


@pytest.fixture(scope="module")
def working(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """With a worker, and a Redis apart: it would take the jobs of the other."""
    folder = tmp_path_factory.mktemp("working")
    with redis_server(require_binary()) as url:
        yield from _working(url, folder)


def _working(redis_url: str, folder: Path) -> Iterator[Served]:
    settings = Settings(
        redis_url=redis_url, blob_url=f"file://{folder}/blobs", state_dir=folder / "state", max_wait_s=10
    )
    with connect(redis_url) as redis:
        store = RedisStore(redis)
        hand = WorkerHand(Ledger(store), Fleet(store), open_blobs(settings))
        with (
            api_server(settings) as server,
            worker_process(settings, Fleet(store), folder / "worker.log", PLAIN),
        ):
            yield Served(server.url, settings, store, hand)


@pytest.fixture
def client(served: Served) -> Iterator[Client]:
    with Client(served.url, patience=QUICK) as client:
        yield client


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / 'a "talk" of ñ.wav'
    path.write_bytes(b"RIFF sound" * 30_000)
    return path
