"""Keys on a real Redis and a real folder: looked up, counted, and had again when Redis has lost them."""

import json
import threading
from dataclasses import replace

import pytest

from shared.api_keys import ApiKey, Verdict, digest_of, read
from shared.blob_store import BlobStore
from shared.errors import NotFound, StoreUnavailable
from shared.key_ring import Admission, KeyRing
from shared.redis_store import RedisStore, connect
from tests.support.keys import make_key

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
    assert ring.admit(None, 0).are_there_keys is None
    assert not ring.are_there_copies()
    ring.restore()
    assert ring.admit(None, 0).are_there_keys is False
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


def test_an_emptied_redis_has_its_keys_again(ring: KeyRing, store: RedisStore) -> None:
    key, text = make_key(ring)
    ring.restore()
    store.client.flushall()
    # By its copy, uncounted, until somebody has looked.
    assert ring.admit(read(text), 5) == Admission(Verdict.VALID, None, key, None)

    assert ring.restore() == 1

    admission = ring.admit(read(text), 5)
    assert (admission.key, admission.are_there_keys) == (key, True)
    assert admission.count
    assert ring.restore() == 0


def test_a_redis_that_was_looked_at_needs_no_copy(ring: KeyRing, blobs: BlobStore) -> None:
    """No request asks a bucket."""
    key, text = make_key(ring)
    ring.restore()
    blobs.remove_folder("keys")

    assert ring.admit(read(text), 0).key == key


def test_an_old_redis_does_not_take_a_revoked_key_for_valid(ring: KeyRing, store: RedisStore) -> None:
    """A copy of yesterday is put in place, in which the key was not revoked yet."""
    key, text = make_key(ring)
    ring.keep(replace(key, revoked_ms=ring.now_ms()))
    store.client.flushall()
    store.client.hset(f"ananse-keys:key:{key.id}", mapping=key.to_fields())
    store.client.sadd("ananse-keys:all", key.id)
    store.client.set("ananse-keys:whole", "yesterday")
    assert ring.admit(read(text), 0).verdict is Verdict.REVOKED

    assert ring.restore() == 1

    assert ring.admit(read(text), 0).verdict is Verdict.REVOKED
    assert store.client.hget(f"ananse-keys:key:{key.id}", "revoked_ms") != "0"


def test_who_revokes_while_redis_is_restored_wins(ring: KeyRing, store: RedisStore, blobs: BlobStore) -> None:
    """The copy was read, then the key is revoked, then what was read is written."""
    key, text = make_key(ring)
    revoked = replace(key, revoked_ms=1)

    class Late(KeyRing):
        def all(self) -> tuple[ApiKey, ...]:
            found = super().all()
            ring.keep(revoked)
            return found

    Late(store, blobs).restore()

    assert ring.admit(read(text), 0).key == revoked


def test_one_at_a_time_changes_keys(ring: KeyRing) -> None:
    with ring.alone(), pytest.raises(StoreUnavailable, match="Somebody else"), ring.alone():
        pass
    with ring.alone():
        pass


def test_a_copy_of_another_version_is_left(ring: KeyRing, store: RedisStore, blobs: BlobStore) -> None:
    _, text = make_key(ring)
    blobs.write("keys/zzz/key.json", b'{"version": 9}')
    store.client.flushall()

    assert ring.restore() == 1
    assert ring.admit(read(text), 0).verdict is Verdict.VALID
