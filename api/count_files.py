"""The folder in which all of gunicorn's processes count, a few files each. Those of a process that ended
stay, so that nothing counted goes back; they are a few kilobytes of memory each."""

import shutil
import tempfile
from pathlib import Path


def folder(first_pid: int, parent: str | None) -> Path:
    """Of the gunicorn whose first process this is; the same one as long as it lives."""
    return Path(parent or tempfile.gettempdir()) / f"ananse-counts-{first_pid}"


def clean(folder: Path) -> None:
    """Empty, whoever had the same number before."""
    remove(folder)
    folder.mkdir(mode=0o700)


def remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def forget_process(folder: Path, pid: int) -> None:
    """Takes what only a living process has: clients that wait."""
    for file in folder.glob(f"gauge_live*_{pid}.db"):
        file.unlink(missing_ok=True)
