"""The log of one child: a file that starts fresh with every `ananse up` and never outgrows the disk."""

from contextlib import suppress
from io import FileIO
from pathlib import Path

MAX_BYTES = 20 * 2**20


class LogFile:
    """Appends whole lines. The file before this one is kept as `NAME.log.1`."""

    def __init__(self, path: Path, max_bytes: int = MAX_BYTES) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._file = self._fresh()
        self._size_bytes = 0

    def write(self, line: bytes) -> None:
        # A full disk costs log lines, not the service.
        with suppress(OSError):
            if self._size_bytes + len(line) > self._max_bytes:
                self._rotate()
            self._size_bytes += self._file.write(line)

    def close(self) -> None:
        self._file.close()

    def _rotate(self) -> None:
        former, self._file = self._file, self._fresh()
        self._size_bytes = 0
        former.close()

    def _fresh(self) -> FileIO:
        if self._path.exists():
            self._path.replace(self._path.with_name(self._path.name + ".1"))
        return self._path.open("wb", buffering=0)
