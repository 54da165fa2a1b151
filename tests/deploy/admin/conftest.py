"""The command itself, on the test's own Redis and folder."""

import io
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass

import pytest

from deploy import cli
from shared.redis_store import RedisStore
from shared.settings import PREFIX, Settings


@dataclass(frozen=True, slots=True)
class Said:
    """What `ananse admin …` came to."""

    status: int
    out: str
    err: str


Admin = Callable[..., Said]


@pytest.fixture
def admin(settings: Settings, store: RedisStore) -> Iterator[Admin]:
    """Runs `ananse admin` with these words."""

    def run(*words: str) -> Said:
        # Not pytest's streams, which are closed after the test: loggers keep what they are first given.
        with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
            status = cli.main(["admin", *words])
        return Said(status, out.getvalue(), err.getvalue())

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(f"{PREFIX}REDIS_URL", settings.redis_url)
        patch.setenv(f"{PREFIX}BLOB_URL", settings.blob_url)
        patch.setenv(f"{PREFIX}STATE_DIR", str(settings.state_dir))
        yield run
