"""Short ways to API keys: made as the command makes them, and sent as a client sends them."""

from dataclasses import replace

from shared.api_keys import ApiKey, Scope, digest_of, new_id, new_secret, written
from shared.blob_store import BlobStore
from shared.key_ring import KeyRing
from shared.redis_store import RedisStore

ALL = frozenset({Scope.SUBMIT, Scope.READ, Scope.CANCEL})


def ring_of(store: RedisStore, blobs: BlobStore) -> KeyRing:
    return KeyRing(store, blobs)


def make_key(
    ring: KeyRing, name: str = "ama", *, scopes: frozenset[Scope] = ALL, **more: object
) -> tuple[ApiKey, str]:
    """The key, and what its owner has. `more` are fields, and `limits` by their names."""
    secret = new_secret()
    key = ApiKey(new_id(), name, name, scopes, digest_of(secret), ring.now_ms())
    key = replace(key, **more)  # type: ignore[arg-type]
    ring.keep(key)
    return key, written(key.id, secret)


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}
