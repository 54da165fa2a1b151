"""Where a model's files come from: a folder, or the hub. Once fetched they are pinned, and the hub is
asked no more.

A model that cannot be had is `ModelUnavailable`, in one sentence that says what to do.
"""

import hashlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import httpx2
from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils.tqdm import disable_progress_bars

from shared.models import ModelSource
from worker.engine import manifest
from worker.engine.manifest import ALLOWED_FILES, IGNORED_FILES
from worker.engine.model_folder import check_folder
from worker.engine.values import ModelUnavailable

HASHED_BLOCKS = 16
HASHED_BLOCK_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model's files on this disk. `revision` is the hub's commit, or a short hash of the contents."""

    folder: Path
    revision: str


def resolve(source: ModelSource, hf_endpoint: str | None = None) -> Checkpoint:
    """Finds or fetches the files and checks that they are a Whisper model. Raises ModelUnavailable."""
    if _is_folder(source.source):
        return _own(Path(source.source).expanduser(), source.source)
    return _pinned(source, hf_endpoint)


def _own(folder: Path, source: str) -> Checkpoint:
    check_folder(folder, source, is_ours=False)
    pin = manifest.beside(folder)
    if pin.is_file():
        try:
            manifest.verify(folder, pin)
        except manifest.Mismatch as error:
            raise ModelUnavailable(
                f"Model {source} is not as its {pin.name} has it ({error}): "
                "put the right files back, or pin it anew if the change is yours."
            ) from error
    return Checkpoint(folder, _contents_hash(folder))


def _pinned(source: ModelSource, hf_endpoint: str | None) -> Checkpoint:
    """Fetched the first time; afterwards the same files, wherever a branch may have moved to."""
    home = Path(constants.HF_HUB_CACHE, f"models--{source.source.replace('/', '--')}")
    pin = home / "ananse" / f"{quote(source.revision or 'default', safe='')}.json"
    try:
        folder = _as_pinned(home, pin) if pin.is_file() else _fetch(source, hf_endpoint)
        check_folder(folder, source.source, is_ours=True)
        if not pin.is_file():
            # A cache that cannot be written to does not change either.
            with suppress(OSError):
                manifest.pin(folder, folder.name, pin)
    except manifest.Mismatch as error:
        raise ModelUnavailable(
            f"Model {source.source} is not as it was fetched ({error}): "
            f"to fetch it again, delete its folder {home.name} in the model cache."
        ) from error
    return Checkpoint(folder, folder.name)


def _as_pinned(home: Path, pin: Path) -> Path:
    folder = home / "snapshots" / manifest.pinned_revision(pin)
    if not folder.is_dir():
        raise manifest.Mismatch("its files are gone")
    manifest.verify(folder, pin)
    return folder


def _is_folder(source: str) -> bool:
    looks_like_path = source.startswith(("/", ".", "~", "models/")) or source.count("/") > 1
    return looks_like_path or Path(source).is_dir()


def _fetch(source: ModelSource, hf_endpoint: str | None) -> Path:
    hub = hf_endpoint or constants.ENDPOINT
    revision = f"revision {source.revision}" if source.revision else "default revision"
    disable_progress_bars()  # They would stand between the log's lines.
    try:
        folder = snapshot_download(
            source.source,
            revision=source.revision,
            endpoint=hf_endpoint,
            allow_patterns=list(ALLOWED_FILES),
            ignore_patterns=list(IGNORED_FILES),
        )
    except GatedRepoError as error:
        raise ModelUnavailable(
            f"Model {source.source} is gated: accept its terms on {hub} and set HF_TOKEN."
        ) from error
    except RepositoryNotFoundError as error:
        raise ModelUnavailable(
            f"Model {source.source} is not on {hub}, or is private: check the id, or set HF_TOKEN."
        ) from error
    except RevisionNotFoundError as error:
        raise ModelUnavailable(
            f"Model {source.source} has no revision {source.revision} on {hub}: "
            "name one of its commits, tags or branches."
        ) from error
    except HFValidationError as error:
        raise ModelUnavailable(
            f"{source.source!r} is neither a folder nor a hub id: "
            "name a folder that exists, or an id as in owner/model."
        ) from error
    except LocalEntryNotFoundError as error:
        raise ModelUnavailable(
            f"Model {source.source} ({revision}) is not in the local cache, and {hub} "
            "cannot be reached or fails: check the network and HF_HUB_OFFLINE, or name a folder."
        ) from error
    except (httpx2.HTTPError, OSError) as error:  # The hub's client lets its own errors and httpx2's through.
        raise ModelUnavailable(
            f"Model {source.source} could not be fetched from {hub} ({type(error).__name__}): "
            "try again, check the disk, or name a folder."
        ) from error
    return Path(folder)


def _contents_hash(folder: Path) -> str:
    """Twelve digits that change when the model does: all of its JSON, and samples of its weights (gigabytes
    are not read twice; training changes weights everywhere)."""
    digest = hashlib.sha256()
    for path in sorted((*folder.glob("*.json"), *folder.glob("*.safetensors"))):
        digest.update(f"{path.name} {path.stat().st_size}\n".encode())
        for block in _blocks(path) if path.suffix == ".safetensors" else (path.read_bytes(),):
            digest.update(block)
    return digest.hexdigest()[:12]


def _blocks(path: Path) -> Iterator[bytes]:
    stride = max(HASHED_BLOCK_BYTES, path.stat().st_size // HASHED_BLOCKS)
    with path.open("rb") as file:
        for number in range(HASHED_BLOCKS):
            file.seek(number * stride)
            yield file.read(HASHED_BLOCK_BYTES)
