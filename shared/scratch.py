"""Files of this machine that live as long as the block that uses them, or as its process."""

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PREFIX = "recording-"
_GATE = "gate"


@contextmanager
def scratch_file(folder: Path) -> Iterator[Path]:
    """An empty file, gone at the end of the block. What processes that died left in the folder goes first: a
    file is locked while it is in use, whoever uses it and in whatever container."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _GATE).open("w") as gate:
        # No file is to be seen by others between its making and its locking.
        fcntl.flock(gate, fcntl.LOCK_EX)
        _remove_abandoned(folder)
        handle, name = tempfile.mkstemp(prefix=_PREFIX, dir=folder)
        fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        yield Path(name)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(name)
        os.close(handle)


def _remove_abandoned(folder: Path) -> None:
    for path in folder.glob(f"{_PREFIX}*"):
        with suppress(BlockingIOError, FileNotFoundError), path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
