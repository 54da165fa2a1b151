"""The bytes of a model's files, pinned: a SHA-256 of each, written once and compared before every load.

`python -m worker.engine.manifest FOLDER` pins a folder of one's own.
"""

import hashlib
import json
import os
import sys
from fnmatch import fnmatch
from functools import lru_cache
from pathlib import Path

ALLOWED_FILES = ("*.safetensors", "*.json", "*.txt")
IGNORED_FILES = ("*/*", "*.fp32*")
"""Subfolders hold other formats and training states; some repositories carry fp32 twins of the weights."""

CODE_FILES = ("*.py", "*.jinja")
"""Left out of every manifest: one that has appeared since is a file too many."""

_HASH_DIGITS = 64


class Mismatch(Exception):
    """The files are not those that were pinned; the message says which, in half a sentence."""


def beside(folder: Path) -> Path:
    """Where the manifest of a folder of one's own stands, if it has one: whoever copies the folder to change
    the model in it has not pinned the copy."""
    home = folder.resolve()
    return home.with_name(f"{home.name}.manifest.json")


def pin(folder: Path, revision: str | None, path: Path) -> None:
    """Writes the manifest of what lies in `folder` now. Raises Mismatch for a download that is damaged."""
    files = {file.name: _sha256(file) for file in loadable(folder)}
    for name, digest in files.items():
        # The hub's cache names large files by their hash.
        named = (folder / name).resolve().name
        if len(named) == _HASH_DIGITS and named != digest:
            raise Mismatch(f"{name} was not downloaded as the hub has it")
    manifest = {"revision": revision, "files": files} if revision else {"files": files}
    path.parent.mkdir(exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    draft.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    draft.replace(path)


def pinned_revision(path: Path) -> str:
    """Raises Mismatch when the manifest itself cannot be read."""
    revision = _read(path).get("revision")
    # It becomes a folder's name.
    if not isinstance(revision, str) or not revision.isalnum():
        raise Mismatch(f"the manifest {path.name} names no revision")
    return revision


def verify(folder: Path, path: Path) -> None:
    """Raises Mismatch for a file that is changed, gone or new."""
    pinned = _read(path).get("files")
    if not isinstance(pinned, dict):
        raise Mismatch(f"the manifest {path.name} lists no files")
    found = {file.name: file for file in (*loadable(folder), *_matching(folder, CODE_FILES))}
    for name in sorted(pinned.keys() | found.keys()):
        if name not in found:
            raise Mismatch(f"{name} is gone")
        if name not in pinned:
            raise Mismatch(f"{name} was not there")
        if _sha256(found[name]) != pinned[name]:
            raise Mismatch(f"{name} has changed")


def loadable(folder: Path) -> list[Path]:
    """What may be read of a model's folder, and is."""
    return _matching(folder, ALLOWED_FILES)


def _matching(folder: Path, patterns: tuple[str, ...]) -> list[Path]:
    return [
        file
        for file in sorted(folder.iterdir())
        if file.is_file()
        and any(fnmatch(file.name, pattern) for pattern in patterns)
        and not any(fnmatch(file.name, pattern) for pattern in IGNORED_FILES)
    ]


def _read(path: Path) -> dict[str, object]:
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Mismatch(f"the manifest {path.name} cannot be read") from error
    return manifest if isinstance(manifest, dict) else {}


def _sha256(path: Path) -> str:
    """A model that left memory and comes back is not read twice, as long as the file is the same one: its
    ctime no program can set."""
    now = path.stat()
    return _hash_once(path, now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns)


@lru_cache(maxsize=1024)
def _hash_once(path: Path, *identity: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    place = Path(sys.argv[1])
    pin(place, None, beside(place))
