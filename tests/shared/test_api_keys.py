"""A key as a value: what one looks like, and whether it holds."""

import hmac

import pytest

from shared import api_keys
from shared.api_keys import ApiKey, Limits, Scope, Verdict, digest_of, new_id, new_secret, read, written
from shared.settings import Settings

NOW = 1_000_000
KEY = ApiKey("a" * 16, "ama", "ama", frozenset({Scope.READ}), digest_of("secret"), NOW)


def test_what_is_written_is_read_again() -> None:
    for _ in range(100):
        key_id, secret = new_id(), new_secret()
        presented = read(written(key_id, secret))
        assert presented is not None
        assert (presented.id, presented.digest) == (key_id, digest_of(secret))


def test_a_secret_has_256_random_bits_and_is_not_kept() -> None:
    secrets = {new_secret() for _ in range(100)}

    assert len(secrets) == 100
    assert {len(secret) for secret in secrets} == {43}
    assert all("secret" not in value for value in KEY.to_fields().values())


@pytest.mark.parametrize(
    "text",
    ["", "sk-123", "ananse_", f"ananse_{'A' * 16}_{'x' * 43}", f"ananse_{'a' * 16}_{'x' * 42}", "é" * 60],
)
def test_what_is_no_key_is_not_looked_up(text: str) -> None:
    assert read(text) is None


@pytest.mark.parametrize(
    ("secret", "fields", "verdict"),
    [
        ("secret", {}, Verdict.VALID),
        ("other", {}, Verdict.UNKNOWN),
        ("secret", {"expires_ms": NOW + 1}, Verdict.VALID),
        ("secret", {"expires_ms": NOW}, Verdict.EXPIRED),
        ("secret", {"revoked_ms": 1}, Verdict.REVOKED),
        # Who does not have the secret is told nothing of the key.
        ("other", {"expires_ms": NOW, "revoked_ms": 1}, Verdict.UNKNOWN),
        ("old", {"old_digest": digest_of("old"), "old_until_ms": NOW + 1}, Verdict.VALID),
        ("old", {"old_digest": digest_of("old"), "old_until_ms": NOW}, Verdict.UNKNOWN),
        ("", {}, Verdict.UNKNOWN),
        ("", {"old_until_ms": NOW + 1, "old_digest": digest_of("old")}, Verdict.UNKNOWN),
    ],
)
def test_the_verdict(secret: str, fields: dict[str, object], verdict: Verdict) -> None:
    from_redis = ApiKey.from_fields(KEY.to_fields() | {name: str(value) for name, value in fields.items()})

    assert from_redis.verdict(digest_of(secret), NOW) is verdict


def test_a_key_with_no_old_secret_opens_to_no_empty_one() -> None:
    """While the time of an old secret is not over, there has to be one."""
    odd = ApiKey.from_fields(KEY.to_fields() | {"old_until_ms": str(NOW + 1)})

    assert odd.verdict("", NOW) is Verdict.UNKNOWN


def test_digests_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both of them, whichever is right."""
    compared = []

    def compare(one: str, other: str) -> bool:
        compared.append(one)
        return hmac.compare_digest(one, other)

    monkeypatch.setattr(api_keys, "hmac", type("Hmac", (), {"compare_digest": staticmethod(compare)}))
    for secret in ("secret", "other"):
        KEY.verdict(digest_of(secret), NOW)

    assert len(compared) == 4


def test_limits_of_its_own_go_first() -> None:
    key = ApiKey.from_fields(KEY.to_fields() | {"limits": '{"jobs": 3}'})

    assert key.limits_of(Settings(key_requests_per_min=60)) == Limits(60, 3, 360_000, 100 * 2**30)


def test_a_rotated_key_drops_the_secret_before_the_last() -> None:
    again = KEY.rotated(digest_of("second"), NOW, 1000).rotated(digest_of("third"), NOW, 1000)

    assert again.verdict(digest_of("third"), NOW) is Verdict.VALID
    assert again.verdict(digest_of("second"), NOW) is Verdict.VALID
    assert again.verdict(digest_of("secret"), NOW) is Verdict.UNKNOWN
