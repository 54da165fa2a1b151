"""The command itself, on the test's own Redis and folder."""

from collections.abc import Callable, Iterator
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
def admin(settings: Settings, store: RedisStore, capsys: pytest.CaptureFixture[str]) -> Iterator[Admin]:
    """Runs `ananse admin` with these words."""

    def run(*words: str) -> Said:
        status = cli.main(["admin", *words])
        said = capsys.readouterr()
        return Said(status, said.out, said.err)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(f"{PREFIX}REDIS_URL", settings.redis_url)
        patch.setenv(f"{PREFIX}BLOB_URL", settings.blob_url)
        patch.setenv(f"{PREFIX}STATE_DIR", str(settings.state_dir))
        yield run
