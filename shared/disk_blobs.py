"""Blobs on a disk, or on a folder that several machines mount."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from errno import EDQUOT, ENOSPC
from pathlib import Path
from typing import IO

from shared.blob_store import BlobMissing, BlobStore, Draft
from shared.errors import BlobUnavailable, StorageFull

_FULL = (ENOSPC, EDQUOT)
_RETRY_S = 5.0


class DiskBlobs(BlobStore):
    """Files under `root`; `incoming` in it holds what is not whole yet: on the same disk, so that a rename
    ends it."""

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()
        self.incoming = self._root / "incoming"
        self.incoming.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def draft(self, name: str) -> Iterator[Draft]:
        with self.guarded():
            handle, path = tempfile.mkstemp(dir=self.incoming, suffix=".part")
        try:
            with os.fdopen(handle, "wb", buffering=0) as file:
                yield DiskDraft(self, file, Path(path), self._root / name)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(path)

    def write(self, name: str, content: bytes) -> None:
        with self.draft(name) as draft:
            draft.write(content)
            draft.keep()

    def read(self, name: str) -> bytes:
        with self.guarded():
            return (self._root / name).read_bytes()

    @contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        with self.guarded():
            file: IO[bytes] = (self._root / name).open("rb")
        with file:
            yield file

    @contextmanager
    def local(self, name: str) -> Iterator[Path]:
        path = self._root / name
        with self.guarded():
            if not path.is_file():
                raise FileNotFoundError(name)
        yield path

    def exists(self, name: str) -> bool:
        with self.guarded():
            return (self._root / name).exists()

    def copy(self, source: str, target: str) -> None:
        """The copy shares its bytes with the source."""
        path = self._root / target
        with self.guarded():
            path.parent.mkdir(parents=True, exist_ok=True)
            os.link(self._root / source, path)
            _sync_folder(path.parent)

    def remove(self, name: str) -> None:
        with self.guarded(), suppress(FileNotFoundError, NotADirectoryError):
            os.unlink(self._root / name)

    def remove_folder(self, folder: str) -> None:
        with self.guarded():
            shutil.rmtree(self._root / folder, ignore_errors=True)

    def folders(self, under: str) -> tuple[str, ...]:
        with self.guarded():
            try:
                return tuple(sorted(os.listdir(self._root / under)))
            except FileNotFoundError:
                return ()

    def age_s(self, folder: str, now: datetime) -> float:
        with self.guarded():
            written_at = datetime.fromtimestamp(os.stat(self._root / folder).st_mtime, UTC)
        return max(0.0, (now - written_at).total_seconds())

    def free_bytes(self) -> int | None:
        with self.guarded():
            return shutil.disk_usage(self._root).free

    def check(self) -> None:
        with self.guarded(), tempfile.TemporaryFile(dir=self.incoming) as file:
            file.write(b"ok")

    def remove_drafts(self, older_s: float, now: datetime) -> int:
        count = 0
        with self.guarded():
            for path in self.incoming.iterdir():
                with suppress(FileNotFoundError):
                    if path.is_file() and now.timestamp() - path.stat().st_mtime > older_s:
                        path.unlink()
                        count += 1
        return count

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """A disk that is not there holds no blob and lacks none either."""
        self._require()
        try:
            yield
        except FileNotFoundError as error:
            self._require()
            raise BlobMissing(str(error.filename or "")) from error
        except OSError as error:
            if error.errno in _FULL:
                raise StorageFull(retry_after_s=_RETRY_S) from error
            raise BlobUnavailable(retry_after_s=_RETRY_S) from error

    def _require(self) -> None:
        if not self.incoming.is_dir():
            raise BlobUnavailable(retry_after_s=_RETRY_S)


class DiskDraft:
    """A file in `incoming`."""

    def __init__(self, blobs: DiskBlobs, file: IO[bytes], path: Path, target: Path) -> None:
        self._blobs = blobs
        self._file = file
        self._path = path
        self._target = target

    def write(self, content: bytes) -> None:
        with self._blobs.guarded():
            left = memoryview(content)
            while left:
                left = left[self._file.write(left) :]

    def keep(self) -> None:
        with self._blobs.guarded():
            os.fsync(self._file.fileno())
            self._target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(self._path, self._target)
            _sync_folder(self._target.parent)
            _sync_folder(self._target.parent.parent)


def _sync_folder(path: Path) -> None:
    """A rename is durable once its folder is."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
