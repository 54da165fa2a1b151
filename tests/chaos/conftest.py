"""Whatever is done to a Redis here is done to one of the module's own, which writes down what it is told."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.redis_store import RedisStore
from tests.chaos.under_fire import UnderFire
from tests.support.redis_server import durable_redis


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    with durable_redis() as server:
        yield server.url


@pytest.fixture
def fire(redis_url: str, store: RedisStore, tmp_path: Path) -> UnderFire:
    return UnderFire.at(redis_url, store, tmp_path)
