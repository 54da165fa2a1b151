"""What webhooks are signed with where the settings name no secret: one that is made once and kept in Redis,
and for a while after a change the one before it. Asked for at each message, so that no worker is restarted
for it."""

import base64
import secrets

from shared.redis_store import RedisStore


class WebhookSecrets:
    def __init__(self, store: RedisStore) -> None:
        self._store = store
        self._now, self._before = store.key("webhook_secret"), store.key("webhook_secret_before")

    def all(self) -> tuple[str, ...]:
        """The current one, made at first use, and the one before it while that is still good."""
        with self._store.guarded():
            now, before = self._store.client.mget(self._now, self._before)
            if now is None:
                self._store.client.set(self._now, _made(), nx=True)
                now = self._store.client.get(self._now)
        return (str(now), str(before)) if before else (str(now),)

    def rotate(self, overlap_s: int) -> str:
        """A new one; the one there is signs too for `overlap_s`, one before that no more."""
        made, (now, *_) = _made(), self.all()
        with self._store.guarded():
            pipe = self._store.client.pipeline(transaction=True)
            pipe.delete(self._before)
            if overlap_s:
                pipe.set(self._before, now, ex=overlap_s)
            pipe.set(self._now, made)
            pipe.execute()
        return made


def _made() -> str:
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
