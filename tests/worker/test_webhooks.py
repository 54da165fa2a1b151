"""Signatures that the public library and a second computation agree with."""

import base64
import hashlib
import hmac
import re
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from shared.redis_store import RedisStore
from shared.settings import Settings, SettingsError
from shared.webhook_secrets import WebhookSecrets
from tests.support.webhook_check import is_genuine
from worker.app import secrets_of
from worker.webhooks import key_of, signed_headers

OLD = "whsec_" + base64.b64encode(bytes(range(32))).decode()
NEW = "whsec_" + base64.b64encode(bytes(range(100, 164))).decode()
BODY = '{"type":"job.completed","text":"Mɛda wo ase"}'.encode()


def test_the_public_library_accepts_the_signature() -> None:
    headers = signed_headers("evt_1", datetime.now(UTC), BODY, [OLD])

    assert Webhook(OLD).verify(BODY, headers) == {"type": "job.completed", "text": "Mɛda wo ase"}


def test_the_signature_is_the_one_the_standard_describes() -> None:
    at = datetime(2026, 1, 2, 3, 4, 5, 999_999, tzinfo=UTC)

    headers = signed_headers("evt_1", at, BODY, [OLD])

    stamp = headers["webhook-timestamp"]
    digest = hmac.digest(bytes(range(32)), b"evt_1." + stamp.encode() + b"." + BODY, hashlib.sha256)
    assert stamp == "1767323045"
    assert headers["webhook-id"] == "evt_1"
    assert headers["webhook-signature"] == "v1," + base64.b64encode(digest).decode()


def test_while_secrets_are_exchanged_both_verify() -> None:
    """By the library and by our own reading of the specification; a third secret does not."""
    at = datetime.now(UTC)
    headers = signed_headers("evt_1", at, BODY, [NEW, OLD])

    assert headers["webhook-signature"].count("v1,") == 2
    for secret in (OLD, NEW):
        Webhook(secret).verify(BODY, headers)
        assert is_genuine(secret, headers, BODY, at.timestamp())
    other = "whsec_" + base64.b64encode(bytes(24)).decode()
    assert not is_genuine(other, headers, BODY, at.timestamp())
    assert not is_genuine(OLD, headers, BODY + b" ", at.timestamp())
    assert not is_genuine(OLD, headers, BODY, at.timestamp() + 301)


def test_the_clock_of_another_zone_is_the_same_instant() -> None:
    at = datetime.now(UTC)
    there = at.astimezone(timezone(timedelta(hours=5, minutes=30)))

    assert signed_headers("evt_1", there, BODY, [OLD]) == signed_headers("evt_1", at, BODY, [OLD])


@pytest.mark.redis
def test_the_worker_signs_with_the_secret_and_the_one_before(store: RedisStore) -> None:
    both = Settings(webhook_secret=NEW, webhook_secret_previous=OLD)

    assert secrets_of(both, store)() == (NEW, OLD)
    assert secrets_of(Settings(webhook_secret=NEW), store)() == (NEW,)
    ask = secrets_of(Settings(), store)
    (made,) = ask()
    assert made.startswith("whsec_")
    # Changed while the worker is up.
    changed = WebhookSecrets(store).rotate(overlap_s=60)
    assert ask() == (changed, made)
    with pytest.raises(SettingsError, match="ANANSE_WEBHOOK_SECRET_PREVIOUS"):
        secrets_of(Settings(webhook_secret=NEW, webhook_secret_previous="whsec_!"), store)
    with pytest.raises(ValueError, match="needs a webhook_secret"):
        Settings(webhook_secret_previous=OLD)


@pytest.mark.parametrize("part", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_a_changed_header_does_not_verify(part: str) -> None:
    headers = signed_headers("evt_1", datetime.now(UTC), BODY, [OLD])
    other = signed_headers(
        "evt_2", datetime.fromtimestamp(datetime.now(UTC).timestamp() - 7, UTC), BODY, [NEW]
    )

    with pytest.raises(WebhookVerificationError):
        Webhook(OLD).verify(BODY, headers | {part: other[part]})


def test_a_changed_body_does_not_verify() -> None:
    headers = signed_headers("evt_1", datetime.now(UTC), BODY, [OLD])

    with pytest.raises(WebhookVerificationError):
        Webhook(OLD).verify(BODY + b" ", headers)


@settings(deadline=None)
@given(st.binary(min_size=1, max_size=64), st.booleans(), st.booleans())
def test_secrets_are_read_with_and_without_prefix_and_padding(
    key: bytes, has_prefix: bool, is_padded: bool
) -> None:
    encoded = base64.b64encode(key).decode()

    assert key_of(("whsec_" if has_prefix else "") + (encoded if is_padded else encoded.rstrip("="))) == key


@pytest.mark.parametrize(
    "secret", ["", "whsec_", "whsec_====", "whsec_not base64!", "whsec_AAAA!AAAA", "A", "пароль"]
)
def test_an_unreadable_secret_is_refused_without_repeating_it(secret: str) -> None:
    with pytest.raises(ValueError, match=r"^a webhook secret is whsec_ and base64$"):
        key_of(secret)


def test_a_webhook_is_never_sent_unsigned_or_with_a_local_time() -> None:
    with pytest.raises(ValueError, match="secret"):
        signed_headers("evt_1", datetime.now(UTC), BODY, [])
    with pytest.raises(ValueError, match="zone"):
        signed_headers("evt_1", datetime(2026, 1, 1), BODY, [OLD])


def test_what_the_page_says_to_receivers_is_true() -> None:
    """Its code by hand is run as it stands, on what the worker signs."""
    page = (Path(__file__).parents[2] / "docs" / "webhooks.md").read_text()
    by_library, by_hand = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(by_hand, names)
    headers = signed_headers("evt_1", datetime.now(UTC), BODY, [NEW, OLD])

    assert names["is_genuine"](OLD, headers, BODY)
    assert names["is_genuine"](NEW, headers, BODY)
    assert not names["is_genuine"](OLD, headers, BODY + b" ")
    assert not names["is_genuine"](OLD, headers | {"webhook-timestamp": "1"}, BODY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SECRET", OLD)
        exec(by_library, names)
        client = names["app"].test_client()
        assert client.post("/hooks", data=EVENT, headers=signed(EVENT)).status_code == 204
        assert client.post("/hooks", data=EVENT + b" ", headers=signed(EVENT)).status_code == 400
    assert len(by_library.splitlines()) <= 20


EVENT = b'{"type":"job.completed","data":{"id":"job_1"}}'


def signed(body: bytes) -> dict[str, str]:
    return signed_headers("evt_1", datetime.now(UTC), body, [OLD])
