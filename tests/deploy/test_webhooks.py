"""`ananse webhooks`: what an operator sees of receivers, and sends once more."""

import io
import json
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout

import pytest

from deploy import cli
from shared.job import Delivery
from shared.ledger import DELIVER, Ledger
from shared.redis_store import RedisStore
from shared.settings import PREFIX, Settings
from shared.webhook_secrets import WebhookSecrets
from tests.support.jobs import NOW, submit

pytestmark = pytest.mark.redis

URL = "https://hooks.example/in?token=marker"

Webhooks = Callable[..., tuple[int, str]]


@pytest.fixture
def webhooks(settings: Settings, store: RedisStore) -> Iterator[Webhooks]:
    def run(*words: str) -> tuple[int, str]:
        with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
            status = cli.main(["webhooks", *words])
        return status, out.getvalue() + err.getvalue()

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(f"{PREFIX}REDIS_URL", settings.redis_url)
        patch.setenv(f"{PREFIX}BLOB_URL", settings.blob_url)
        patch.setenv(f"{PREFIX}STATE_DIR", str(settings.state_dir))
        yield run


@pytest.fixture
def gone(store: RedisStore, ledger: Ledger) -> str:
    """A job whose receiver said that it is gone."""
    submit(store, "job_1", webhook_url=URL)
    ledger.cancel("job_1", webhook=b"{}", retention_s=60)
    ledger.delivered(ledger.claim("job_1", DELIVER, "w"), Delivery(1, NOW, 410, 0.1), "gone")
    return "job_1"


def test_while_nobody_fails_it_says_so(webhooks: Webhooks) -> None:
    assert webhooks("list") == (0, "no receiver fails\n")


def test_a_disabled_receiver_is_seen_without_its_secrets(webhooks: Webhooks, gone: str) -> None:
    status, text = webhooks("list")
    rows = json.loads(webhooks("list", "--json")[1])

    assert status == 0
    assert "https://hooks.example/in" in text
    assert "gone" in text
    assert [(row["url"], row["reason"]) for row in rows] == [("https://hooks.example/in", "gone")]
    assert "marker" not in text + json.dumps(rows)


def test_a_new_secret_is_told_and_the_old_one_signs_on(webhooks: Webhooks, store: RedisStore) -> None:
    (old,) = WebhookSecrets(store).all()

    status, text = webhooks("rotate", "--overlap", "12h")

    new = text.splitlines()[0]
    assert status == 0
    assert "two signatures" in text
    assert WebhookSecrets(store).all() == (new, old)
    assert 0 < store.client.ttl(store.key("webhook_secret_before")) <= 12 * 3600
    assert "alone" in webhooks("rotate", "--overlap", "0")[1]
    assert len(WebhookSecrets(store).all()) == 1


def test_a_secret_of_the_settings_is_changed_there(
    webhooks: Webhooks, store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = WebhookSecrets(store).all()
    monkeypatch.setenv(f"{PREFIX}WEBHOOK_SECRET", "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=")

    status, text = webhooks("rotate")

    assert status == 1
    assert "ANANSE_WEBHOOK_SECRET_PREVIOUS" in text
    assert WebhookSecrets(store).all() == kept


def test_a_replay_sends_it_again_and_enables_it(webhooks: Webhooks, gone: str, store: RedisStore) -> None:
    assert webhooks("replay", gone) == (0, "job_1: is sent again\n")

    assert store.client.hget(store.key("step", gone, DELIVER), "state") == "waiting"
    assert webhooks("list") == (0, "no receiver fails\n")


def test_what_cannot_be_sent_again_is_said(webhooks: Webhooks, store: RedisStore) -> None:
    submit(store, "job_2", webhook_url=URL)

    status, text = webhooks("replay", "job_2", "job_x")

    assert status == 1
    assert text.count("has no webhook, or there is no such job") == 2


def test_a_receiver_is_enabled_by_its_address(webhooks: Webhooks, gone: str) -> None:
    assert webhooks("enable", "https://hooks.example/in")[0] == 1
    assert webhooks("enable", URL, "--tenant", "other")[0] == 1

    assert webhooks("enable", URL)[0] == 0

    assert webhooks("list") == (0, "no receiver fails\n")
