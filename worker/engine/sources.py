"""Where a model's files come from: a folder, or the hub. Safetensors, JSON and text only; nothing is run.

A model that cannot be had is `ModelUnavailable`, in one sentence that says what to do.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from huggingface_hub import snapshot_download
from huggingface_hub.constants import ENDPOINT
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils.tqdm import disable_progress_bars

from shared.models import ModelSource
from worker.engine.values import ModelUnavailable

ALLOWED_FILES = ("*.safetensors", "*.json", "*.txt")
# Subfolders hold other formats and training states; some repositories carry fp32 twins of the weights.
IGNORED_FILES = ("*/*", "*.fp32*")
PICKLED_SUFFIXES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
ARCHITECTURE = "WhisperForConditionalGeneration"
HASHED_BLOCKS = 16
HASHED_BLOCK_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model's files on this disk. `revision` is the hub's commit, or a short hash of the contents."""

    folder: Path
    revision: str


def resolve(source: ModelSource, hf_endpoint: str | None = None) -> Checkpoint:
    """Finds or fetches the files and checks that they are a Whisper model. Raises ModelUnavailable."""
    is_folder = _is_folder(source.source)
    folder = Path(source.source).expanduser() if is_folder else _fetch(source, hf_endpoint)
    _check(folder, source)
    return Checkpoint(folder, _contents_hash(folder) if is_folder else folder.name)


def _is_folder(source: str) -> bool:
    looks_like_path = source.startswith(("/", ".", "~", "models/")) or source.count("/") > 1
    return looks_like_path or Path(source).is_dir()


def _fetch(source: ModelSource, hf_endpoint: str | None) -> Path:
    hub = hf_endpoint or ENDPOINT
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


def _check(folder: Path, source: ModelSource) -> None:
    if not folder.is_dir():
        raise ModelUnavailable(
            f"Model folder {source.source} does not exist: "
            "name a folder that does, or a hub id as in owner/model."
        )
    config = _config(folder, source)
    architectures = config.get("architectures") or [ARCHITECTURE]
    if config.get("model_type") != "whisper" or ARCHITECTURE not in architectures:
        raise ModelUnavailable(
            f"Model {source.source} is of type {config.get('model_type')!r} and not a Whisper speech model: "
            "name a Whisper checkpoint."
        )
    _check_weights(folder, source)


def _config(folder: Path, source: ModelSource) -> dict[str, Any]:
    path = folder / "config.json"
    if not path.is_file() and (folder / "adapter_config.json").is_file():
        raise ModelUnavailable(
            f"Model {source.source} is an adapter without its base model: merge the two and name the result."
        )
    if not path.is_file():
        raise ModelUnavailable(
            f"Model {source.source} has no config.json: name a checkpoint in the Transformers layout."
        )
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelUnavailable(
            f"The config.json of model {source.source} is not valid JSON: fetch the checkpoint again."
        ) from error
    return config if isinstance(config, dict) else {}


def _check_weights(folder: Path, source: ModelSource) -> None:
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        shards = set(re.findall(r'"([^"/]+\.safetensors)"', index.read_text(encoding="utf-8")))
        missing = sorted(shard for shard in shards if not (folder / shard).is_file())
        if missing:
            raise ModelUnavailable(
                f"Model {source.source} lacks {missing[0]} of its weights: fetch the checkpoint again."
            )
    elif not (folder / "model.safetensors").is_file():
        has_pickles = any(path.suffix in PICKLED_SUFFIXES for path in folder.iterdir())
        found = "only pickled weights, which can run code" if has_pickles else "no model.safetensors"
        raise ModelUnavailable(
            f"Model {source.source} holds {found}: "
            "save it with save_pretrained, which writes safetensors, and name the result."
        )


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
