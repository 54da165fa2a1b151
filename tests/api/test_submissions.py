"""What the second truth of a job, its manifest, is for while Redis loses the first."""

from dataclasses import replace
from typing import Any

import pytest

from api.auth import ANYBODY
from api.parts import Parts
from api.submissions import new_id, submit_source
from shared.job import Options
from shared.job_store import NewJob
from shared.media import Media
from shared.source import Source

pytestmark = pytest.mark.redis

SOURCE = Source("http://198.51.100.7/talk.wav", {})


class Emptying:
    """A blob store; Redis is emptied just before the first manifest is written."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._is_due = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._parts.blobs, name)

    def write(self, name: str, content: bytes) -> None:
        if self._is_due and "manifest" in name:
            self._is_due = False
            self._parts.store.client.flushdb()
        self._parts.blobs.write(name, content)


def test_one_job_for_one_key_whatever_redis_forgets_in_between(parts: Parts) -> None:
    media = Media(SOURCE.name, 0, "", url=SOURCE.shown_url)
    asked = NewJob(new_id(), "default", Options(model="m"), media, idempotency_key="k", request_hash="h")
    emptied: Any = Emptying(parts)

    first, is_first = submit_source(replace(parts, blobs=emptied), ANYBODY, asked, SOURCE)
    second, is_second = submit_source(parts, ANYBODY, replace(asked, id=new_id()), SOURCE)

    assert (is_first, is_second) == (True, False)
    assert first.id == second.id == asked.id
