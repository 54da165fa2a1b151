"""What the container files say must agree with the rest; that they work is tried by running them."""

import re
from pathlib import Path

import pytest

from deploy.allocator import JEMALLOC
from deploy.plan import CHECKOUT
from shared.settings import PREFIX, Settings

FILES = ("Dockerfile.api", "Dockerfile.worker", "docker-compose.yml")


@pytest.mark.parametrize("name", FILES)
def test_every_setting_in_it_exists(name: str) -> None:
    known = {PREFIX + field.upper() for field in Settings.model_fields}
    assert set(re.findall(rf"{PREFIX}[A-Z_]+", _text(name))) - known == set()


def test_torch_is_pinned_alike_everywhere() -> None:
    pins = {
        name: set(re.findall(r"torch==([\d.]+)", _text(name)))
        for name in ("pyproject.toml", "Makefile", "Dockerfile.worker", "benchmarks/peers.txt")
    }
    assert len(set.union(*pins.values())) == 1, pins


def test_the_image_runs_on_the_same_allocator_as_ananse_up() -> None:
    assert f"MALLOC_CONF={JEMALLOC['MALLOC_CONF']}" in _text("Dockerfile.worker")


def test_the_api_image_holds_nothing_of_the_worker() -> None:
    copied = re.findall(r"^COPY (\S+)", _text("Dockerfile.api"), re.MULTILINE)
    assert "worker" not in copied
    assert "'worker'" not in _text("Dockerfile.api")


def test_only_the_own_machine_is_published_to() -> None:
    published = re.findall(r'^ +- "([^"]*):\d+"$', _text("docker-compose.yml"), re.MULTILINE)
    assert len(published) == 2
    assert all(one.startswith("127.0.0.1:") for one in published)


def _text(name: str) -> str:
    return Path(CHECKOUT, name).read_text()
