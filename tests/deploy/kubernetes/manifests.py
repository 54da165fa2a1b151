"""The manifests as `kubectl apply -k` would send them: a kustomize that knows no more than ours use."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from deploy.plan import CHECKOUT

FOLDER = Path(CHECKOUT, "deploy", "kubernetes")
BUILDS = ("base", "overlays/gpu", "overlays/keda", "overlays/full")
_KNOWN = {"apiVersion", "kind", "namespace", "resources", "components", "patches", "images"}
_CLUSTER_WIDE = ("Namespace",)

Manifest = dict[str, Any]


def files() -> list[Path]:
    """All that hold manifests, examples and patches included."""
    return sorted(path for path in FOLDER.rglob("*.yaml") if path.name != "kustomization.yaml")


def read(path: Path) -> list[Manifest]:
    return [one for one in yaml.safe_load_all(path.read_text()) if one is not None]


def build(name: str) -> list[Manifest]:
    return _applied(FOLDER / name, [])


def pods(manifests: list[Manifest]) -> Iterator[tuple[Manifest, Manifest]]:
    """Each workload with the specification of its pods."""
    for one in manifests:
        if one["kind"] in ("Deployment", "StatefulSet"):
            yield one, one["spec"]["template"]["spec"]


def of_kind(manifests: list[Manifest], kind: str) -> list[Manifest]:
    return [one for one in manifests if one["kind"] == kind]


def identity(manifest: Manifest) -> tuple[str, str, str]:
    return manifest["apiVersion"], manifest["kind"], manifest["metadata"]["name"]


def _applied(folder: Path, found: list[Manifest]) -> list[Manifest]:
    """What the folder's kustomization makes of what was there before it."""
    told = yaml.safe_load((folder / "kustomization.yaml").read_text())
    assert set(told) <= _KNOWN, f"{folder}: {set(told) - _KNOWN}"
    for resource in told.get("resources", ()):
        path = folder / resource
        found = _applied(path, found) if path.is_dir() else found + read(path)
    for component in told.get("components", ()):
        found = _applied(folder / component, found)
    for patch in told.get("patches", ()):
        for change in read(folder / patch["path"]):
            (target,) = [one for one in found if identity(one) == identity(change)]
            _merge(target, change)
    for image in told.get("images", ()):
        for container in (container for _, pod in pods(found) for container in pod["containers"]):
            if container["image"] == image["name"]:
                container["image"] = f"{image['name']}:{image['newTag']}"
    if "namespace" in told:
        for one in found:
            if one["kind"] not in _CLUSTER_WIDE:
                one["metadata"]["namespace"] = told["namespace"]
    return found


def _merge(target: Manifest, change: Mapping[str, Any]) -> None:
    for name, value in change.items():
        if isinstance(value, dict) and isinstance(target.get(name), dict):
            _merge(target[name], value)
        else:
            assert not isinstance(value, list), (
                "lists are merged by rules of their own: avoid them in patches"
            )
            target[name] = value
