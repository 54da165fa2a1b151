"""`ananse keys create|list|rotate|revoke`: who may use the API. A key is shown once, when it is made."""

import argparse
import re
import sys
import time
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from redis.exceptions import NoPermissionError

from deploy import embedded_redis
from deploy.admin import tables
from deploy.admin.desk import as_running
from deploy.errors import StartError
from shared import log
from shared.api_keys import NAME, ApiKey, Scope, digest_of, new_id, new_secret, written
from shared.blobs import open_blobs
from shared.errors import NotFound, ServiceError
from shared.key_ring import KeyRing
from shared.redis_store import RedisStore, connect
from shared.settings import Settings, load
from shared.usage import Usage

_USUAL = (Scope.SUBMIT, Scope.READ, Scope.CANCEL)
_UNITS_S = {"m": 60, "h": 3600, "d": 86_400}
_LIMITS = {
    "requests_per_min": ("--requests-per-min", int, "requests in a minute"),
    "jobs": ("--jobs", int, "jobs that have not ended"),
    "audio_s": ("--audio-s", float, "seconds of audio that those may owe"),
    "stored_bytes": ("--stored-bytes", int, "bytes of its recordings that are kept"),
}


@dataclass(frozen=True, slots=True)
class KeyDesk:
    """What every act works with. `is_up` is whether Redis is there."""

    ring: KeyRing
    usage: Usage
    settings: Settings
    is_up: bool


def add_to(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "keys",
        help="API keys: create, list, rotate, revoke",
        description="See docs/keys.md. Needs ANANSE_REDIS_URL and ANANSE_BLOB_URL of the service.",
    )
    acts = parser.add_subparsers(metavar="ACT", required=True)
    _add_create(acts)
    listing = acts.add_parser("list", help="all keys, and what they take")
    listing.add_argument("--json", action="store_true", help="for scripts")
    listing.set_defaults(act=show)
    rotating = acts.add_parser("rotate", help="a new secret for a key; the one it has goes on for a while")
    rotating.add_argument("key", metavar="NAME")
    rotating.add_argument(
        "--overlap", type=seconds, default=86_400, metavar="TIME", help="how long, as in 30m, 12h, 7d (1d)"
    )
    rotating.set_defaults(act=rotate)
    revoking = acts.add_parser("revoke", help="a key opens nothing any more, at once and for good")
    revoking.add_argument("key", metavar="NAME")
    revoking.set_defaults(act=revoke)
    parser.set_defaults(run=run)


def _add_create(acts: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = acts.add_parser("create", help="make a key and print it, this once")
    parser.add_argument("name", type=_name, metavar="NAME")
    parser.add_argument("--tenant", type=_name, help="whose jobs it sees (default: those of its own name)")
    parser.add_argument(
        "--scopes",
        type=_scopes,
        default=frozenset(_USUAL),
        help=f"separated by commas, of {', '.join(Scope)} (default: {','.join(_USUAL)})",
    )
    parser.add_argument("--expires", type=seconds, metavar="TIME", help="after so long, as in 90d")
    for name, (option, kind, meaning) in _LIMITS.items():
        parser.add_argument(option, dest=name, type=kind, metavar="N", help=f"most {meaning}; 0 for no bound")
    parser.set_defaults(act=create)


def run(arguments: argparse.Namespace) -> int:
    """Raises StartError, in one sentence, for all that keeps it from being done."""
    log.configure("ERROR")
    given = load()
    settings = as_running(given)
    # A first key may be made before the first start, where `ananse up` will start Redis.
    is_first = arguments.act is create and "redis_url" not in given.model_fields_set
    is_up = not is_first or embedded_redis.answers(settings.redis_url)
    if is_up:
        embedded_redis.require(settings.redis_url)
    with closing(connect(settings.redis_url)) as client:
        store = RedisStore(client)
        desk = KeyDesk(KeyRing(store, open_blobs(settings)), Usage(store), settings, is_up)
        try:
            with desk.ring.alone() if is_up and arguments.act is not show else nullcontext():
                arguments.act(arguments, desk)
        except ServiceError as error:
            raise StartError(_sentence(error)) from error
    return 0


def _sentence(error: ServiceError) -> str:
    """The API may not make keys, so whoever breaks into it cannot; run there, this command may not either."""
    if not isinstance(error.__cause__, NoPermissionError):
        return error.detail
    return (
        "this part of the service may read API keys and not write them: run the command where keys are made, "
        "`docker compose run --rm keys …`, or in a worker's container (docs/keys.md)"
    )


def create(arguments: argparse.Namespace, desk: KeyDesk) -> None:
    """Raises StartError when there is one of this name."""
    _require_new(arguments.name, desk.ring)
    now_ms = desk.ring.now_ms() if desk.is_up else int(time.time() * 1000)
    secret = new_secret()
    key = ApiKey(
        id=new_id(),
        name=arguments.name,
        tenant=arguments.tenant or arguments.name,
        scopes=arguments.scopes,
        digest=digest_of(secret),
        created_ms=now_ms,
        expires_ms=now_ms + arguments.expires * 1000 if arguments.expires else 0,
        limits={name: value for name in _LIMITS if (value := getattr(arguments, name)) is not None},
    )
    if desk.is_up:
        desk.ring.keep(key)
    else:
        desk.ring.keep_copy(key)
    _hand_over(key, secret)


def rotate(arguments: argparse.Namespace, desk: KeyDesk) -> None:
    """Raises NotFound, and StartError for a key that opens nothing."""
    key = desk.ring.find(arguments.key)
    if key.revoked_ms:
        raise StartError(f"the key {key.id} was revoked; create another")
    secret = new_secret()
    key = key.rotated(digest_of(secret), desk.ring.now_ms(), arguments.overlap * 1000)
    desk.ring.keep(key)
    _hand_over(key, secret)


def revoke(arguments: argparse.Namespace, desk: KeyDesk) -> None:
    """Raises NotFound. Revoked twice it stays as it was, and Redis learns of it once more."""
    key = desk.ring.find(arguments.key)
    if not key.revoked_ms:
        key = replace(key, revoked_ms=desk.ring.now_ms())
    desk.ring.keep(key)
    print(f"{key.name} ({key.id}) is revoked.")


def show(arguments: argparse.Namespace, desk: KeyDesk) -> None:
    uses, now_ms = desk.ring.last_uses(), desk.ring.now_ms()
    rows = [_row(key, uses.get(key.id, 0), now_ms, desk) for key in desk.ring.all()]
    tables.show(arguments.json, rows, _text(rows) if rows else "There are no API keys.")


def _row(key: ApiKey, used_ms: int, now_ms: int, desk: KeyDesk) -> dict[str, Any]:
    """Of a key, all but what it opens with."""
    return {
        "id": key.id,
        "name": key.name,
        "tenant": key.tenant,
        "scopes": sorted(key.scopes),
        "state": key.verdict(key.digest, now_ms),
        "created_at": _instant(key.created_ms),
        "last_used_at": _instant(used_ms),
        "expires_at": _instant(key.expires_ms),
        "old_secret_until": _instant(key.old_until_ms if key.old_until_ms > now_ms else 0),
        "limits": asdict(key.limits_of(desk.settings)),
        "used": asdict(desk.usage.of(key.id)),
    }


def _text(rows: list[dict[str, Any]]) -> str:
    head = ("ID", "NAME", "TENANT", "SCOPES", "STATE", "LAST USED", "EXPIRES", "JOBS", "AUDIO", "STORED")
    cells = [
        (
            row["id"],
            row["name"],
            row["tenant"],
            ",".join(row["scopes"]),
            row["state"],
            tables.instant(row["last_used_at"]),
            tables.instant(row["expires_at"]),
            str(row["used"]["jobs"]),
            tables.amount(row["used"]["audio_s"]),
            tables.size(row["used"]["stored_bytes"]),
        )
        for row in rows
    ]
    return tables.table(head, cells)


def _instant(at_ms: int) -> datetime | None:
    return datetime.fromtimestamp(at_ms / 1000, UTC) if at_ms else None


def _require_new(name: str, ring: KeyRing) -> None:
    try:
        known = ring.find(name)
    except NotFound:
        return
    raise StartError(f"there is a key {known.name} already; rotate or revoke it, or take another name")


def _hand_over(key: ApiKey, secret: str) -> None:
    """The key alone on standard output, for `KEY=$(ananse keys create …)`."""
    print(written(key.id, secret))
    sys.stderr.write(
        f"This is the key {key.name}, shown this once. It may {', '.join(sorted(key.scopes))}; its jobs are "
        f"those of {key.tenant}.\n"
    )


def _name(text: str) -> str:
    if not NAME.fullmatch(text):
        raise argparse.ArgumentTypeError("takes 1 to 64 letters, digits and ._@-")
    return text


def _scopes(text: str) -> frozenset[Scope]:
    try:
        return frozenset(Scope(word.strip()) for word in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"takes {', '.join(Scope)}, separated by commas") from error


def seconds(text: str) -> int:
    """Of an option: `30m`, `12h`, `90d`, or 0. Raises ArgumentTypeError."""
    found = re.fullmatch(r"([0-9]{1,6})([mhd])", text)
    if found:
        return int(found[1]) * _UNITS_S[found[2]]
    if text == "0":
        return 0
    raise argparse.ArgumentTypeError("takes a number with m, h or d behind it, as in 30m, 12h, 90d")
