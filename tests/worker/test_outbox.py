"""The outbox: a webhook is delivered, put off or given up, and the log tells which."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from ipaddress import ip_network

import pytest
from standardwebhooks import Webhook

from shared.ledger import DELIVER_QUEUE, ClaimOutcome, Hint
from shared.redis_store import RedisStore
from shared.settings import Settings
from tests.support.jobs import lapse_lease, submit
from tests.support.metrics import samples
from tests.support.worker_context import SECRET, worker_context
from tests.worker.receiver import Receiver, http, receiver
from worker import outbox
from worker.context import Context

pytestmark = pytest.mark.redis

BODY = b'{"type":"job.canceled","data":{"id":"job_1"}}'
STEP = "deliver-0"

MakeContext = Callable[..., AbstractContextManager[Context]]


@pytest.fixture
def make(settings: Settings, store: RedisStore) -> MakeContext:
    """A worker whose webhooks may go to loopback, with one more try."""

    @contextmanager
    def context(**more: object) -> Iterator[Context]:
        given = {"webhook_allow": (ip_network("127.0.0.0/8"),), "webhook_retry_s": (100.0,)} | more
        with worker_context(
            Settings(**(settings.model_dump(exclude_unset=True) | given)),  # type: ignore[arg-type]
            store,
        ) as context:
            yield context

    return context


def end(context: Context, store: RedisStore, url: str, **options: object) -> None:
    """A job with a webhook in its outbox."""
    submit(store, webhook_url=url, **options)
    assert context.ledger.cancel("job_1", webhook=BODY, retention_s=60)


def deliver(context: Context) -> None:
    """One attempt, as a step makes it."""
    with context.leases.hold(context.ledger.claim("job_1", STEP, context.name)) as held:
        outbox.deliver(held, context.jobs.get("job_1"), context)


def parsed(hook: Receiver, number: int = 0) -> tuple[dict[str, str], bytes]:
    head, _, body = hook.requests[number].partition(b"\r\n\r\n")
    lines = [line.partition(": ") for line in head.decode().split("\r\n")[1:]]
    return {name.lower(): value for name, _, value in lines}, body


def attempts(context: Context) -> dict[str, float]:
    """As they are counted, by outcome."""
    found = samples(context.metrics.text().decode())
    return {
        one.labels["outcome"]: one.value
        for one in found
        if one.name == "ananse_worker_webhook_attempts_total"
    }


def test_a_webhook_that_is_taken_is_delivered(make: MakeContext, store: RedisStore) -> None:
    with make() as context, receiver(http(204)) as hook:
        end(context, store, hook.url())

        deliver(context)

        assert attempts(context) == {"delivered": 1}
        headers, body = parsed(hook)
        assert body == BODY
        assert headers["webhook-id"] == "msg_job_1_deliver-0"
        assert Webhook(SECRET).verify(body, headers)["type"] == "job.canceled"
        assert context.jobs.get("job_1").webhook_status == "delivered"
        assert [(row.attempt, row.status) for row in context.jobs.deliveries("job_1")] == [(1, 204)]
        assert context.ledger.claim("job_1", STEP, "w").outcome is ClaimOutcome.DONE


def test_a_webhook_that_is_refused_is_put_off(make: MakeContext, store: RedisStore) -> None:
    with make() as context, receiver(http(500, b"oops")) as hook:
        end(context, store, hook.url())

        deliver(context)

        assert attempts(context) == {"put_off": 1}
        assert context.jobs.get("job_1").webhook_status == "retrying"
        (row,) = context.jobs.deliveries("job_1")
        assert (row.attempt, row.status, row.answer) == (1, 500, "oops")
        assert context.ledger.dispatch(DELIVER_QUEUE, 4, hint_s=20) == ()
        # A fifth more than the pause at most.
        store.client.zincrby(store.key("later", DELIVER_QUEUE), -120_000, f"job_1/{STEP}")
        assert context.ledger.dispatch(DELIVER_QUEUE, 4, hint_s=20) == (Hint("job_1", STEP),)


def test_every_attempt_is_the_same_message(make: MakeContext, store: RedisStore) -> None:
    with make() as context, receiver(http(503), http(200)) as hook:
        end(context, store, hook.url())

        deliver(context)
        deliver(context)

        (first, one), (second, other) = parsed(hook, 0), parsed(hook, 1)
        assert one == other
        assert first["webhook-id"] == second["webhook-id"]
        assert [row.attempt for row in context.jobs.deliveries("job_1")] == [1, 2]
        assert context.jobs.get("job_1").webhook_status == "delivered"


def test_a_webhook_that_nobody_takes_is_given_up(make: MakeContext, store: RedisStore) -> None:
    with make() as context, receiver(http(500)) as hook:
        end(context, store, hook.url())

        deliver(context)
        deliver(context)

        assert attempts(context) == {"put_off": 1, "failed": 1}
        assert context.jobs.get("job_1").webhook_status == "failed"
        assert context.ledger.claim("job_1", STEP, "w").outcome is ClaimOutcome.DONE


def test_a_receiver_that_is_gone_is_not_asked_again(make: MakeContext, store: RedisStore) -> None:
    with make() as context, receiver(http(410)) as hook:
        end(context, store, hook.url())

        deliver(context)

        assert context.jobs.get("job_1").webhook_status == "failed"


def test_a_receiver_that_is_gone_gets_nothing_of_other_jobs_either(
    make: MakeContext, store: RedisStore
) -> None:
    with make() as context, receiver(http(410)) as hook:
        end(context, store, hook.url())
        deliver(context)
        submit(store, "job_2", webhook_url=hook.url())
        context.ledger.cancel("job_2", webhook=BODY, retention_s=60)

        with context.leases.hold(context.ledger.claim("job_2", STEP, context.name)) as held:
            outbox.deliver(held, context.jobs.get("job_2"), context)

        assert hook.connections == 1
        assert context.jobs.get("job_2").webhook_status == "disabled"
        (row,) = context.jobs.deliveries("job_2")
        assert (row.attempt, row.status, row.error) == (1, None, "disabled")
        assert attempts(context) == {"failed": 1, "disabled": 1}


def test_a_receiver_that_only_failed_gets_no_more(make: MakeContext, store: RedisStore) -> None:
    with make(webhook_disable_s=60) as context, receiver(http(500)) as hook:
        end(context, store, hook.url())
        deliver(context)
        (name,) = store.client.zrange(store.key("receivers"), 0, -1)
        store.client.hincrby(store.key("receiver", name), "failing_since", -61_000)

        deliver(context)

        assert attempts(context) == {"put_off": 1, "failed": 1}
        assert context.jobs.get("job_1").webhook_status == "failed"
        (found,) = context.receivers.failing()
        assert found.reason == "failing"


def test_a_replay_is_the_same_message_with_a_number_of_its_own(make: MakeContext, store: RedisStore) -> None:
    with make() as context, receiver(http(410), http(200)) as hook:
        end(context, store, hook.url())
        deliver(context)

        context.ledger.replay("job_1")
        deliver(context)

        (first, one), (second, other) = parsed(hook, 0), parsed(hook, 1)
        assert (first["webhook-id"], one) == (second["webhook-id"], other)
        assert [(row.attempt, row.status) for row in context.jobs.deliveries("job_1")] == [(1, 410), (2, 200)]
        assert context.jobs.get("job_1").webhook_status == "delivered"


def test_an_address_inside_is_not_gone_to(make: MakeContext, store: RedisStore) -> None:
    with make(webhook_allow=()) as context, receiver(http(200)) as hook:
        end(context, store, hook.url())

        deliver(context)

        (row,) = context.jobs.deliveries("job_1")
        assert (row.status, bool(row.error)) == (None, True)
        assert hook.connections == 0


def test_the_client_s_own_header_goes_with_it(make: MakeContext, store: RedisStore) -> None:
    with make() as context, receiver(http(200)) as hook:
        end(
            context,
            store,
            hook.url(),
            webhook_auth_header_name="X-Key",
            webhook_auth_header_value="opensesame",
        )

        deliver(context)

        assert parsed(hook)[0]["x-key"] == "opensesame"


def test_a_delivery_cut_short_by_its_worker_s_end_is_no_attempt(make: MakeContext, store: RedisStore) -> None:
    with make() as context, receiver(http(500)) as hook:
        end(context, store, hook.url())
        lapse_lease(store, context.ledger.claim("job_1", STEP, "dying"))

        deliver(context)

        assert [row.attempt for row in context.jobs.deliveries("job_1")] == [1]
