"""Who may know whom: held by what a fresh process has loaded, and by what the files say."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(path for room in ("shared", "api", "worker") for path in (ROOT / room).rglob("*.py"))


def loaded_by(statement: str) -> set[str]:
    """Top names of all modules that a fresh process holds after it."""
    script = f"{statement}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return {name.split(".")[0] for name in done.stdout.split()}


@pytest.mark.parametrize(
    ("module", "strangers"),
    [
        (
            "api.app",
            {"torch", "transformers", "numpy", "soundfile", "librosa", "botocore", "worker", "deploy"},
        ),
        ("shared.task_queue", {"api", "worker", "deploy", "flask", "torch", "numpy"}),
        ("worker.engine.scheduler", {"torch", "transformers", "celery", "redis", "flask", "api"}),
        ("worker.engine.windows", {"torch", "transformers", "celery", "redis", "flask", "api"}),
        ("worker.delivery", {"torch", "numpy", "celery", "redis", "flask", "api"}),
        # `ananse` runs in both images, and `ananse up` stays beside the service.
        ("deploy.cli", {"torch", "numpy", "celery", "flask", "gunicorn", "api", "worker"}),
    ],
)
def test_a_room_brings_no_strangers(module: str, strangers: set[str]) -> None:
    assert loaded_by(f"import {module}") & strangers == set()


def test_wrong_settings_are_told_without_loading_a_model() -> None:
    assert not loaded_by("import worker.__main__") & {"torch", "transformers"}


def test_a_disk_costs_nothing_of_an_object_store(tmp_path: Path) -> None:
    opened = f"from shared.blobs import *; open_blobs(Settings(blob_url='file://{tmp_path}/blobs'))"

    assert not loaded_by(opened) & {"botocore"}


def test_every_file_says_what_lives_in_it() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in FILES
        if path.read_text() and not ast.get_docstring(ast.parse(path.read_text()))
    ]

    assert silent == []


def test_the_environment_is_read_in_one_place() -> None:
    readers = [
        str(path.relative_to(ROOT))
        for path in FILES
        if any(word in path.read_text() for word in ("os.environ", "getenv"))
    ]

    # The second is what CUDA reads, not we.
    assert sorted(readers) == ["shared/settings.py", "shared/visible_cards.py"]
