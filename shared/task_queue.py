"""Hints: Celery messages that name a step. Losing or doubling one harms nothing, the ledger decides.

The Celery settings stand here because both sides send.
"""

import ssl
from collections.abc import Iterable
from typing import Any, Protocol
from urllib.parse import urlsplit, urlunsplit

from amqp.exceptions import AMQPError
from celery import Celery
from kombu.exceptions import KombuError, OperationalError
from kombu.utils.url import parse_url

from shared.errors import StoreUnavailable
from shared.fleet import Fleet
from shared.ledger import Hint, Ledger
from shared.log import get_logger
from shared.redis_store import RedisStore, connect
from shared.settings import Settings

_KEY_PREFIX = "ananse-celery:"
_KINDS = ("fetch", "prepare", "part", "finish", "deliver")

_log = get_logger()


class TaskQueue(Protocol):
    def send(self, queue: str, hint: Hint) -> None:
        """Tells the workers of `queue` about a step. May fail or do nothing: the hint is sent again."""
        ...


def task_name(step: str) -> str:
    """`part-3` is a task `ananse.part`."""
    kind = step.split("-", 1)[0]
    if kind not in _KINDS:
        raise ValueError(f"no task does the step {step!r}")
    return f"ananse.{kind}"


def make_celery(url: str, timeout_s: float = 10) -> Celery:
    """Celery 5.7 as measured: JSON only, early ack, no results, fetch only when a thread is free (of RabbitMQ
    as many more as there are threads).

    A send to a broker that stands still takes twice `timeout_s`; a worker waits for messages, so its own must
    be longer than that takes.
    """
    is_amqp = _is_amqp(url)
    celery = Celery("ananse", broker=url if is_amqp else broker_url(url))
    celery.conf.update(
        result_backend=None,
        task_ignore_result=True,
        task_serializer="json",
        accept_content=["json"],
        event_serializer="json",
        task_acks_late=False,
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=not is_amqp,
        # After a lost connection Celery 5.7.0 counts up again from the pool's threads, on the channel where
        # its main thread waits for an answer: one takes the other's, and no message is heard any more.
        worker_enable_prefetch_count_reduction=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_connection_timeout=timeout_s / 2,
        # redis-py connects again by itself; of AMQP only the next try does.
        task_publish_retry=is_amqp,
        task_publish_retry_policy={"max_retries": 1, "interval_start": 0},
        task_default_delivery_mode="transient",
        worker_send_task_events=True,
        task_send_sent_event=True,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        event_queue_expires=60,
        task_create_missing_queues=True,
        broker_use_ssl=_tls_of(url) or False,
        broker_transport_options=_amqp_options(timeout_s) if is_amqp else _redis_options(timeout_s),
    )
    return celery


def _is_amqp(url: str) -> bool:
    return url.startswith(("amqp://", "amqps://"))


def broker_url(redis_url: str) -> str:
    """kombu's spelling of the URL; redis-py's `unix://PATH?db=0` is its `redis+socket://`."""
    parts = urlsplit(redis_url)
    if parts.scheme == "rediss":
        words = (pair for pair in parts.query.split("&") if pair and not pair.startswith("ssl_"))
        return urlunsplit(parts._replace(query="&".join(words)))
    if parts.scheme != "unix":
        return redis_url
    database = dict(pair.split("=", 1) for pair in parts.query.split("&") if "=" in pair).get("db", "0")
    return f"redis+socket://{parts.path}?virtual_host={database}"


def _tls_of(url: str) -> dict[str, Any]:
    """What redis-py reads in the query, for kombu and Flower, which look for it here. Without any of it both
    would talk, and say the password, in the clear."""
    if not url.startswith("rediss://"):
        return {}
    found: dict[str, Any] = {"ssl_cert_reqs": ssl.CERT_REQUIRED} | parse_url(url).get("ssl", {})
    return found


def _amqp_options(timeout_s: float) -> dict[str, Any]:
    return {"read_timeout": timeout_s, "write_timeout": timeout_s, "max_retries": 1, "interval_start": 0}


def _redis_options(timeout_s: float) -> dict[str, Any]:
    return {
        # A hint may be lost. To keep those that are being fetched costs round trips, and the worker: kombu
        # 5.7.0 restores them on a connection that is gone, and ends of it ("no attribute 'hostname'").
        "ack_emulation": False,
        # A hint is not worth waiting for: the broker is tried once more, at once, and then left alone.
        "max_retries": 1,
        "interval_start": 0,
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s / 2,
        "socket_keepalive": True,
        "health_check_interval": 25,
        "global_keyprefix": _KEY_PREFIX,
        "sep": ":",
        "queue_order_strategy": "priority",
    }


class CeleryQueue:
    """TaskQueue over the broker; tasks are found by name, ids are their only arguments."""

    def __init__(self, celery: Celery) -> None:
        self._celery = celery

    def send(self, queue: str, hint: Hint) -> None:
        try:
            self._celery.send_task(
                task_name(hint.step), args=[hint.job_id, hint.step], queue=queue, ignore_result=True
            )
        except (KombuError, OperationalError, AMQPError, OSError) as error:
            _log.warning("hint_not_sent", job_id=hint.job_id, step=hint.step, error=type(error).__name__)


class Messages(Protocol):
    def waiting(self, queues: Iterable[str]) -> int:
        """How many messages nobody has fetched yet. Raises StoreUnavailable."""
        ...


def messages_of(settings: Settings, celery: Celery, store: RedisStore) -> Messages:
    """Those of the settings' broker; `store` is the job store, which most often is the broker too."""
    if settings.broker_url is None:
        return RedisMessages(store)
    if _is_amqp(settings.broker_url):
        return AmqpMessages(celery)
    return RedisMessages(RedisStore(connect(settings.broker_url)))


class RedisMessages:
    """What waits in a Redis, as Celery's transport keeps it."""

    def __init__(self, store: RedisStore) -> None:
        self._store = store

    def waiting(self, queues: Iterable[str]) -> int:
        with self._store.guarded():
            pipe = self._store.client.pipeline(transaction=False)
            for queue in queues:
                pipe.llen(_KEY_PREFIX + queue)
            return sum(pipe.execute())


class AmqpMessages:
    """What waits in queues that their consumers have declared; asked on a connection of Celery's pool."""

    def __init__(self, celery: Celery) -> None:
        self._celery = celery

    def waiting(self, queues: Iterable[str]) -> int:
        try:
            with self._celery.connection_or_acquire() as connection:
                connection.ensure_connection(max_retries=1, interval_start=0)
                with connection.channel() as channel:
                    return sum(channel.queue_declare(queue, passive=True).message_count for queue in queues)
        except (KombuError, OperationalError, AMQPError, OSError) as error:
            raise StoreUnavailable("The broker does not answer.", retry_after_s=5) from error


class Dispatcher:
    """Moves waiting steps into the task queue, as many as live workers can hold."""

    def __init__(self, ledger: Ledger, fleet: Fleet, tasks: TaskQueue, hint_s: float = 20.0) -> None:
        self._ledger = ledger
        self._fleet = fleet
        self._tasks = tasks
        self._hint_s = hint_s

    def dispatch(self, queues: Iterable[str] | None = None) -> int:
        """Sends hints for due steps of `queues`, or of all that live workers serve; how many.

        MOST_HINTS of a queue at most: nobody is to be held up for long by others' work.
        """
        slots = self._fleet.slots()
        rooms = slots if queues is None else {queue: slots.get(queue, 0) for queue in queues}
        hints = self._ledger.dispatch_each(rooms, self._hint_s) if rooms else ()
        for queue, hint in hints:
            self._tasks.send(queue, hint)
        return len(hints)
