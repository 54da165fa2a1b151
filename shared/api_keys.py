"""API keys as values: what one looks like, what it may do, and whether it holds. No Redis here.

    ananse_<id>_<secret>      id: public, 16 letters; secret: 256 random bits, known to its owner alone

What is kept is SHA-256 of the secret. A slow hash is for passwords, which people think up and others guess;
nobody goes through 2**256 random secrets, however fast the hash, and a slow one would be paid with every
request.
"""

import base64
import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum

from shared.settings import Settings

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
"""Of a key, and of a tenant: in Redis a colon would end it."""

_FORM = re.compile(r"ananse_([a-z2-7]{16})_([A-Za-z0-9_-]{43})")
_ID_BYTES = 10
_SECRET_BYTES = 32
_NO_DIGEST = hashlib.sha256(b"").hexdigest()


class Scope(StrEnum):
    """`cancel` ends jobs and deletes them; `admin` may all that the others may, and see how the service
    does."""

    SUBMIT = "submit"
    READ = "read"
    CANCEL = "cancel"
    ADMIN = "admin"


class Verdict(StrEnum):
    """Only the owner of a secret is told more than `unknown`."""

    VALID = "valid"
    UNKNOWN = "unknown"
    EXPIRED = "expired"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a key may take; 0 is no bound. `audio_s` is what its open jobs owe, `stored_bytes` its
    recordings."""

    requests_per_min: int = 0
    jobs: int = 0
    audio_s: float = 0.0
    stored_bytes: int = 0


NO_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Presented:
    """What a client sent: the id, and the digest of the secret."""

    id: str
    digest: str


@dataclass(frozen=True, slots=True)
class ApiKey:
    """Instants are milliseconds of Redis TIME, 0 for never. `digest` is that of the secret, `old_digest` that
    of the one before it, which holds until `old_until_ms`. `limits` are those that are not the service's
    own."""

    id: str
    name: str
    tenant: str
    scopes: frozenset[Scope]
    digest: str
    created_ms: int
    expires_ms: int = 0
    revoked_ms: int = 0
    old_digest: str = ""
    old_until_ms: int = 0
    limits: Mapping[str, float] = field(default_factory=dict)

    def verdict(self, digest: str, now_ms: int) -> Verdict:
        """Whether the secret of this digest opens; in the same time whatever is wrong with it."""
        is_new = hmac.compare_digest(self.digest, digest)
        is_old = hmac.compare_digest(self.old_digest or _NO_DIGEST, digest) and now_ms < self.old_until_ms
        if not (is_new or is_old):
            return Verdict.UNKNOWN
        if self.revoked_ms:
            return Verdict.REVOKED
        return Verdict.EXPIRED if 0 < self.expires_ms <= now_ms else Verdict.VALID

    def limits_of(self, settings: Settings) -> Limits:
        """Its own, and the service's for all that it has none of."""
        usual = Limits(
            settings.key_requests_per_min,
            settings.key_jobs,
            settings.key_audio_s,
            settings.key_stored_bytes,
        )
        return replace(usual, **self.limits)  # type: ignore[arg-type]

    def rotated(self, digest: str, now_ms: int, overlap_ms: int) -> "ApiKey":
        """With a new secret; the one it has goes on for `overlap_ms`, one before that ends."""
        return replace(self, digest=digest, old_digest=self.digest, old_until_ms=now_ms + overlap_ms)

    def to_fields(self) -> dict[str, str]:
        """As Redis keeps it."""
        fields = asdict(self) | {
            "scopes": " ".join(sorted(self.scopes)),
            "limits": json.dumps(dict(self.limits)),
        }
        return {name: str(value) for name, value in fields.items()}

    @classmethod
    def from_fields(cls, fields: Mapping[str, str]) -> "ApiKey":
        """Fields of a later version are left alone. Raises KeyError, ValueError."""
        return cls(
            id=fields["id"],
            name=fields["name"],
            tenant=fields["tenant"],
            scopes=frozenset(Scope(word) for word in fields["scopes"].split()),
            digest=fields["digest"],
            created_ms=int(fields["created_ms"]),
            expires_ms=int(fields["expires_ms"]),
            revoked_ms=int(fields["revoked_ms"]),
            old_digest=fields["old_digest"],
            old_until_ms=int(fields["old_until_ms"]),
            limits=json.loads(fields["limits"]),
        )


def new_id() -> str:
    return base64.b32encode(secrets.token_bytes(_ID_BYTES)).decode().lower()


def new_secret() -> str:
    return secrets.token_urlsafe(_SECRET_BYTES)


def written(key_id: str, secret: str) -> str:
    """The key as its owner has it."""
    return f"ananse_{key_id}_{secret}"


def digest_of(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def read(text: str) -> Presented | None:
    """None for what was never a key of ours."""
    found = _FORM.fullmatch(text)
    return Presented(found[1], digest_of(found[2])) if found else None
