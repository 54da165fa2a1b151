"""Is it up? One question to each part, asked as its users would."""

import httpx

from shared.errors import ServiceError
from shared.fleet import Fleet, WorkerState
from shared.redis_store import RedisStore, connect

_ANSWER_S = 1.0


def responds(url: str) -> bool:
    """Whether a GET is answered with success, by this machine and through no proxy."""
    try:
        return httpx.get(url, timeout=_ANSWER_S, trust_env=False).is_success
    except httpx.HTTPError:
        return False


def asks_for_key(url: str) -> bool:
    try:
        return httpx.get(url, timeout=_ANSWER_S, trust_env=False).status_code == httpx.codes.UNAUTHORIZED
    except httpx.HTTPError:
        return False


class Workers:
    """The live workers of one Redis, known from their heartbeats."""

    def __init__(self, redis_url: str) -> None:
        self._client = connect(redis_url, timeout_s=_ANSWER_S, retries=0)
        self._fleet = Fleet(RedisStore(self._client))

    def on(self, host: str) -> tuple[WorkerState, ...]:
        """Empty too while Redis does not answer."""
        try:
            return tuple(worker for worker in self._fleet.live() if worker.host == host)
        except ServiceError:
            return ()

    def close(self) -> None:
        self._client.close()


def described(worker: WorkerState) -> str:
    """Its models, where and how they run."""
    return ", ".join(f"{model.name} on {model.device} in {model.dtype}" for model in worker.models)
