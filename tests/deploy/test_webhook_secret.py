"""`ananse webhook-secret` tells receivers what the workers sign with."""

from pathlib import Path

import pytest
from pydantic import SecretStr

from deploy.errors import StartError
from deploy.webhook_secret import read
from shared.redis_store import RedisStore
from shared.settings import Settings
from shared.webhook_secrets import WebhookSecrets

SECRET = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="


def test_the_setting_goes_first() -> None:
    assert read(Settings(webhook_secret=SecretStr(SECRET))) == SECRET


@pytest.mark.redis
def test_it_is_the_one_that_workers_sign_with(settings: Settings, store: RedisStore) -> None:
    assert (read(settings),) == WebhookSecrets(store).all()


def test_a_service_that_is_down_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="no Redis answers"):
        read(Settings(state_dir=tmp_path))
