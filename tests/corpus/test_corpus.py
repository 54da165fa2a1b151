"""Odd, broken and mutated files through the whole service: each ends with a name for how, and nobody dies."""

from pathlib import Path

import pytest

from shared.redis_store import RedisStore
from shared.settings import Settings
from tests.corpus.course import course
from tests.corpus.mutagen_files import mutagen_files
from tests.corpus.mutants import mutant, mutants
from tests.corpus.own_files import own_files

MUTANTS = 200
MUTANTS_OF_THEIRS = 610
"""With the files themselves some 700 (T8)."""


@pytest.mark.redis
@pytest.mark.service
@pytest.mark.slow
@pytest.mark.calm
def test_files_that_others_collected_and_their_mutants(
    settings: Settings, store: RedisStore, tmp_path: Path
) -> None:
    files = mutagen_files()

    with course(settings, store, tmp_path) as run:
        run.run(files.items())
        whole = run.ends["completed"]
        run.run(mutants(files, MUTANTS_OF_THEIRS))

    assert run.faults == []
    assert whole >= 40
    assert run.ends.total() == len(files) + MUTANTS_OF_THEIRS >= 700


@pytest.mark.redis
@pytest.mark.service
@pytest.mark.slow
@pytest.mark.calm
def test_mutants(settings: Settings, store: RedisStore, tmp_path: Path) -> None:
    with course(settings, store, tmp_path) as run:
        run.run(mutants(own_files(tmp_path / "own"), MUTANTS))

    assert run.faults == []
    assert run.ends.total() == MUTANTS
    assert run.ends["completed"] >= MUTANTS // 10


def test_a_mutant_is_the_same_for_the_same_seed_and_another_for_another() -> None:
    content = bytes(10_000)

    assert mutant(content, 1, 0.01) == mutant(content, 1, 0.01)
    assert mutant(content, 1, 0.01) != mutant(content, 2, 0.01)
    flipped = sum(byte.bit_count() for byte in mutant(content, 3, 0.01))
    assert 650 < flipped < 950
    assert sum(byte.bit_count() for byte in mutant(bytes(10), 4, 0.0001)) >= 1
