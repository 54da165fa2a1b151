"""Where the bytes lie, chosen once from the URL in the settings."""

from pathlib import Path
from urllib.parse import urlsplit

from shared.blob_store import BlobStore
from shared.disk_blobs import DiskBlobs
from shared.settings import Settings, SettingsError

_HOW = "pip install 'ananse[s3]'"


def open_blobs(settings: Settings) -> BlobStore:
    """Call it once in each process, after any fork.

    Raises SettingsError, in one sentence that says what to do, when there can be no such store.
    """
    place = urlsplit(settings.blob_url)
    if place.scheme == "s3":
        # 30 MB of memory and half a second that a disk does not need.
        try:
            from shared.object_blobs import connect  # noqa: PLC0415
        except ModuleNotFoundError as error:
            raise SettingsError(f"ANANSE_BLOB_URL: s3:// takes the package {error.name}: {_HOW}") from error
        return connect(settings)
    folder = Path(place.netloc + place.path)
    try:
        return DiskBlobs(folder)
    except OSError as error:
        raise SettingsError(
            f"ANANSE_BLOB_URL: {folder} cannot be made or written to ({error.strerror})"
        ) from error
