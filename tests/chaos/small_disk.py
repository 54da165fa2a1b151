"""A disk of a few megabytes that a test may fill and empty again."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from errno import ENOSPC
from pathlib import Path

import pytest

MIB = 2**20
_PAGE_BYTES = 4096
_TRIES = 1000


@dataclass(frozen=True, slots=True)
class SmallDisk:
    root: Path

    @property
    def free_bytes(self) -> int:
        return shutil.disk_usage(self.root).free

    @property
    def used_bytes(self) -> int:
        return shutil.disk_usage(self.root).used

    def fill(self, leave_bytes: int = 0) -> None:
        """Takes all room but `leave_bytes`; others may be writing meanwhile."""
        with self._filler.open("ab") as file:
            for _ in range(_TRIES):
                room = self.free_bytes - leave_bytes
                if room < _PAGE_BYTES:
                    return
                with suppress_full():
                    os.posix_fallocate(file.fileno(), file.seek(0, os.SEEK_END), room)
        raise AssertionError("the disk cannot be filled")

    def make_room(self) -> None:
        self._filler.unlink(missing_ok=True)

    @property
    def _filler(self) -> Path:
        return self.root / "filler"


@contextmanager
def small_disk(size_bytes: int) -> Iterator[SmallDisk]:
    """Skips the test where a disk cannot be mounted."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    with tempfile.TemporaryDirectory(prefix="ananse-disk-") as folder:
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", folder],
            capture_output=True,
            text=True,
        )
        if mounted.returncode:
            pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
        try:
            yield SmallDisk(Path(folder))
        finally:
            # Lazily: a process that is on its way out may still hold a file.
            subprocess.run(["umount", "-l", folder], check=True)


@contextmanager
def suppress_full() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno != ENOSPC:
            raise
