"""The port to the bytes: media, manifests, audio parts, results. Names are ours (`jobs/ID/...`), never a
client's. What is behind it: `disk_blobs.py`, `object_blobs.py`; `blobs.py` chooses."""

from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import IO, Protocol


class BlobMissing(Exception):
    """No blob of this name. A store that does not answer raises BlobUnavailable instead, never this."""


class Draft(Protocol):
    """A blob being written, which nobody sees yet."""

    def write(self, content: bytes) -> None:
        """Raises StorageFull, BlobUnavailable."""

    def keep(self) -> None:
        """It is the blob, whole and durable, in place of what was there.

        Raises StorageFull, BlobUnavailable.
        """


class BlobStore(Protocol):
    """Blobs by name. One appears whole or not at all, and is read by everybody from the moment it was kept.

    Every method may raise BlobUnavailable, in bounded time.
    """

    def draft(self, name: str) -> AbstractContextManager[Draft]:
        """Of a blob as large as may be. What was not kept by the end of the block is gone."""

    def write(self, name: str, content: bytes) -> None:
        """Durable when this returns; replaces what was there as a whole. Raises StorageFull."""

    def read(self, name: str) -> bytes:
        """Raises BlobMissing."""

    def open(self, name: str) -> AbstractContextManager[IO[bytes]]:
        """A seekable binary file, of which little is held in memory. Raises BlobMissing."""

    def local(self, name: str) -> AbstractContextManager[Path]:
        """The blob as a file on this machine, for decoders that must seek.

        Raises BlobMissing, StorageFull.
        """

    def exists(self, name: str) -> bool: ...

    def copy(self, source: str, target: str) -> None:
        """A second blob with the same bytes, which do not pass through here. Raises BlobMissing."""

    def remove(self, name: str) -> None:
        """Removes a blob; gone already is fine."""

    def remove_folder(self, folder: str) -> None:
        """Removes all that lies under a name; gone already is fine."""

    def folders(self, under: str) -> tuple[str, ...]:
        """Names of the folders and blobs directly under one, in order. A folder that was emptied may still be
        named for a while."""

    def age_s(self, folder: str, now: datetime) -> float:
        """Seconds since a blob, or any in a folder, was last written to. Raises BlobMissing."""

    def free_bytes(self) -> int | None:
        """Room left; None where there is no such bound."""

    def check(self) -> None:
        """Raises BlobUnavailable, StorageFull when the store is not there to be used: an empty mount point is
        no empty store."""

    def remove_drafts(self, older_s: float, now: datetime) -> int:
        """Removes drafts of writers who died: nothing was added to them for so long. How many."""
