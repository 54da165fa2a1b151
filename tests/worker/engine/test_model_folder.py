"""Model folders that were tampered with: each is refused in one sentence, before any library opens a file."""

import json
import os
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from shared.models import ModelSource
from worker.engine import manifest
from worker.engine.model_folder import check_folder
from worker.engine.sources import resolve
from worker.engine.values import ModelUnavailable

BUNDLED = Path(__file__).parents[3] / "models" / "synthetic-en"
WEIGHTS = "model.safetensors"
INDEX = f"{WEIGHTS}.index.json"


class Exploit:
    """Would leave a file behind if anybody unpickled it."""

    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return eval, ("open('/tmp/unpickled', 'w')",)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A pinned copy of the bundled model that a test may break."""
    copy = Path(shutil.copytree(BUNDLED, tmp_path / "home" / "model"))
    manifest.pin(copy, None, manifest.beside(copy))
    return copy


def refusal(folder: Path) -> str:
    with pytest.raises(ModelUnavailable) as caught:
        resolve(ModelSource("m", str(folder)))
    message = str(caught.value)
    assert message.endswith(".")
    assert "\n" not in message
    assert ":" in message, "it must say what to do"
    return message


def write(folder: Path, name: str, **keys: object) -> None:
    """Adds keys to a JSON file."""
    path = folder / name
    known = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(known | keys))


def put_a_pickle_in_place_of_the_weights(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Exploit()))


def put_a_pickle_beside_the_weights(folder: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Exploit()))


def call_a_pickle_safetensors(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes(pickle.dumps(Exploit()))


def index_a_pickle(folder: Path) -> None:
    (folder / "weights.bin").write_bytes(pickle.dumps(Exploit()))
    write(folder, INDEX, weight_map={"a": "weights.bin"})


def index_a_file_elsewhere(folder: Path) -> None:
    shutil.copy(folder / WEIGHTS, folder.parent / WEIGHTS)
    write(folder, INDEX, weight_map={"a": f"../{WEIGHTS}"})


def index_by_an_absolute_path(folder: Path) -> None:
    write(folder, INDEX, weight_map={"a": f"/etc/{WEIGHTS}"})


def bring_code_for_the_model(folder: Path) -> None:
    (folder / "modeling.py").write_text("open('/tmp/imported', 'w')")
    write(folder, "config.json", auto_map={"AutoModel": "modeling.Whisper"})


def bring_code_for_the_tokenizer(folder: Path) -> None:
    write(folder, "tokenizer_config.json", auto_map={"AutoTokenizer": ["owner/repo--tokenizer.T", None]})


def bring_a_template(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("{{ cycler.__init__.__globals__.os }}")


def ask_for_a_kernel(folder: Path) -> None:
    write(folder, "config.json", _attn_implementation="owner/kernel")


def ask_for_a_quantizer(folder: Path) -> None:
    write(folder, "config.json", quantization_config={"quant_method": "bitsandbytes"})


def become_an_adapter(folder: Path) -> None:
    write(folder, "adapter_config.json", base_model_name_or_path="owner/repo")


def link_the_weights_elsewhere(folder: Path) -> None:
    shutil.move(folder / WEIGHTS, folder.parent / "elsewhere")
    (folder / WEIGHTS).symlink_to(folder.parent / "elsewhere")


def link_the_configuration_elsewhere(folder: Path) -> None:
    (folder / "generation_config.json").unlink()
    (folder / "generation_config.json").symlink_to("/etc/hostname")


def change_one_bit_of_the_weights(folder: Path) -> None:
    content = bytearray((folder / WEIGHTS).read_bytes())
    content[-1] ^= 1
    (folder / WEIGHTS).write_bytes(content)


def change_what_is_suppressed(folder: Path) -> None:
    write(folder, "generation_config.json", suppress_tokens=[1, 2, 3])


def remove_a_file(folder: Path) -> None:
    (folder / "generation_config.json").unlink()


def add_a_file(folder: Path) -> None:
    write(folder, "normalizer.json", color="colour")


def spoil_the_manifest(folder: Path) -> None:
    manifest.beside(folder).write_text("{}")


@pytest.mark.parametrize(
    ("tamper", "told"),
    [
        (put_a_pickle_in_place_of_the_weights, "only pickled weights"),
        (put_a_pickle_beside_the_weights, "pytorch_model.bin, a file that can run code"),
        (call_a_pickle_safetensors, "is called safetensors and is not"),
        (index_a_pickle, "weights.bin, which is no safetensors file beside it"),
        (index_a_file_elsewhere, "../model.safetensors, which is no safetensors file beside it"),
        (index_by_an_absolute_path, "which is no safetensors file beside it"),
        (bring_code_for_the_model, "modeling.py, a file that can run code"),
        (bring_code_for_the_tokenizer, "tokenizer_config.json of model .* code of its own"),
        (bring_a_template, "chat_template.jinja, a file that can run code"),
        (ask_for_a_kernel, "a kernel from elsewhere"),
        (ask_for_a_quantizer, "code of its own .quantization_config."),
        (become_an_adapter, "an adapter without its base model"),
        (link_the_weights_elsewhere, "a link that leads out"),
        (link_the_configuration_elsewhere, "a link that leads out"),
        (change_one_bit_of_the_weights, "model.safetensors has changed"),
        (change_what_is_suppressed, "generation_config.json has changed"),
        (remove_a_file, "generation_config.json is gone"),
        (add_a_file, "normalizer.json was not there"),
        (spoil_the_manifest, "lists no files"),
    ],
)
def test_a_tampered_folder_is_refused(folder: Path, tamper: Callable[[Path], None], told: str) -> None:
    resolve(ModelSource("m", str(folder)))

    tamper(folder)

    message = refusal(folder)
    assert Path("/tmp/unpickled").exists() is False
    assert re.search(told, message), message


def test_the_bundled_model_is_the_one_that_was_pinned() -> None:
    assert manifest.beside(BUNDLED).is_file()
    check_folder(BUNDLED, "bundled", is_ours=False)
    manifest.verify(BUNDLED, manifest.beside(BUNDLED))


def test_what_a_trainer_leaves_beside_its_weights_is_left_alone(folder: Path) -> None:
    manifest.beside(folder).unlink()
    for name in (
        "training_args.bin",
        "optimizer.pt",
        "scheduler.pt",
        "rng_state_0.pth",
        "trainer_state.json",
    ):
        (folder / name).write_bytes(b"{}")

    assert resolve(ModelSource("m", str(folder))).folder == folder


def test_a_file_is_hashed_again_when_it_is_another(folder: Path) -> None:
    """The memory of hashes is for models that leave and come back, not for files that were swapped."""
    path, before = folder / "config.json", (folder / "config.json").stat()
    manifest.verify(folder, manifest.beside(folder))
    path.write_bytes(path.read_bytes().replace(b"whisper", b"whispeR", 1))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    assert path.stat().st_size == before.st_size
    with pytest.raises(manifest.Mismatch, match=r"config.json has changed"):
        manifest.verify(folder, manifest.beside(folder))
