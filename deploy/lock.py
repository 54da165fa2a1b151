"""`python -m deploy.lock` writes deploy/requirements/*.txt: all packages of the images, each with the hashes
of its files, resolved by uv from pyproject.toml.

torch stands in a list of its own: which build of it an image holds is chosen when the image is built.
"""

import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
FOLDER = CHECKOUT / "deploy" / "requirements"
EXTRAS = {"api": ("api", "flower", "s3", "tracing"), "worker": ("worker", "s3", "tracing")}
"""What of pyproject.toml each image holds, beside the packages of both."""
UV = "uv==0.13.9"
"""Finds the build of torch, and resolves these lists."""

_PYTHON = "3.11"
_PLATFORMS = ("x86_64-manylinux_2_28", "aarch64-manylinux_2_28")
_WITH_TORCH = re.compile(r"(torch|triton|nvidia-.*|cuda-.*)==")
_HEAD = "# Made by `python -m deploy.lock` from pyproject.toml.\n"


def main() -> int:
    FOLDER.mkdir(exist_ok=True)
    for name, text in lists().items():
        (FOLDER / name).write_text(text)
        print(f"wrote {(FOLDER / name).relative_to(CHECKOUT)}: {text.count('==')} packages")
    return 0


def lists() -> dict[str, str]:
    """The files and what is to stand in them. Needs uv and a package index."""
    api = _resolved(wanted("api"))
    worker = _resolved(wanted("worker"))
    torch = {name: block for name, block in worker.items() if _WITH_TORCH.match(block)}
    rest = {name: block for name, block in worker.items() if name not in torch}
    parts = {"api": api, "worker": rest, "torch": torch, "uv": _resolved([UV])}
    return {f"{part}.txt": _HEAD + "".join(blocks.values()) for part, blocks in parts.items()}


def wanted(image: str) -> list[str]:
    """The requirements of an image as pyproject.toml says them."""
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    extras = [line for extra in EXTRAS[image] for line in project["optional-dependencies"][extra]]
    return [*project["dependencies"], *extras]


def _resolved(requirements: list[str]) -> Mapping[str, str]:
    """By package, its version and hashes as pip reads them: alike for both processors, or it is refused."""
    first, *others = (_compiled(requirements, platform) for platform in _PLATFORMS)
    if any(other != first for other in others):
        raise SystemExit("the packages differ between processors; one list no longer serves both")
    return {re.split(r"[=\[]", block)[0]: block for block in _blocks(first)}


def _compiled(requirements: list[str], platform: str) -> str:
    with tempfile.NamedTemporaryFile("w", suffix=".in") as file:
        file.write("\n".join(requirements))
        file.flush()
        return subprocess.run(
            [
                *(sys.executable, "-m", "uv", "pip", "compile", file.name),
                *("--quiet", "--generate-hashes", "--no-header", "--no-annotate"),
                *("--python-version", _PYTHON, "--python-platform", platform),
            ],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        ).stdout


def _blocks(text: str) -> Iterator[str]:
    """Each package with the lines of its hashes."""
    block = ""
    for line in text.splitlines(keepends=True):
        if block and not line.startswith(" "):
            yield block
            block = ""
        block += line
    yield block


if __name__ == "__main__":
    sys.exit(main())
