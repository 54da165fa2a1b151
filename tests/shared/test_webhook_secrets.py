"""The secret that the service makes for itself, and what signs while it is changed."""

import pytest

from shared.redis_store import RedisStore
from shared.webhook_secrets import WebhookSecrets
from tests.support.waiting import wait_until

pytestmark = pytest.mark.redis


def test_it_is_made_once(store: RedisStore) -> None:
    (secret,) = WebhookSecrets(store).all()

    assert WebhookSecrets(store).all() == (secret,)
    assert secret.startswith("whsec_")
    assert len(secret) > 40


def test_the_old_one_signs_for_a_while_beside_the_new(store: RedisStore) -> None:
    kept = WebhookSecrets(store)
    (first,) = kept.all()

    second = kept.rotate(overlap_s=1)

    assert kept.all() == (second, first)
    wait_until(lambda: kept.all() == (second,), 60)


def test_a_second_change_ends_the_one_before_the_last(store: RedisStore) -> None:
    kept = WebhookSecrets(store)
    first, second, third = kept.all()[0], kept.rotate(60), kept.rotate(60)

    assert kept.all() == (third, second)
    assert len({first, second, third}) == 3


def test_a_secret_that_got_out_ends_at_once(store: RedisStore) -> None:
    kept = WebhookSecrets(store)
    kept.rotate(60)

    last = kept.rotate(overlap_s=0)

    assert kept.all() == (last,)
