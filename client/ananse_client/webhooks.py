"""Checks that a webhook comes from the service: Standard Webhooks 1.0, https://www.standardwebhooks.com."""

import base64
import binascii
import hashlib
import hmac
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ananse_client.errors import InvalidSignature
from ananse_client.reading import read
from ananse_client.shapes import Failure

TOLERANCE_S = 300.0
_PREFIX = "whsec_"


@dataclass(frozen=True, slots=True)
class WebhookEvent:
    """`id` is the same in every attempt to deliver it: keep it to tell repeats."""

    id: str
    type: str
    job_id: str
    status: str
    error: Failure | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)


def verify(
    body: bytes | str,
    headers: Mapping[str, str],
    secret: str | Sequence[str],
    *,
    tolerance_s: float = TOLERANCE_S,
    now: float | None = None,
) -> WebhookEvent:
    """`body` exactly as it came, and the request's headers. Several secrets may hold while one is exchanged.

    Raises InvalidSignature; ValueError for a secret that cannot be read.
    """
    given = {name.lower(): value for name, value in headers.items()}
    content = body.encode() if isinstance(body, str) else body
    try:
        id, stamp, signatures = (given[f"webhook-{name}"] for name in ("id", "timestamp", "signature"))
    except KeyError as missing:
        raise InvalidSignature(f"the header {missing.args[0]} is missing") from None
    _check_age(stamp, time.time() if now is None else now, tolerance_s)
    secrets = [secret] if isinstance(secret, str) else list(secret)
    signed = f"{id}.{stamp}.".encode() + content
    right = [_signature(one, signed) for one in secrets]
    if not any(
        hmac.compare_digest(sent.encode(), own.encode()) for sent in signatures.split(" ") for own in right
    ):
        raise InvalidSignature("the signature is not that of the secret")
    return _event(id, json.loads(content))


def _check_age(stamp: str, now: float, tolerance_s: float) -> None:
    try:
        age_s = now - int(stamp)
    except ValueError:
        raise InvalidSignature("the timestamp is no number") from None
    if abs(age_s) > tolerance_s:
        raise InvalidSignature("the webhook is too old, or from the future")


def _signature(secret: str, signed: bytes) -> str:
    encoded = secret.removeprefix(_PREFIX).rstrip("=")
    try:
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not key:
        raise ValueError(f"a webhook secret is {_PREFIX} and base64")
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


def _event(id: str, raw: dict[str, Any]) -> WebhookEvent:
    job = raw.get("data", {})
    error = read(Failure, job["error"]) if job.get("error") else None
    return WebhookEvent(
        id=id,
        type=str(raw.get("type", "")),
        job_id=str(job.get("id", "")),
        status=str(job.get("status", "")),
        error=error,
        metadata=dict(job.get("metadata") or {}),
        raw=raw,
    )
