"""Redis goes and comes back, three times in three seconds: the worker fetches again, or another one does."""

from pathlib import Path

import pytest

from tests.chaos import deaf
from tests.support.redis_server import find_binary

pytestmark = [pytest.mark.redis, pytest.mark.service, pytest.mark.slow]

SEED = 18


@pytest.fixture
def binary(redis_url: str) -> Path:
    """There is one, or `redis_url` would have skipped."""
    found = find_binary()
    assert found is not None
    return found


def test_a_bounced_redis_leaves_no_worker_deaf(binary: Path, tmp_path: Path) -> None:
    report = deaf.run(tmp_path, binary, rounds=5, seed=SEED)

    assert report.deaf == (), str(report)
    assert len(report.waits_s) == 5
    assert max(report.waits_s) < deaf.PATIENCE_S
