import platform
from pathlib import Path

import pytest

from deploy import allocator

pytestmark = pytest.mark.skipif(platform.system() != "Linux", reason="nothing is preloaded elsewhere")


def test_takes_jemalloc_where_it_is_installed(tmp_path: Path) -> None:
    library = tmp_path / "libjemalloc.so.2"
    library.touch()
    chosen = allocator.environment({}, (tmp_path / "absent.so", library))
    assert chosen["LD_PRELOAD"] == str(library)
    assert "MALLOC_CONF" in chosen


def test_tunes_glibc_where_it_is_not(tmp_path: Path) -> None:
    assert allocator.environment({}, (tmp_path / "absent.so",)) == allocator.GLIBC


@pytest.mark.parametrize("name", ["LD_PRELOAD", "MALLOC_CONF", "MALLOC_TRIM_THRESHOLD_"])
def test_leaves_the_users_choice_alone(name: str) -> None:
    assert allocator.environment({name: "mine"}) == {}
