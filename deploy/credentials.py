"""`python -m deploy.credentials FOLDER`: the passwords between the parts of a composed service, made at its
first start; nobody thinks them up, and no two installations share one.

FOLDER holds a folder for each part, which that part alone sees, as its /run/secrets. What is there stays;
`--renew` makes all anew. The ACL file follows this version's rules each time.
"""

import argparse
import secrets
import sys
from dataclasses import dataclass
from pathlib import Path

from deploy.errors import EXIT_FAILED, StartError
from deploy.redis_users import RULES, acl

_REDIS_URL = "redis://{role}:{{}}@redis:6379/0"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a password lies, and what is written around it."""

    part: str
    file: str
    text: str = "{}"

    def path(self, folder: Path) -> Path:
        return folder / self.part / self.file


REDIS_PLACES = {
    **{
        role: Place(role, "ananse_redis_url", _REDIS_URL.format(role=role))
        for role in ("api", "worker", "flower", "keys")
    },
    "monitor": Place("redis", "monitor_password"),
    "operator": Place("redis", "operator_password"),
}
PAGE_PLACES = (Place("flower", "ananse_flower_password"), Place("grafana", "admin_password"))
S3_PLACE = Place("s3", "secret_key")
# As AWS's own programs keep them; named in AWS_SHARED_CREDENTIALS_FILE where our own object store is used.
_S3_PROFILE = "[default]\naws_access_key_id = ananse\naws_secret_access_key = {}\n"
S3_USERS = tuple(Place(part, "s3_credentials", _S3_PROFILE) for part in ("api", "worker", "keys"))
ACL_PLACE = Place("redis", "users.acl")

_OF_OTHER_IMAGES = ("redis", "grafana")
"""Their users are not ours. Only they and the one who writes have these folders, so all may read."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m deploy.credentials")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--renew", action="store_true", help="make all anew; then restart all parts")
    given = parser.parse_args()
    try:
        made = make(given.folder, renew=given.renew)
    except StartError as error:
        sys.stderr.write(f"ananse: {error}\n")
        return EXIT_FAILED
    print(f"{made} passwords made" if made else "all passwords are there")
    return 0


def make(folder: Path, *, renew: bool = False) -> int:
    """Leaves every file of every part in place; how many passwords are new. Raises StartError."""
    assert RULES.keys() == REDIS_PLACES.keys()
    places = [*REDIS_PLACES.values(), *PAGE_PLACES, S3_PLACE]
    try:
        made = [place for place in places if renew or not place.path(folder).exists()]
        for place in made:
            _write(place.path(folder), place.text.format(secrets.token_urlsafe(24)))
        passwords = {role: _password(place, folder) for role, place in REDIS_PLACES.items()}
        _write(ACL_PLACE.path(folder), acl(passwords))
        for place in S3_USERS:
            _write(place.path(folder), place.text.format(_password(S3_PLACE, folder)))
    except OSError as error:
        raise StartError(f"{error.filename or folder} cannot be written ({error.strerror})") from error
    return len(made)


def _password(place: Place, folder: Path) -> str:
    head, _, tail = place.text.partition("{}")
    return place.path(folder).read_text().removeprefix(head).removesuffix(tail)


def _write(path: Path, text: str) -> None:
    """Whole or not at all: a start that is cut off leaves no half of a password."""
    is_ours = path.parent.name not in _OF_OTHER_IMAGES
    path.parent.mkdir(parents=True, exist_ok=True)
    path.parent.chmod(0o700 if is_ours else 0o755)
    fresh = path.with_name(f".{path.name}")
    fresh.unlink(missing_ok=True)
    fresh.touch(mode=0o600)
    fresh.write_text(text)
    fresh.chmod(0o400 if is_ours else 0o444)
    fresh.replace(path)


if __name__ == "__main__":
    sys.exit(main())
