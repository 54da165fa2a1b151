"""What the container files promise, read from them; that they work is tried by running them
(test_compose.py)."""

import re
import tomllib
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from deploy.allocator import JEMALLOC
from deploy.credentials import ACL_PLACE, PAGE_PLACES, REDIS_PLACES, S3_PLACE, S3_USERS
from deploy.lock import EXTRAS, FOLDER, UV, wanted
from deploy.plan import CHECKOUT
from shared.settings import PREFIX, Settings

FILES = ("Dockerfile.api", "Dockerfile.worker", "docker-compose.yml")
OURS = ("api", "worker", "worker-gpu", "flower")
ONE_SHOTS = ("setup", "s3-bucket", "keys")


def text(name: str) -> str:
    return Path(CHECKOUT, name).read_text()


def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(text("docker-compose.yml"))
    return loaded


def services() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = compose()["services"]
    return found


SERVICES = sorted(services())


def locked(name: str) -> dict[str, str]:
    """The versions in a list of deploy/requirements."""
    return dict(re.findall(r"^([\w.-]+)==([^ ]+) \\$", (FOLDER / f"{name}.txt").read_text(), re.MULTILINE))


@pytest.mark.parametrize("name", FILES)
def test_every_setting_in_it_exists(name: str) -> None:
    known = {PREFIX + field.upper() for field in Settings.model_fields}
    assert set(re.findall(rf"{PREFIX}[A-Z_]+", text(name))) - known == set()


def test_torch_is_pinned_alike_everywhere() -> None:
    pins = {
        name: set(re.findall(r"torch==([\d.]+)", text(name)))
        for name in ("pyproject.toml", "Makefile", "deploy/requirements/torch.txt", "benchmarks/peers.txt")
    }
    assert len(set.union(*pins.values())) == 1, pins


def test_uv_is_pinned_alike_everywhere() -> None:
    assert set(re.findall(r"uv==[\d.]+", text("Makefile") + text("deploy/requirements/uv.txt"))) == {UV}


@pytest.mark.parametrize("image", EXTRAS)
def test_the_lock_holds_what_pyproject_pins(image: str) -> None:
    pins = {
        canonicalize_name(one.name): str(one.specifier).removeprefix("==")
        for one in map(Requirement, wanted(image))
    }
    lock = locked(image) | (locked("torch") if image == "worker" else {})
    assert {name: lock.get(name) for name in pins} == pins, "run `python -m deploy.lock`"


@pytest.mark.parametrize("image", EXTRAS)
def test_the_lock_holds_what_those_need_in_turn(image: str) -> None:
    """By what is installed here; pip asks for nothing more while it builds an image."""
    lock = locked(image) | locked("torch")
    for name in locked(image):
        try:
            if version(name) != lock[name]:
                continue
            needs = [Requirement(line) for line in requires(name) or ()]
        except PackageNotFoundError:
            continue
        here = {"python_version": "3.11", "python_full_version": "3.11.14", "sys_platform": "linux"}
        missing = [
            one.name
            for one in needs
            if canonicalize_name(one.name) not in lock
            and (one.marker is None or one.marker.evaluate(here | {"extra": ""}))
        ]
        assert missing == [], name


@pytest.mark.parametrize("name", ["api", "worker", "torch", "uv"])
def test_every_package_is_locked_by_hashes(name: str) -> None:
    blocks = re.split(r"^(?=[\w.-]+==)", (FOLDER / f"{name}.txt").read_text(), flags=re.MULTILINE)[1:]
    assert blocks
    assert all(re.search(r"--hash=sha256:[0-9a-f]{64}", block) for block in blocks)


@pytest.mark.parametrize("name", ["Dockerfile.api", "Dockerfile.worker"])
def test_packages_are_installed_by_their_hashes(name: str) -> None:
    code = [line for line in text(name).splitlines() if not line.startswith("#")]
    installs = [line for line in code if " install " in line and "pip" in line]
    # torch without hashes: its index gives one file or another, as the build is asked for.
    others = [line for line in installs if '"$torch"' not in line]
    assert others
    assert all("--require-hashes --no-deps -r " in line for line in others)


@pytest.mark.parametrize("name", ["Dockerfile.api", "Dockerfile.worker"])
def test_an_image_says_what_it_is_and_runs_as_nobody_special(name: str) -> None:
    assert re.search(r"^USER 10001:10001$", text(name), re.MULTILINE)
    assert re.search(r"^HEALTHCHECK ", text(name), re.MULTILINE)
    assert re.search(r"^STOPSIGNAL SIGTERM$", text(name), re.MULTILINE)
    for label in ("title", "description", "version", "revision"):
        assert f"org.opencontainers.image.{label}=" in text(name)


@pytest.mark.parametrize("name", ["Dockerfile.api", "Dockerfile.worker"])
def test_code_comes_after_packages(name: str) -> None:
    final = text(name).rpartition("\nFROM ")[2]
    assert final.index("COPY --from=packages") < final.index("COPY --from=code")
    assert final.index("COPY --from=code") < final.index("ARG REVISION")


def test_the_image_runs_on_the_same_allocator_as_ananse_up() -> None:
    assert f"MALLOC_CONF={JEMALLOC['MALLOC_CONF']}" in text("Dockerfile.worker")


def test_the_api_image_holds_nothing_of_the_worker() -> None:
    copied = re.findall(r"^COPY (\S+)", text("Dockerfile.api"), re.MULTILINE)
    assert "worker" not in copied
    assert {"torch", "numpy", "transformers"} & set(locked("api")) == set()


@pytest.mark.parametrize("name", SERVICES)
def test_every_container_is_shut_in(name: str) -> None:
    service = services()[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    assert service["init"] is True
    assert service["pids_limit"] <= 2048
    assert service["logging"]["options"]["max-size"]
    assert name in ONE_SHOTS or service["mem_limit"]
    assert "container_name" not in service


@pytest.mark.parametrize("name", SERVICES)
def test_every_image_is_one_version(name: str) -> None:
    image = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", services()[name]["image"])
    assert re.search(r":v?\d+\.\d+\.\d+(-\w+)?$", image), image


def test_the_base_image_is_one_version_for_both() -> None:
    bases = {re.findall(r"^ARG PYTHON_IMAGE=(.*)$", text(name), re.MULTILINE)[0] for name in FILES[:2]}
    assert len(bases) == 1
    assert re.fullmatch(r"python:\d+\.\d+\.\d+-slim-\w+", bases.pop())


def test_our_images_carry_our_version() -> None:
    project = tomllib.loads(text("pyproject.toml"))["project"]
    assert set(re.findall(r"IMAGE_TAG:-([^}]*)", text("docker-compose.yml"))) == {project["version"]}


@pytest.mark.parametrize("name", SERVICES)
def test_only_the_own_machine_is_published_to(name: str) -> None:
    for port in services()[name].get("ports", ()):
        assert re.fullmatch(r"127\.0\.0\.1:\$\{\w+:-\d+\}:\d+", port)
    assert services()[name].get("network_mode") != "host"


@pytest.mark.parametrize("name", [name for name in SERVICES if name not in ONE_SHOTS])
def test_everybody_s_health_is_asked_for(name: str) -> None:
    """Ours by their images, unless they say otherwise."""
    service = services()[name]
    assert name in ("api", "worker", "worker-gpu") or service["healthcheck"]["test"]


@pytest.mark.parametrize("name", [name for name in ONE_SHOTS if name != "keys"])
def test_somebody_waits_for_what_ends_by_itself(name: str) -> None:
    """`up --wait` takes the end of a container for a failure, unless another one depends on it."""
    needs = [service.get("depends_on", {}) for service in services().values()]
    conditions = {need[name]["condition"] for need in needs if name in need}
    assert conditions == {"service_completed_successfully"}


@pytest.mark.parametrize("name", SERVICES)
def test_nobody_needs_what_a_profile_may_leave_out(name: str) -> None:
    own = set(services()[name].get("profiles", ()))
    for needed, how in services()[name].get("depends_on", {}).items():
        with_it = set(services()[needed].get("profiles", ()))
        assert not with_it or own & with_it == own != set() or how["required"] is False


@pytest.mark.parametrize("name", OURS)
def test_a_stop_leaves_time_to_hand_back(name: str) -> None:
    grace = int(services()[name].get("stop_grace_period", "10s").removesuffix("s"))
    assert name == "flower" or grace > Settings().stop_grace_s + 5


def test_redis_forgets_nothing_by_itself() -> None:
    command = services()["redis"]["command"]
    said = dict(zip(command[::2], command[1::2], strict=True))
    assert said["--appendonly"] == "yes"
    assert said["--appendfsync"] == "everysec"
    assert said["--maxmemory-policy"] == "noeviction"
    assert said["--aclfile"] == "/run/secrets/users.acl"


@pytest.mark.parametrize("name", SERVICES)
def test_a_part_sees_its_own_secrets_only(name: str) -> None:
    """And the one that makes them sees all, without a network."""
    seen = [volume for volume in services()[name].get("volumes", ()) if volume.startswith("secrets-")]
    if name == "setup":
        places = [*REDIS_PLACES.values(), *PAGE_PLACES, ACL_PLACE, S3_PLACE, *S3_USERS]
        assert {volume.split(":")[0] for volume in seen} == {f"secrets-{place.part}" for place in places}
        assert services()[name]["network_mode"] == "none"
        return
    owner = {"worker-gpu": "worker", "s3-bucket": "api"}.get(name, name)
    assert seen == ([] if name == "prometheus" else [f"secrets-{owner}:/run/secrets:ro"])


@pytest.mark.parametrize("name", SERVICES)
def test_no_secret_stands_in_the_file(name: str) -> None:
    for variable in services()[name].get("environment", ()):
        assert not re.search("PASSWORD|SECRET|KEY", variable) or variable.endswith("__FILE")


@pytest.mark.parametrize("name", SERVICES)
def test_every_volume_is_declared(name: str) -> None:
    used = {volume.split(":")[0] for volume in services()[name].get("volumes", ())}
    assert {one for one in used if not one.startswith("./")} <= set(compose()["volumes"])
