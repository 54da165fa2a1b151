"""The passwords of a composed service: made once, and each part sees its own."""

import hashlib
import stat
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from deploy.credentials import make
from deploy.errors import StartError
from deploy.plan import CHECKOUT
from shared.settings import load


def read_all(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_every_part_finds_its_settings(tmp_path: Path) -> None:
    make(tmp_path)

    for role in ("api", "worker", "flower", "keys"):
        url = urlsplit(load(tmp_path / role).redis_url)
        assert (url.username, url.hostname, url.port, url.path) == (role, "redis", 6379, "/0")
    assert load(tmp_path / "flower").flower_password
    assert load(tmp_path / "api").flower_password is None


def test_redis_knows_the_passwords_by_their_hashes(tmp_path: Path) -> None:
    make(tmp_path)
    made = read_all(tmp_path)

    users = {line.split()[1]: line for line in made["redis/users.acl"].splitlines()}
    assert users["default"] == "user default off"
    for role in ("api", "worker", "flower", "keys"):
        password = urlsplit(made[f"{role}/ananse_redis_url"]).password
        assert password
        assert len(password) == 32
        assert f"#{hashlib.sha256(password.encode()).hexdigest()}" in users[role]
    for role in ("monitor", "operator"):
        digest = hashlib.sha256(made[f"redis/{role}_password"].encode()).hexdigest()
        assert f"#{digest}" in users[role]


def test_no_two_passwords_are_the_same(tmp_path: Path) -> None:
    make(tmp_path / "one")
    make(tmp_path / "two")

    made = [read_all(tmp_path / name) for name in ("one", "two")]
    # All sides of the object store hold one key.
    for files in made:
        assert len({files.pop(f"{part}/s3_credentials") for part in ("api", "worker", "keys")}) == 1
    texts = [*made[0].values(), *made[1].values()]
    assert len(set(texts)) == len(texts)


def test_the_object_store_s_users_have_its_key(tmp_path: Path) -> None:
    make(tmp_path)
    made = read_all(tmp_path)

    for part in ("api", "worker", "keys"):
        profile = ConfigParser()
        profile.read_string(made[f"{part}/s3_credentials"])
        assert profile["default"]["aws_secret_access_key"] == made["s3/secret_key"]


def test_what_is_there_stays(tmp_path: Path) -> None:
    assert make(tmp_path) == 9
    before = read_all(tmp_path)
    (tmp_path / "grafana" / "admin_password").unlink()
    (tmp_path / "redis" / "users.acl").unlink()

    assert make(tmp_path) == 1

    after = read_all(tmp_path)
    assert after.pop("grafana/admin_password") != before.pop("grafana/admin_password")
    assert after == before


def test_all_are_made_anew_when_asked_to(tmp_path: Path) -> None:
    make(tmp_path)
    before = read_all(tmp_path)

    assert make(tmp_path, renew=True) == 9

    after = read_all(tmp_path)
    assert after.keys() == before.keys()
    assert all(after[name] != before[name] for name in before)


def test_others_read_nothing_of_ours(tmp_path: Path) -> None:
    make(tmp_path)

    modes = {name: stat.S_IMODE((tmp_path / name).stat().st_mode) for name in read_all(tmp_path)}
    assert {name for name, mode in modes.items() if mode & 0o077} == {
        "redis/users.acl",
        "redis/monitor_password",
        "redis/operator_password",
        "grafana/admin_password",
    }
    assert not any(mode & 0o222 for mode in modes.values())


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "api").touch()

    with pytest.raises(StartError, match="cannot be written"):
        make(tmp_path)


def test_the_command_shows_none(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "deploy.credentials", str(tmp_path)]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=True)

    assert done.stdout == "9 passwords made\n"
    assert done.stderr == ""
