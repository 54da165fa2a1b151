"""Fixtures for every test: a real Redis, an empty store on it, and settings that point at both."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.blob_store import BlobStore
from shared.blobs import open_blobs
from shared.job_store import JobStore
from shared.ledger import Ledger
from shared.redis_store import RedisStore, connect
from shared.settings import PREFIX, Settings
from tests.support.object_store import ObjectStore, object_store
from tests.support.redis_server import redis_server, require_binary


@pytest.fixture(scope="session", autouse=True)
def _no_settings_from_outside() -> Iterator[None]:
    """The settings of the developer's shell are not the tests'."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(PREFIX)]:
            patch.delenv(name)
        yield


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """A Redis of this session's own; each xdist worker has one."""
    with redis_server(require_binary()) as url:
        yield url


@pytest.fixture(scope="session")
def objects() -> Iterator[ObjectStore]:
    """An object store of this session's own. It takes seconds to start: what uses it is marked `service`."""
    with object_store() as server:
        yield server


@pytest.fixture
def store(redis_url: str) -> Iterator[RedisStore]:
    """The door to an empty Redis."""
    with connect(redis_url) as client:
        client.flushdb()
        yield RedisStore(client)


@pytest.fixture
def ledger(store: RedisStore) -> Ledger:
    return Ledger(store)


@pytest.fixture
def jobs(store: RedisStore) -> JobStore:
    return JobStore(store)


@pytest.fixture
def blobs(settings: Settings) -> BlobStore:
    return open_blobs(settings)


@pytest.fixture
def settings(tmp_path: Path, redis_url: str) -> Settings:
    return Settings(
        redis_url=redis_url,
        blob_url=f"file://{tmp_path}/blobs",
        state_dir=tmp_path / "state",
        max_wait_s=5,
    )
