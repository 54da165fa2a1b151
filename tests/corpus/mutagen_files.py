"""Odd and broken media that others collected: the test files in mutagen's source package. pip fetches them,
checked by hash, to var/; they are no part of this project."""

import hashlib
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

VERSION = "1.47.0"
SHA256 = "719fadef0a978c31b4cf3c956261b3c58b6948b32023078a2117b1de09f0fc99"
_CACHE = Path(__file__).parents[2] / "var" / "corpus"
_PACKAGE = _CACHE / f"mutagen-{VERSION}.tar.gz"
_FILES = f"mutagen-{VERSION}/tests/data/"
_FETCH_S = 120


def mutagen_files() -> dict[str, bytes]:
    """By name. Skips the test where the package cannot be had, and fails it where it has to be."""
    if not _PACKAGE.is_file():
        _fetch()
    if not _PACKAGE.is_file():
        missing = f"the source package of mutagen {VERSION} cannot be fetched"
        return pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)
    assert hashlib.sha256(_PACKAGE.read_bytes()).hexdigest() == SHA256, "not the package that was pinned"
    with tarfile.open(_PACKAGE) as package:
        members = [one for one in package if one.isfile() and one.name.startswith(_FILES)]
        streams = {one.name.removeprefix(_FILES): package.extractfile(one) for one in members}
        return {name: stream.read() for name, stream in sorted(streams.items()) if stream}


def _fetch() -> None:
    _CACHE.mkdir(parents=True, exist_ok=True)
    pinned = _CACHE / "mutagen.txt"
    pinned.write_text(f"mutagen=={VERSION} --hash=sha256:{SHA256}\n")
    # pip asks a source package for its metadata; with the tools that are here it needs no others.
    options = ["--no-deps", "--no-binary=:all:", "--no-build-isolation", "--require-hashes", "-q"]
    subprocess.run(
        [sys.executable, "-m", "pip", "download", *options, "-r", pinned, "-d", _CACHE],
        check=False,
        capture_output=True,
        timeout=_FETCH_S,
    )
