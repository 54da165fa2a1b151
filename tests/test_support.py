"""The scaffolding itself: the store is real and empty for every test."""

import pytest

from shared.redis_store import RedisStore
from shared.settings import Settings


@pytest.mark.parametrize("round_number", [1, 2])
def test_store_starts_empty_for_every_test(store: RedisStore, round_number: int) -> None:
    assert store.client.dbsize() == 0

    store.client.set(store.key("mark"), round_number)

    assert store.client.get("ananse:mark") == str(round_number)


def test_settings_point_at_this_sessions_redis(settings: Settings, redis_url: str) -> None:
    assert settings.redis_url == redis_url
    assert settings.blob_url.startswith("file:///")
