"""Keys on a real Redis and a real folder: looked up, counted, and had again when Redis has lost them."""

import json
import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest

from shared.api_keys import Verdict, digest_of, read
from shared.blob_store import BlobStore
from shared.errors import NotFound
from shared.key_ring import KeyRing
from shared.redis_store import RedisStore, connect
from tests.support.keys import make_key
from tests.support.redis_server import durable_redis

pytestmark = pytest.mark.redis


@pytest.fixture
def ring(store: RedisStore, blobs: BlobStore) -> KeyRing:
    return KeyRing(store, blobs)


def test_a_key_is_found(ring: KeyRing) -> None:
    key, text = make_key(ring, limits={"jobs": 3})

    admission = ring.admit(read(text), 0)

    assert admission.verdict is Verdict.VALID
    assert admission.key == key
    assert admission.count is None
    assert admission.are_there_keys


def test_a_wrong_secret_finds_nothing_and_uses_nothing_up(ring: KeyRing) -> None:
    key, text = make_key(ring)
    wrong = replace(read(text), digest=digest_of("guess"))  # type: ignore[type-var]

    for _ in range(3):
        assert ring.admit(wrong, 2).verdict is Verdict.UNKNOWN
    first = ring.admit(read(text), 2)

    assert first.count
    assert first.count.left == 1
    assert set(ring.last_uses()) == {key.id}


def test_an_empty_ring_says_so(ring: KeyRing) -> None:
    assert not ring.admit(None, 0).are_there_keys
    assert not ring.are_there_copies()
    make_key(ring)
    assert ring.admit(None, 0).are_there_keys
    assert ring.are_there_copies()


def test_requests_are_counted_and_come_back(ring: KeyRing, store: RedisStore) -> None:
    key, text = make_key(ring)

    counts = [ring.admit(read(text), 3).count for _ in range(4)]

    assert [count.left for count in counts if count] == [2, 1, 0, -1]
    last = counts[-1]
    assert last is not None
    assert last.is_refused
    # A twentieth of a minute for each of them, and the whole minute for all.
    assert 19 < last.wait_s <= 20
    assert 59 < last.whole_s <= 60
    # A third of a minute later there is room for one more.
    full_at = float(store.client.get(store.key("spent", key.id)))
    store.client.set(store.key("spent", key.id), full_at - 20_000)
    again = [ring.admit(read(text), 3).count for _ in range(2)]
    assert [count.left for count in again if count] == [0, -1]


def test_a_bound_of_its_own_goes_first(ring: KeyRing) -> None:
    _, text = make_key(ring, limits={"requests_per_min": 1})

    assert [ring.admit(read(text), 100).count.left for _ in range(2)] == [0, -1]  # type: ignore[union-attr]


def test_no_request_is_let_through_twice(ring: KeyRing, redis_url: str, blobs: BlobStore) -> None:
    """Of many at once as many pass as may."""
    _, text = make_key(ring)
    passed: list[bool] = []

    def ask() -> None:
        with connect(redis_url) as client:
            mine = KeyRing(RedisStore(client), blobs)
            for _ in range(25):
                count = mine.admit(read(text), 50).count
                passed.append(count is not None and not count.is_refused)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(passed) == 200
    # One comes back every 1.2 seconds.
    assert 50 <= sum(passed) <= 55


def test_the_last_use_is_written_seldom(ring: KeyRing, store: RedisStore) -> None:
    key, text = make_key(ring)
    ring.admit(read(text), 0)
    (first,) = ring.last_uses().values()

    store.client.hset(store.key("used"), key.id, first - 30_000)
    ring.admit(read(text), 0)
    assert ring.last_uses() == {key.id: first - 30_000}

    store.client.hset(store.key("used"), key.id, first - 60_001)
    ring.admit(read(text), 0)
    assert ring.last_uses()[key.id] >= first


def test_a_key_is_found_by_id_and_by_name(ring: KeyRing) -> None:
    revoked, _ = make_key(ring, "ama", revoked_ms=1)
    key, _ = make_key(ring, "ama")

    assert ring.find("ama") == key
    assert ring.find(revoked.id) == revoked
    with pytest.raises(NotFound):
        ring.find("kofi")


def test_no_secret_is_kept_anywhere(ring: KeyRing, store: RedisStore, blobs: BlobStore) -> None:
    key, text = make_key(ring)
    ring.admit(read(text), 10)
    secret = text.split("_", 2)[2]

    kept = [blobs.read(f"keys/{key.id}/key.json").decode()]
    for name in store.client.keys("*"):
        kept.append(name)
        if store.client.type(name) == "hash":
            kept.append(json.dumps(store.client.hgetall(name)))
    assert not [one for one in kept if secret in one]


@pytest.fixture
def lasting(blobs: BlobStore) -> Iterator[tuple[KeyRing, RedisStore]]:
    with durable_redis() as server, connect(server.url) as client:
        store = RedisStore(client)
        yield KeyRing(store, blobs), store


def test_an_emptied_redis_has_its_keys_again(lasting: tuple[KeyRing, RedisStore]) -> None:
    ring, store = lasting
    key, text = make_key(ring)
    store.client.flushall()
    assert ring.admit(read(text), 0).verdict is Verdict.UNKNOWN

    assert ring.restore() == 1

    assert ring.admit(read(text), 0).key == key
    assert ring.restore() == 0


def test_an_old_redis_does_not_know_a_revoked_key_as_valid(lasting: tuple[KeyRing, RedisStore]) -> None:
    """A copy of yesterday is put in place, in which the key was not revoked yet."""
    ring, store = lasting
    key, text = make_key(ring)
    yesterday = key.to_fields()
    ring.keep(replace(key, revoked_ms=ring.now_ms()))
    assert ring.admit(read(text), 0).verdict is Verdict.REVOKED
    store.client.flushall()
    store.client.hset(f"ananse-keys:key:{key.id}", mapping=yesterday)
    store.client.sadd("ananse-keys:all", key.id)
    assert ring.admit(read(text), 0).verdict is Verdict.VALID

    ring.restore()

    assert ring.admit(read(text), 0).verdict is Verdict.REVOKED


def test_a_copy_of_another_version_is_left(lasting: tuple[KeyRing, RedisStore], blobs: BlobStore) -> None:
    ring, store = lasting
    _, text = make_key(ring)
    blobs.write("keys/zzz/key.json", b'{"version": 9}')
    store.client.flushall()

    assert ring.restore() == 1
    assert ring.admit(read(text), 0).verdict is Verdict.VALID
