"""Signs webhooks as Standard Webhooks 1.0 says, so that receivers verify them with any of its libraries.

See https://www.standardwebhooks.com. Sending is `delivery.py`; what is in the body is nobody's business here.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence
from datetime import datetime

PREFIX = "whsec_"


def signed_headers(webhook_id: str, now: datetime, body: bytes, secrets: Sequence[str]) -> dict[str, str]:
    """The three headers of one attempt. `now` is aware; each of `secrets` adds a signature, so that a
    receiver may hold the old one or the new while they are exchanged.

    Raises ValueError for a naive `now`, for no secret and for one that cannot be read.
    """
    if now.tzinfo is None:
        raise ValueError("the time of a webhook must carry its time zone")
    if not secrets:
        raise ValueError("a webhook needs a secret")
    timestamp = str(int(now.timestamp()))
    signed = f"{webhook_id}.{timestamp}.".encode() + body
    return {
        "webhook-id": webhook_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": " ".join(_signature(key_of(secret), signed) for secret in secrets),
    }


def key_of(secret: str) -> bytes:
    """The bytes behind `whsec_<base64>`; the prefix and the padding may be missing.

    Raises ValueError, which does not repeat the secret.
    """
    encoded = secret.removeprefix(PREFIX)
    try:
        key = base64.b64decode(encoded.rstrip("=") + "=" * (-len(encoded.rstrip("=")) % 4), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not key:
        raise ValueError(f"a webhook secret is {PREFIX} and base64")
    return key


def _signature(key: bytes, signed: bytes) -> str:
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
