"""Whether a folder holds a Whisper model and nothing that could run: safetensors, JSON and text, all of it
inside the folder. Looked at before any library opens a file of it."""

import json
import struct
from pathlib import Path
from typing import Any

from worker.engine.manifest import CODE_FILES, loadable
from worker.engine.values import ModelUnavailable

PICKLED = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.pickle", "*.ckpt")
TRAINING_STATE = ("training_args.bin", "optimizer.*", "scheduler.pt", "scaler.pt", "rng_state*.pth")
"""What a trainer leaves beside its weights, pickled. No loader of a model ever opens it."""

ARCHITECTURE = "WhisperForConditionalGeneration"
CODE_KEYS = ("auto_map", "custom_pipelines", "custom_generate", "chat_template", "quantization_config")
"""By these a configuration names code, templates or libraries to load with the model."""

KERNEL_KEYS = ("attn_implementation", "_attn_implementation", "_attn_implementation_internal")
INDEX = "model.safetensors.index.json"
MAX_HEADER_BYTES = 100 << 20
HEADER_BYTES = struct.Struct("<Q")


def check_folder(folder: Path, source: str, *, is_ours: bool) -> None:
    """`source` is what the operator calls it. Where it `is_ours`, fetched and pinned here, pickles that other
    programs fetched beside the weights are left alone. Raises ModelUnavailable."""
    if not folder.is_dir():
        raise ModelUnavailable(
            f"Model folder {source} does not exist: name a folder that does, or a hub id as in owner/model."
        )
    _check_places(folder, source)
    _check_config(folder, source)
    _check_weights(folder, source)
    _check_code(folder, source, is_ours=is_ours)


def _check_places(folder: Path, source: str) -> None:
    """The hub's cache keeps the bytes beside its snapshots, and links."""
    home = folder.resolve()
    home = home.parents[1] if home.parent.name == "snapshots" else home
    for entry in sorted(folder.iterdir()):
        if not entry.resolve().is_relative_to(home):
            raise ModelUnavailable(
                f"{entry.name} of model {source} is a link that leads out of the model's folder: "
                "put the file itself there."
            )
        if not (entry.is_file() or entry.is_dir()):
            raise ModelUnavailable(
                f"{entry.name} of model {source} is neither a file nor a folder: fetch the checkpoint again."
            )


def _check_config(folder: Path, source: str) -> None:
    path = folder / "config.json"
    if (folder / "adapter_config.json").is_file():
        raise ModelUnavailable(
            f"Model {source} is an adapter without its base model: merge the two and name the result."
        )
    if not path.is_file():
        raise ModelUnavailable(
            f"Model {source} has no config.json: name a checkpoint in the Transformers layout."
        )
    config = _read(path, source)
    architectures = config.get("architectures") or [ARCHITECTURE]
    if config.get("model_type") != "whisper" or ARCHITECTURE not in architectures:
        raise ModelUnavailable(
            f"Model {source} is of type {config.get('model_type')!r} and not a Whisper speech model: "
            "name a Whisper checkpoint."
        )


def _check_weights(folder: Path, source: str) -> None:
    if (folder / INDEX).is_file():
        shards = _shards(folder, source)
    elif (folder / "model.safetensors").is_file():
        shards = ["model.safetensors"]
    else:
        has_pickles = any(path.match(pattern) for path in folder.iterdir() for pattern in PICKLED)
        found = "only pickled weights, which can run code" if has_pickles else "no model.safetensors"
        raise ModelUnavailable(
            f"Model {source} holds {found}: "
            "save it with save_pretrained, which writes safetensors, and name the result."
        )
    for shard in shards:
        if not _is_safetensors(folder / shard):
            raise ModelUnavailable(
                f"{shard} of model {source} is called safetensors and is not: fetch the checkpoint again."
            )


def _shards(folder: Path, source: str) -> list[str]:
    """What the index names, each a file of this folder."""
    places = _read(folder / INDEX, source).get("weight_map")
    shards = sorted({str(shard) for shard in places.values()}) if isinstance(places, dict) else []
    for shard in shards or ["(nothing)"]:
        if Path(shard).name != shard or not shard.endswith(".safetensors"):
            raise ModelUnavailable(
                f"The index of model {source} names {shard}, which is no safetensors file beside it: "
                "fetch the checkpoint again."
            )
        if not (folder / shard).is_file():
            raise ModelUnavailable(
                f"Model {source} lacks {shard} of its weights: fetch the checkpoint again."
            )
    return shards


def _is_safetensors(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(HEADER_BYTES.size + 1)
    if len(head) <= HEADER_BYTES.size or head[-1:] != b"{":
        return False
    (size,) = HEADER_BYTES.unpack_from(head)
    return bool(size <= min(MAX_HEADER_BYTES, path.stat().st_size))


def _check_code(folder: Path, source: str, *, is_ours: bool) -> None:
    for path in sorted(folder.iterdir()):
        is_code = any(path.match(pattern) for pattern in CODE_FILES)
        is_pickle = any(path.match(pattern) for pattern in PICKLED) and not is_ours
        if is_code or (is_pickle and not any(path.match(pattern) for pattern in TRAINING_STATE)):
            raise ModelUnavailable(
                f"Model {source} holds {path.name}, a file that can run code: move it out of the folder."
            )
    for path in loadable(folder):
        if path.suffix == ".json":
            _check_keys(_read(path, source), path.name, source)


def _check_keys(config: dict[str, Any], name: str, source: str) -> None:
    for key in CODE_KEYS:
        if config.get(key):
            raise ModelUnavailable(
                f"The {name} of model {source} asks for code of its own ({key}), which is not run here: "
                "name a checkpoint without it."
            )
    for key in KERNEL_KEYS:
        if "/" in str(config.get(key)):
            raise ModelUnavailable(
                f"The {name} of model {source} asks for a kernel from elsewhere ({key}), which is not run: "
                "remove that line."
            )


def _read(path: Path, source: str) -> dict[str, Any]:
    """Vocabularies and lists are no configuration, and empty here."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelUnavailable(
            f"The {path.name} of model {source} is not valid JSON: fetch the checkpoint again."
        ) from error
    return content if isinstance(content, dict) else {}
