"""What several tests of the engine load."""

import pytest

from tests.support.checkpoints import load_random, write_random
from worker.engine.loading import Loaded


@pytest.fixture(scope="module")
def nano(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    """Random weights of the smallest shape there is."""
    return load_random(write_random(tmp_path_factory.mktemp("shapes") / "nano", "nano"))
