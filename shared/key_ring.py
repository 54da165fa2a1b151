"""Where API keys are kept: in Redis, to be asked at every request, and beside the recordings, to be had again
when Redis comes back empty or old. Only digests, in both."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from shared.api_keys import ApiKey, Presented, Verdict
from shared.blob_store import BlobMissing, BlobStore
from shared.errors import NotFound, StoreUnavailable
from shared.log import get_logger
from shared.redis_store import RedisStore
from shared.settings import Settings, SettingsError

_FOLDER = "keys"
_STALE_MS = 60_000
"""The instant of a key's last use is written so seldom."""

_NOT_COUNTED = -2
_ALONE_S = 30

_log = get_logger()


@dataclass(frozen=True, slots=True)
class Count:
    """Of requests in the bucket: how many are left, when one more is free, and when all are."""

    left: int
    wait_s: float
    whole_s: float

    @property
    def is_refused(self) -> bool:
        return self.left < 0


@dataclass(frozen=True, slots=True)
class Admission:
    """`key` is there when the verdict is not `unknown`; `count` when its requests have a bound.

    `are_there_keys` is what Redis knows, None where it knows of none and was not compared with the copies.
    """

    verdict: Verdict
    are_there_keys: bool | None
    key: ApiKey | None = None
    count: Count | None = None


class KeyRing:
    """A revoked key stays, as revoked: whoever made a first key has closed the door for good."""

    def __init__(self, store: RedisStore, blobs: BlobStore) -> None:
        self._store = store
        self._blobs = blobs
        self._prefix = f"{store.prefix.removesuffix(':')}-keys:"

    def admit(self, presented: Presented | None, requests_per_min: int) -> Admission:
        """Looks a key up and counts the request, in one act; the requests of a key have this bound unless it
        has its own. None looks only whether there are keys.

        Of a Redis that was started anew, the copy is asked: it may have come back empty, or from a day on
        which a key was not revoked yet.
        """
        key_id, digest = (presented.id, presented.digest) if presented else ("", "")
        some, is_whole, now_ms, left, wait_ms, whole_ms, flat = self._store.run(
            "admit", key_id, digest, requests_per_min, _STALE_MS
        )
        are_there_keys = bool(some) if some or is_whole else None
        if presented is None:
            return Admission(Verdict.UNKNOWN, are_there_keys)
        fields = dict(zip(flat[::2], flat[1::2], strict=True))
        key = _read(fields) if is_whole else self._copied(key_id)
        verdict = key.verdict(digest, now_ms) if key else Verdict.UNKNOWN
        if verdict is Verdict.UNKNOWN:
            return Admission(verdict, are_there_keys)
        count = Count(left, wait_ms / 1000, whole_ms / 1000) if left > _NOT_COUNTED else None
        return Admission(verdict, are_there_keys, key, count)

    def count_wrong(self, address: str, per_min: int) -> float:
        """Counts a wrong key from there; for how many seconds there have been too many, 0 for not yet."""
        return float(self._store.run("wrong_key", address, per_min)) / 1000

    def keep(self, key: ApiKey) -> None:
        """Makes or changes a key. The copy goes first: one that is valid can always be had again, and a
        revoked one never comes back."""
        self.keep_copy(key)
        self._write(key)

    def keep_copy(self, key: ApiKey) -> None:
        """Where Redis is not up: it learns of the key when it is."""
        self._blobs.write(_copy(key.id), json.dumps(key.to_fields()).encode())

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Nobody else changes keys inside: what was read is what is changed. Raises StoreUnavailable."""
        with self._store.guarded():
            if not self._store.client.set(f"{self._prefix}changing", "1", nx=True, ex=_ALONE_S):
                raise StoreUnavailable("Somebody else is changing keys; try again.", retry_after_s=_ALONE_S)
        try:
            yield
        finally:
            with self._store.guarded():
                self._store.client.delete(f"{self._prefix}changing")

    def all(self) -> tuple[ApiKey, ...]:
        """As the copies tell, the oldest first."""
        return tuple(sorted(self._copies(), key=lambda key: (key.created_ms, key.id)))

    def find(self, word: str) -> ApiKey:
        """By its id, or by its name among those that are not revoked. Raises NotFound."""
        for key in self.all():
            if word == key.id or (word == key.name and not key.revoked_ms):
                return key
        raise NotFound(f"There is no API key {word}.")

    def last_uses(self) -> dict[str, int]:
        """When each was used last, to the minute; by id, in milliseconds."""
        with self._store.guarded():
            rows: dict[str, str] = self._store.client.hgetall(self._store.key("used"))
        return {key_id: int(at_ms) for key_id, at_ms in rows.items()}

    def now_ms(self) -> int:
        with self._store.guarded():
            seconds, microseconds = self._store.client.time()
        return int(seconds) * 1000 + int(microseconds) // 1000

    def are_there_copies(self) -> bool:
        """Whether there ever was a key, as the blob store knows it."""
        return were_keys_made(self._blobs)

    def restore(self) -> int:
        """Once in the life of each Redis: what it knows of keys is what the copies say. How many there
        are."""
        with self._store.guarded():
            run_id = str(self._store.client.info("server")["run_id"])
            if self._store.client.get(f"{self._prefix}whole") == run_id:
                return 0
        keys = self.all()
        for key in keys:
            self._write_as_copied(key)
        with self._store.guarded():
            self._store.client.set(f"{self._prefix}whole", run_id)
        if keys:
            _log.info("keys_compared", keys=len(keys))
        return len(keys)

    def _copies(self) -> Iterator[ApiKey]:
        for key_id in self._blobs.folders(_FOLDER):
            key = self._copied(key_id)
            if key is not None:
                yield key

    def _copied(self, key_id: str) -> ApiKey | None:
        try:
            return ApiKey.from_fields(json.loads(self._blobs.read(_copy(key_id))))
        except BlobMissing:
            return None
        except (KeyError, TypeError, ValueError):
            _log.error("key_unreadable", key_id=key_id)
            return None

    def _write_as_copied(self, key: ApiKey) -> None:
        """Whoever changes the key meanwhile writes the copy first, so it is looked at once more."""
        self._write(key)
        while (now := self._copied(key.id)) is not None and now != key:
            key = now
            self._write(key)

    def _write(self, key: ApiKey) -> None:
        with self._store.guarded():
            pipe = self._store.client.pipeline(transaction=True)
            pipe.hset(f"{self._prefix}key:{key.id}", mapping=key.to_fields())
            pipe.sadd(f"{self._prefix}all", key.id)
            pipe.execute()


def _read(fields: dict[str, str]) -> ApiKey | None:
    return ApiKey.from_fields(fields) if fields else None


def were_keys_made(blobs: BlobStore) -> bool:
    """Whether there ever was a key; Redis need not be there to tell."""
    return bool(blobs.folders(_FOLDER))


def require_keys(settings: Settings, blobs: BlobStore) -> None:
    """Raises SettingsError where everybody reaches the API and nobody could use it."""
    if not settings.is_private and not were_keys_made(blobs):
        raise SettingsError(
            f"ANANSE_HOST: others reach {settings.host}, and there is no API key yet: make one with "
            "`ananse keys create NAME`, or set ANANSE_TRUSTED_NETWORK=true where only trusted machines do"
        )


def _copy(key_id: str) -> str:
    return f"{_FOLDER}/{key_id}/key.json"
