"""The settings as an operator gives them: read once, refused all at once, and never shown."""

from ipaddress import ip_network
from pathlib import Path

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
        ("ANANSE_S3_ENDPOINT", "minio:9000", "ANANSE_S3_ENDPOINT: must be an http:// or https:// address"),
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


def test_what_the_client_reads_is_no_setting_and_no_mistake(give: pytest.MonkeyPatch) -> None:
    give.setenv("ANANSE_URL", "http://127.0.0.1:8000")
    give.setenv("ANANSE_API_KEY", "key")

    assert load() == Settings()


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


@pytest.mark.parametrize("endpoint", ["collector:4318", "ftp://collector", "http://", "http://c/v1?key=x"])
def test_traces_go_to_an_http_address(give: pytest.MonkeyPatch, endpoint: str) -> None:
    give.setenv("ANANSE_OTLP_ENDPOINT", endpoint)

    with pytest.raises(SettingsError, match="ANANSE_OTLP_ENDPOINT: must be an http:// or https:// address"):
        load()


def test_the_broker_is_the_job_store_unless_another_is_named() -> None:
    assert Settings(redis_url="redis://there/0").broker == "redis://there/0"
    assert Settings(redis_url="redis://there/0", broker_url="amqp://here//").broker == "amqp://here//"


def test_a_broker_that_nobody_can_speak_to_is_refused() -> None:
    with pytest.raises(ValidationError, match="amqp://"):
        Settings(broker_url="kafka://here")


def test_a_secret_may_lie_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "ananse_redis_url").write_text("redis://api:opensesame@redis:6379/0\n")
    (tmp_path / "someone_elses").write_text("x")

    assert load(tmp_path).redis_url == "redis://api:opensesame@redis:6379/0"


def test_the_environment_goes_before_a_file(give: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "ananse_flower_password").write_text("from the file")
    (tmp_path / "ananse_flower_user").write_text("from-the-file")
    give.setenv("ANANSE_FLOWER_PASSWORD", "from the environment")
    give.setenv("ANANSE_FLOWER_USER", "")

    settings = load(tmp_path)

    assert settings.flower_password == SecretStr("from the environment")
    assert settings.flower_user == "from-the-file"


def test_secrets_that_cannot_be_taken_are_told_by_path(tmp_path: Path) -> None:
    (tmp_path / "ananse_redis").write_text("redis://redis")
    (tmp_path / "ananse_flower_user").write_text("\n")
    (tmp_path / "ananse_flower_password").mkdir()

    with pytest.raises(SettingsError) as raised:
        load(tmp_path)

    sentence = str(raised.value)
    assert f"{tmp_path}/ananse_redis is not a setting" in sentence
    assert f"{tmp_path}/ananse_flower_user is empty" in sentence
    assert f"{tmp_path}/ananse_flower_password is no file" in sentence


def test_what_is_wrong_in_a_file_does_not_spill_it(tmp_path: Path) -> None:
    (tmp_path / "ananse_webhook_secret").write_text("whsec_opensesame")
    (tmp_path / "ananse_port").write_text("opensesame")

    with pytest.raises(SettingsError, match="ANANSE_PORT") as raised:
        load(tmp_path)

    assert "opensesame" not in str(raised.value)


def test_there_need_not_be_any_secrets(tmp_path: Path) -> None:
    assert load(tmp_path / "none") == Settings()


def test_no_secret_is_in_what_is_printed_of_it() -> None:
    settings = Settings(
        redis_url="rediss://api:marker@example.org/0",
        broker_url="amqps://api:marker@example.org",
        hf_endpoint="https://user:marker@example.org",
        s3_endpoint="https://user:marker@example.org",
        otlp_endpoint="https://user:marker@example.org",
        s3_access_key_id="key",
        s3_secret_access_key="marker",
        webhook_secret="whsec_marker",
        flower_password="marker",
    )

    for text in (repr(settings), str(settings), f"{settings}"):
        assert "marker" not in text
        assert "lease_s" in text


def test_a_secret_in_the_wrong_place_is_not_repeated(give: pytest.MonkeyPatch) -> None:
    give.setenv("ANANSE_BROKER_URL", "marker://api:marker@example.org")
    give.setenv("ANANSE_PORT", "marker")
    give.setenv("ANANSE_OTLP_ENDPOINT", "marker")

    with pytest.raises(SettingsError) as raised:
        load()
    with pytest.raises(ValidationError) as foreign:
        Settings(port="marker")  # type: ignore[arg-type]

    assert "marker" not in str(raised.value) + str(foreign.value)
