"""`python -m deploy.sbom [FOLDER]` writes a CycloneDX bill of materials for each image: every Python package
that deploy/requirements locks for it, with version and hashes. Needs no network, and says the same each time.

What the base images bring (Debian, FFmpeg, Redis) is not in it: their scanners read the image.
"""

import argparse
import json
import re
import sys
import tomllib
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.lock import CHECKOUT, FOLDER

IMAGES = {"api": ("api.txt",), "worker": ("torch.txt", "worker.txt")}
"""Which lists each image is made of."""

_PACKAGE = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;\\]+)")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
_NAMESPACE = uuid.UUID("6f1d9b3e-4c1b-5a52-9d0c-0a2b6c8e7f14")


@dataclass(frozen=True, slots=True)
class Package:
    """One of a list; `hashes` are those of its files, a wheel for each platform and the source."""

    name: str
    version: str
    hashes: tuple[str, ...]

    @property
    def purl(self) -> str:
        return f"pkg:pypi/{re.sub(r'[-_.]+', '-', self.name).lower()}@{self.version}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m deploy.sbom")
    parser.add_argument("folder", type=Path, nargs="?", default=CHECKOUT / "var" / "sbom")
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for image in IMAGES:
        bill = bill_of(image)
        path = folder / f"ananse-{image}.cdx.json"
        path.write_text(json.dumps(bill, indent=2) + "\n")
        print(f"wrote {path}: {len(bill['components'])} packages")
    return 0


def bill_of(image: str) -> dict[str, Any]:
    """CycloneDX 1.6; its serial number is made from what it says."""
    version = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["version"]
    root = {"type": "container", "bom-ref": f"ananse-{image}", "name": f"ananse-{image}", "version": version}
    components = [_component(package) for package in packages(image)]
    said = json.dumps([root, components], sort_keys=True)
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(_NAMESPACE, said)}",
        "version": 1,
        "metadata": {"component": root},
        "components": components,
        "dependencies": [
            {"ref": root["bom-ref"], "dependsOn": [component["bom-ref"] for component in components]}
        ],
    }


def packages(image: str) -> list[Package]:
    """All of an image, by name."""
    found = [package for name in IMAGES[image] for package in _read((FOLDER / name).read_text())]
    return sorted(found, key=lambda package: package.purl)


def _read(text: str) -> Iterator[Package]:
    for block in text.replace("\\\n", " ").splitlines():
        if found := _PACKAGE.match(block):
            yield Package(found[1], found[2], tuple(_HASH.findall(block)))


def _component(package: Package) -> dict[str, Any]:
    return {
        "type": "library",
        "bom-ref": package.purl,
        "name": package.name,
        "version": package.version,
        "purl": package.purl,
        "hashes": [{"alg": "SHA-256", "content": content} for content in package.hashes],
    }


if __name__ == "__main__":
    sys.exit(main())
