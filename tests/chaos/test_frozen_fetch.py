"""A worker frozen while it waits, then killed: the broker alone loses the job, the ledger does not."""

from pathlib import Path

import pytest

from shared.redis_store import RedisStore
from tests.chaos.frozen_fetch import PATIENCE_S, frozen_fetch, our_side, plain_side

pytestmark = [pytest.mark.redis, pytest.mark.service, pytest.mark.slow]


def test_plain_celery_loses_every_message_of_a_frozen_worker(
    store: RedisStore, redis_url: str, tmp_path: Path
) -> None:
    """The measure of the next test: late ack does not help, for nobody has noted the message."""
    with plain_side(redis_url, tmp_path) as side:
        report = frozen_fetch(side, tries=5)
    assert len(report.lost) == 5, str(report)
    assert report.left == (0,) * 5


def test_ours_loses_none(store: RedisStore, redis_url: str, tmp_path: Path) -> None:
    with our_side(redis_url, tmp_path) as side:
        report = frozen_fetch(side, tries=10)
    assert report.lost == (), str(report)
    assert report.slowest_s < PATIENCE_S
