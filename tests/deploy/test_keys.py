"""`ananse keys` on a real Redis and folder: what it prints, keeps and refuses."""

import io
import json
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass

import pytest

from deploy import cli
from shared.api_keys import Scope, Verdict, read
from shared.blob_store import BlobStore
from shared.key_ring import KeyRing
from shared.redis_store import RedisStore
from shared.settings import PREFIX, Settings

pytestmark = pytest.mark.redis


@dataclass(frozen=True, slots=True)
class Said:
    status: int
    out: str
    err: str


Keys = Callable[..., Said]


@pytest.fixture
def keys(settings: Settings, store: RedisStore, monkeypatch: pytest.MonkeyPatch) -> Keys:
    def run(*words: str) -> Said:
        with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
            status = cli.main(["keys", *words])
        return Said(status, out.getvalue(), err.getvalue())

    for name in ("redis_url", "blob_url", "state_dir"):
        monkeypatch.setenv(f"{PREFIX}{name.upper()}", str(getattr(settings, name)))
    return run


@pytest.fixture
def ring(store: RedisStore, blobs: BlobStore) -> KeyRing:
    return KeyRing(store, blobs)


def verdict(ring: KeyRing, said: Said) -> Verdict:
    return ring.admit(read(said.out.strip()), 0).verdict


def test_a_key_is_shown_once_and_alone(keys: Keys, ring: KeyRing) -> None:
    made = keys("create", "phones")

    assert made.status == 0
    assert made.out.count("\n") == 1
    assert "shown this once" in made.err
    key = ring.admit(read(made.out.strip()), 0).key
    assert key is not None
    assert (key.name, key.tenant) == ("phones", "phones")
    assert key.scopes == {Scope.SUBMIT, Scope.READ, Scope.CANCEL}
    listed = keys("list")
    secret = made.out.strip().split("_", 2)[2]
    assert "phones" in listed.out
    assert secret not in listed.out + keys("list", "--json").out
    assert key.digest not in keys("list", "--json").out


def test_everything_can_be_said(keys: Keys) -> None:
    made = keys(
        *("create", "reader", "--tenant", "phones", "--scopes", "read,admin", "--expires", "90d"),
        *("--jobs", "5", "--audio-s", "3600", "--requests-per-min", "0"),
    )
    assert made.status == 0, made.err

    (row,) = json.loads(keys("list", "--json").out)

    assert (row["tenant"], row["scopes"], row["state"]) == ("phones", ["admin", "read"], "valid")
    assert row["expires_at"] > row["created_at"]
    assert row["last_used_at"] is None
    assert row["limits"] == {
        "requests_per_min": 0,
        "jobs": 5,
        "audio_s": 3600.0,
        "stored_bytes": 100 * 2**30,
    }
    assert row["used"] == {"jobs": 0, "audio_s": 0.0, "stored_bytes": 0}


def test_a_name_is_one_keys_until_that_is_revoked(keys: Keys) -> None:
    assert keys("create", "phones").status == 0

    again = keys("create", "phones")
    assert again.status == 1
    assert "there is a key phones already" in again.err
    assert again.out == ""

    assert keys("revoke", "phones").status == 0
    assert keys("create", "phones").status == 0


def test_rotation_leaves_the_old_secret_for_a_while(keys: Keys, ring: KeyRing) -> None:
    first = keys("create", "phones")

    second = keys("rotate", "phones", "--overlap", "1h")
    assert [verdict(ring, one) for one in (first, second)] == [Verdict.VALID, Verdict.VALID]
    assert json.loads(keys("list", "--json").out)[0]["old_secret_until"]

    third = keys("rotate", "phones", "--overlap", "0")
    assert [verdict(ring, one) for one in (first, second, third)] == [
        Verdict.UNKNOWN,
        Verdict.UNKNOWN,
        Verdict.VALID,
    ]
    assert len(json.loads(keys("list", "--json").out)) == 1


def test_a_revoked_key_opens_nothing_and_stays_so(keys: Keys, ring: KeyRing) -> None:
    first = keys("create", "phones")
    second = keys("rotate", "phones")
    key_id = ring.find("phones").id

    assert keys("revoke", "phones").status == 0

    assert [verdict(ring, one) for one in (first, second)] == [Verdict.REVOKED, Verdict.REVOKED]
    assert keys("revoke", key_id).status == 0
    refused = keys("rotate", key_id)
    assert (refused.status, refused.out) == (1, "")
    assert "was revoked" in refused.err


def test_a_key_that_is_not_there_is_one_sentence(keys: Keys) -> None:
    for act in ("rotate", "revoke"):
        said = keys(act, "nobody")
        assert said.status == 1
        assert said.err == "ananse: There is no API key nobody.\n"
    assert keys("list").out == "There are no API keys.\n"


@pytest.mark.parametrize(
    "words",
    [
        ("create", "a:b"),
        ("create", ""),
        ("create", "a", "--tenant", "x/y"),
        ("create", "a", "--scopes", "read,write"),
        ("create", "a", "--expires", "soon"),
        ("rotate", "a", "--overlap", "-1d"),
    ],
)
def test_nonsense_is_refused(keys: Keys, words: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit):
        keys(*words)


def test_a_first_key_may_be_made_before_the_first_start(
    keys: Keys, ring: KeyRing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`ananse up` starts Redis, and a worker tells it of the key."""
    monkeypatch.delenv(f"{PREFIX}REDIS_URL")

    made = keys("create", "first")

    assert made.status == 0, made.err
    assert verdict(ring, made) is Verdict.VALID
    assert ring.restore() == 1
    assert ring.admit(None, 0).are_there_keys
    listed = keys("list")
    assert listed.status == 1
    assert "no Redis answers" in listed.err
