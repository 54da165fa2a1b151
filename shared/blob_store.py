"""Bytes: media, manifests, audio parts, results. Names are ours (`jobs/ID/...`), never a client's."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from errno import EDQUOT, ENOSPC
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

import fsspec

from shared.errors import BlobUnavailable, StorageFull

_FULL = (ENOSPC, EDQUOT)
_RETRY_S = 5.0


class BlobMissing(Exception):
    """No blob of this name."""


class BlobStore:
    """Files under one fsspec URL. A blob appears whole or not at all."""

    def __init__(self, url: str) -> None:
        """`file:///var/ananse`, `file://./var/blobs`, `s3://bucket/prefix` or `memory://name`."""
        parts = urlsplit(url)
        self._scheme = parts.scheme or "file"
        if self._scheme == "file":
            self._root = str(Path(parts.netloc + parts.path).resolve())
            Path(self._root).mkdir(parents=True, exist_ok=True)
            # One folder for all that is not whole yet: on the same disk, so that a rename ends it.
            self.incoming = Path(self._root, "incoming")
            self.incoming.mkdir(exist_ok=True)
        else:
            self._root = (parts.netloc + parts.path).rstrip("/")
            self.incoming = Path(tempfile.gettempdir())
        self._fs = fsspec.filesystem(self._scheme)

    @property
    def is_local(self) -> bool:
        return self._scheme == "file"

    def require(self) -> None:
        """Raises BlobUnavailable when the store is not there: an empty mount point is no empty store."""
        if self.is_local and not self.incoming.is_dir():
            raise BlobUnavailable(retry_after_s=_RETRY_S)

    def adopt(self, name: str, path: Path) -> None:
        """Takes a finished, fsynced file from `incoming` in; it is durable when this returns."""
        with self._guarded():
            if self.is_local:
                target = Path(self._path(name))
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(path, target)
                _sync_folder(target.parent)
                _sync_folder(target.parent.parent)
            else:
                self._fs.put_file(str(path), self._path(name))
                path.unlink()

    def write(self, name: str, content: bytes) -> None:
        """Durable when this returns; replaces what was there as a whole."""
        with self._guarded():
            handle, temporary = tempfile.mkstemp(dir=self.incoming)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                self.adopt(name, Path(temporary))
            except BaseException:
                with suppress(FileNotFoundError):
                    os.unlink(temporary)
                raise

    def read(self, name: str) -> bytes:
        """Raises BlobMissing."""
        with self.open(name) as file:
            return file.read()

    @contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        """A seekable binary file. Raises BlobMissing."""
        with self._guarded():
            file: IO[bytes] = self._fs.open(self._path(name), "rb")
        with file:
            yield file

    @contextmanager
    def local(self, name: str) -> Iterator[Path]:
        """The blob as a file on this machine, for decoders that must seek. Raises BlobMissing."""
        if self.is_local:
            path = Path(self._path(name))
            with self._guarded():
                if not path.is_file():
                    raise FileNotFoundError(name)
            yield path
            return
        with tempfile.TemporaryDirectory(prefix="ananse-") as folder:
            path = Path(folder, "media")
            with self._guarded():
                self._fs.get_file(self._path(name), str(path))
            yield path

    def size(self, name: str) -> int:
        """Bytes. Raises BlobMissing."""
        with self._guarded():
            return int(self._fs.size(self._path(name)) or 0)

    def exists(self, name: str) -> bool:
        with self._guarded():
            return bool(self._fs.exists(self._path(name)))

    def copy(self, source: str, target: str) -> None:
        """A second blob with the same bytes; on a disk it shares them. Raises BlobMissing."""
        with self._guarded():
            if self.is_local:
                path = Path(self._path(target))
                path.parent.mkdir(parents=True, exist_ok=True)
                os.link(self._path(source), path)
                _sync_folder(path.parent)
            else:
                self._fs.cp_file(self._path(source), self._path(target))

    def remove(self, folder: str) -> None:
        """Removes a blob or all that lies under a name; gone already is fine."""
        path = self._path(folder)
        with self._guarded():
            if self.is_local:
                shutil.rmtree(path, ignore_errors=True) if os.path.isdir(path) else Path(path).unlink(True)
            elif self._fs.exists(path):
                self._fs.rm(path, recursive=True)

    def folders(self, under: str) -> tuple[str, ...]:
        """Names of the folders directly under one."""
        with self._guarded():
            try:
                rows = self._fs.ls(self._path(under), detail=False)
            except FileNotFoundError:
                return ()
        return tuple(sorted(str(row).rstrip("/").rsplit("/", 1)[-1] for row in rows))

    def age_s(self, name: str, now: datetime) -> float:
        """Seconds since a blob or folder was last written to. Raises BlobMissing."""
        with self._guarded():
            modified: datetime = max(map(self._fs.modified, self._written(name)))
        return max(0.0, (now - modified.astimezone(UTC)).total_seconds())

    def free_bytes(self) -> int | None:
        """Room left; None where there is no such bound."""
        if not self.is_local:
            return None
        with self._guarded():
            return shutil.disk_usage(self._root).free

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """A disk that is not there holds no blob and lacks none either."""
        self.require()
        try:
            yield
        except FileNotFoundError as error:
            self.require()
            raise BlobMissing(str(error.filename or "")) from error
        except OSError as error:
            if error.errno in _FULL:
                raise StorageFull(retry_after_s=_RETRY_S) from error
            raise BlobUnavailable(retry_after_s=_RETRY_S) from error

    def _written(self, name: str) -> list[str]:
        """Folders of object stores have no time of their own: theirs is that of the blobs in them."""
        path = self._path(name)
        return ([] if self.is_local else self._fs.find(path)) or [path]

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"


def _sync_folder(path: Path) -> None:
    """A rename is durable once its folder is."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
