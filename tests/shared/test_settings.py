"""The settings as an operator gives them: read once, refused all at once, and never shown."""

from ipaddress import ip_network

import pytest
from pydantic import SecretStr, ValidationError

from shared.settings import PREFIX, Settings, SettingsError, load


@pytest.fixture
def give(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """`give.setenv` is what the operator does."""
    return monkeypatch


def test_nothing_needs_to_be_set() -> None:
    settings = load()

    assert settings.host == "127.0.0.1"


def test_what_is_set_is_read_with_its_type(give: pytest.MonkeyPatch) -> None:
    give.setenv("ANANSE_PORT", "9000")
    give.setenv("ANANSE_LEASE_S", "12.5")
    give.setenv("ANANSE_MODELS", "a=org/first, org/second")

    settings = load()

    assert (settings.port, settings.lease_s) == (9000, 12.5)


def test_an_empty_setting_is_not_set(give: pytest.MonkeyPatch) -> None:
    give.setenv("ANANSE_PORT", "")
    give.setenv("ANANSE_WEBHOOK_ALLOW", "")

    assert load() == Settings()


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("ANANSE_BLOB_URL", "gs://bucket/x", "ANANSE_BLOB_URL: must be file:///folder or s3://bucket/prefix"),
        ("ANANSE_BLOB_URL", "s3:///x", "ANANSE_BLOB_URL: names no bucket"),
        ("ANANSE_BLOB_URL", "file://", "ANANSE_BLOB_URL: must be file:///folder"),
        ("ANANSE_S3_ENDPOINT", "minio:9000", "ANANSE_S3_ENDPOINT: must begin with http:// or https://"),
        ("ANANSE_S3_ACCESS_KEY_ID", "key", "must be given together"),
        ("ANANSE_MAX_UPLOAD_BYTES", str(2**36), "an object store takes no upload of more than 48.8 GiB"),
    ],
)
def test_a_store_that_cannot_be_is_refused(
    give: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    give.setenv("ANANSE_BLOB_URL", "s3://bucket/prefix")
    give.setenv(name, value)

    with pytest.raises(SettingsError, match=said.replace("(", "[(]")):
        load()


def test_lists_are_separated_by_commas(give: pytest.MonkeyPatch) -> None:
    give.setenv("ANANSE_WEBHOOK_ALLOW", "127.0.0.0/8, fd00::/8")
    give.setenv("ANANSE_WEBHOOK_RETRY_S", "1,2.5,")

    settings = load()

    assert settings.webhook_allow == (ip_network("127.0.0.0/8"), ip_network("fd00::/8"))
    assert settings.webhook_retry_s == (1.0, 2.5)


def test_all_mistakes_are_told_in_one_sentence(give: pytest.MonkeyPatch) -> None:
    wrong = {
        "ANANSE_PORT": "eighty",
        "ANANSE_LEASE_S": "0",
        "ANANSE_DEVICE": "abacus",
        "ANANSE_WEBHOOK_ALLOW": "127.0.0.0/8,home",
        "ANANSE_WEBHOOK_RETRY_S": "5,soon",
        "ANANSE_PROT": "8000",
    }
    for name, value in wrong.items():
        give.setenv(name, value)

    with pytest.raises(SettingsError) as raised:
        load()

    sentence = str(raised.value)
    assert all(name in sentence for name in wrong)
    assert "ANANSE_PROT is not a setting" in sentence
    assert "\n" not in sentence
    assert sentence.endswith("See docs/configuration.md.")


def test_an_unknown_setting_alone_is_refused(give: pytest.MonkeyPatch) -> None:
    give.setenv("ANANSE_LEASES", "30")

    with pytest.raises(SettingsError, match=r"^ANANSE_LEASES is not a setting\. See"):
        load()


def test_settings_that_do_not_agree_are_told_by_name(give: pytest.MonkeyPatch) -> None:
    give.setenv("ANANSE_LEASE_S", "1")
    give.setenv("ANANSE_HINT_S", "11")

    with pytest.raises(SettingsError, match="hint_s must not be more than ten times lease_s") as raised:
        load()

    assert f"{PREFIX}:" not in str(raised.value)


@pytest.mark.parametrize("value", ["-5", "nan", "inf", "5,-0.1"])
def test_a_pause_that_is_no_time_is_refused(give: pytest.MonkeyPatch, value: str) -> None:
    give.setenv("ANANSE_WEBHOOK_RETRY_S", value)

    with pytest.raises(SettingsError, match="ANANSE_WEBHOOK_RETRY_S"):
        load()


@pytest.mark.parametrize("name", ["ANANSE_LEASE_S", "ANANSE_RETENTION_S", "ANANSE_SWEEP_S"])
def test_no_time_is_endless(give: pytest.MonkeyPatch, name: str) -> None:
    give.setenv(name, "inf")

    with pytest.raises(SettingsError, match=name):
        load()


def test_secrets_are_masked(give: pytest.MonkeyPatch) -> None:
    give.setenv("ANANSE_WEBHOOK_SECRET", "whsec_opensesame")
    give.setenv("ANANSE_FLOWER_PASSWORD", "opensesame")

    settings = load()

    assert settings.webhook_secret == SecretStr("whsec_opensesame")
    assert "opensesame" not in repr(settings) + str(settings) + settings.model_dump_json()


def test_a_wrong_setting_does_not_spill_a_secret(give: pytest.MonkeyPatch) -> None:
    give.setenv("ANANSE_WEBHOOK_SECRET", "whsec_opensesame")
    give.setenv("ANANSE_REDIS_URL", "redis://:opensesame@redis:6379/0")
    give.setenv("ANANSE_PORT", "eighty")

    with pytest.raises(SettingsError) as raised:
        load()

    assert "opensesame" not in str(raised.value)


def test_settings_do_not_change() -> None:
    settings = Settings()

    with pytest.raises(ValidationError, match="frozen"):
        settings.port = 1


def test_a_setting_that_is_not_there_cannot_be_made() -> None:
    with pytest.raises(ValidationError, match="prot"):
        Settings(prot=8000)  # type: ignore[call-arg]
