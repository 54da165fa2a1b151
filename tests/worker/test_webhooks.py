"""Signatures that the public library and a second computation agree with."""

import base64
import hashlib
import hmac
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

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
    headers = signed_headers("evt_1", datetime.now(UTC), BODY, [NEW, OLD])

    assert headers["webhook-signature"].count("v1,") == 2
    for secret in (OLD, NEW):
        Webhook(secret).verify(BODY, headers)


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
