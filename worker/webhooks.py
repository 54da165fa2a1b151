"""Signs webhooks as Standard Webhooks 1.0 says, so that receivers verify them with any of its libraries.

See https://www.standardwebhooks.com. Sending is `delivery.py`; what is in the body is nobody's business here.
"""

import base64
import binascii
from collections.abc import Sequence
from datetime import UTC, datetime

from standardwebhooks import Webhook

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
    # The library takes the hour as it stands for one of UTC, and the body as text.
    at, text = now.astimezone(UTC), body.decode()
    return {
        "webhook-id": webhook_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": " ".join(
            Webhook(key_of(secret)).sign(webhook_id, at, text) for secret in secrets
        ),
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
