"""Blobs in an object store that speaks S3. Nothing of it lies on this machine, but for the recording that a
decoder has in hand."""

import io
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from errno import EDQUOT, ENOSPC
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from shared.blob_store import BlobMissing, BlobStore, Draft
from shared.bucket import Bucket, Multipart
from shared.errors import BlobUnavailable, StorageFull
from shared.s3_client import access_of
from shared.scratch import scratch_file
from shared.settings import OBJECT_PART_BYTES, Settings

COPY_BYTES = 128 * 2**20

_FIRST_READ_BYTES = 2**16
_MOST_READ_BYTES = 2**21
_FULL = (ENOSPC, EDQUOT)
_RETRY_S = 5.0


def connect(settings: Settings) -> "ObjectBlobs":
    """Raises SettingsError, in one sentence that says what to do."""
    place = urlsplit(settings.blob_url)
    bucket = Bucket(place.netloc, place.path, access_of(settings))
    bucket.judge()
    return ObjectBlobs(bucket, settings.scratch_dir or settings.state_dir / "scratch")


class ObjectBlobs(BlobStore):
    """Relies on what S3 promises since 2020: who reads after a write, or lists after it, sees it."""

    def __init__(self, bucket: Bucket, scratch: Path) -> None:
        self._bucket = bucket
        self._scratch = scratch

    @contextmanager
    def draft(self, name: str) -> Iterator[Draft]:
        with ExitStack() as stack:
            yield ObjectDraft(self._bucket, name, stack)

    def write(self, name: str, content: bytes) -> None:
        self._bucket.put(name, content)

    def read(self, name: str) -> bytes:
        return self._bucket.read(name)

    @contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        with Reader(self._bucket, name, self._bucket.size(name)) as reader:
            yield io.BufferedReader(reader, _MOST_READ_BYTES)

    @contextmanager
    def local(self, name: str) -> Iterator[Path]:
        """In the scratch folder."""
        with ExitStack() as stack:
            try:
                path = stack.enter_context(scratch_file(self._scratch))
                with self._bucket.reading(name) as chunks, path.open("wb") as file:
                    file.writelines(chunks)
            except OSError as error:
                kind = StorageFull if error.errno in _FULL else BlobUnavailable
                raise kind(retry_after_s=_RETRY_S) from error
            yield path

    def exists(self, name: str) -> bool:
        try:
            self._bucket.size(name)
        except BlobMissing:
            return False
        return True

    def copy(self, source: str, target: str) -> None:
        self._bucket.copy(source, target, COPY_BYTES)

    def remove(self, name: str) -> None:
        self._bucket.delete(name)

    def remove_folder(self, folder: str) -> None:
        """One by one: not every store can delete many at once, and those that can want it each in its way."""
        for name, _ in list(self._bucket.names(f"{folder}/")):
            self._bucket.delete(name)

    def folders(self, under: str) -> tuple[str, ...]:
        return tuple(sorted(self._bucket.directly(f"{under}/")))

    def age_s(self, folder: str, now: datetime) -> float:
        """Folders have no time of their own here: theirs is that of the blobs in them."""
        found = self._bucket.names(folder)
        times = [at for name, at in found if name == folder or name.startswith(f"{folder}/")]
        if not times:
            raise BlobMissing()
        return max(0.0, (now - max(times)).total_seconds())

    def free_bytes(self) -> int | None:
        return None

    def check(self) -> None:
        self._bucket.check()

    def remove_drafts(self, older_s: float, now: datetime) -> int:
        count = 0
        for begun in list(self._bucket.begun()):
            if (now - begun.begun_at).total_seconds() <= older_s:
                continue
            try:
                if (now - self._bucket.last_added_at(begun)).total_seconds() > older_s:
                    self._bucket.abort(begun)
                    count += 1
            except BlobMissing:
                # Ended since it was listed.
                continue
        return count


class ObjectDraft:
    """Small ones go in one request, larger ones in parts as they come: no more than a part is held here.

    An upload that is begun is ended with `stack`.
    """

    def __init__(self, bucket: Bucket, name: str, stack: ExitStack) -> None:
        self._bucket = bucket
        self._name = name
        self._stack = stack
        self._held = bytearray()
        self._upload: Multipart | None = None

    def write(self, content: bytes) -> None:
        self._held += content
        while len(self._held) > OBJECT_PART_BYTES:
            self._send(OBJECT_PART_BYTES)

    def keep(self) -> None:
        if self._upload is None:
            self._bucket.put(self._name, bytes(self._held))
            return
        self._send(len(self._held))
        self._upload.complete()

    def _send(self, count: int) -> None:
        if self._upload is None:
            self._upload = self._stack.enter_context(self._bucket.begin(self._name))
        self._upload.add(bytes(self._held[:count]))
        del self._held[:count]


class Reader(io.RawIOBase):
    """Reads by ranges, each of them whole: a slow listener holds no connection to the store. The more is read
    in a row the longer the ranges get, up to what a buffer takes."""

    def __init__(self, bucket: Bucket, name: str, size: int) -> None:
        self._bucket = bucket
        self._name = name
        self._size = size
        self._position = 0
        self._step = _FIRST_READ_BYTES

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if base + offset != self._position:
            self._position, self._step = max(0, base + offset), _FIRST_READ_BYTES
        return self._position

    def readinto(self, buffer: Any) -> int:
        count = min(len(buffer), self._step, self._size - self._position)
        if count <= 0:
            return 0
        content = self._bucket.read(self._name, self._position, self._position + count - 1)
        buffer[: len(content)] = content
        self._position += len(content)
        self._step = min(self._step * 2, _MOST_READ_BYTES)
        return len(content)
