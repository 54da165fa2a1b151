"""RabbitMQ as the broker: hints go there, jobs stay in Redis, and a broker that dies costs no job."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.errors import StoreUnavailable
from shared.job import Status, VadOptions
from shared.ledger import DELIVER_QUEUE, PREPARE, PREPARE_QUEUE, Hint
from shared.redis_store import RedisStore
from shared.settings import Settings
from shared.task_queue import AmqpMessages, CeleryQueue, make_celery, messages_of
from tests.support.rabbitmq_server import RabbitServer, rabbitmq
from tests.support.service import SAMPLES, Service
from tests.support.waiting import wait_until
from tests.support.worker_process import PLAIN, worker_process

pytestmark = [pytest.mark.redis, pytest.mark.service, pytest.mark.slow, pytest.mark.timeout(600)]

SOON_S = 30.0


@pytest.fixture(scope="module")
def broker() -> Iterator[RabbitServer]:
    with rabbitmq() as server:
        yield server


@pytest.fixture
def service(settings: Settings, store: RedisStore, broker: RabbitServer) -> Service:
    hurried = {"broker_url": broker.url, "hint_s": 2.0, "sweep_s": 0.2}
    return Service(Settings(**(settings.model_dump(exclude_unset=True) | hurried)), store)


def submit(service: Service) -> str:
    return service.submit(SAMPLES / "short-1.flac", vad=VadOptions(enabled=False))


def test_a_job_is_done_and_redis_holds_no_message(service: Service, tmp_path: Path) -> None:
    with worker_process(service.settings, service.fleet, tmp_path / "worker.log", PLAIN):
        job = service.ended(submit(service))

    assert (job.status, job.attempt) == (Status.COMPLETED, 1)
    assert not service.store.client.keys("ananse-celery*")
    assert not service.store.client.keys("_kombu*")


def test_what_waits_is_counted_where_it_waits(
    service: Service, store: RedisStore, broker: RabbitServer
) -> None:
    with make_celery(broker.url) as celery:
        messages = messages_of(service.settings, celery, store)
        for queue in (PREPARE_QUEUE, DELIVER_QUEUE, DELIVER_QUEUE):
            CeleryQueue(celery).send(queue, Hint("job_1", PREPARE))

        wait_until(lambda: messages.waiting([PREPARE_QUEUE, DELIVER_QUEUE]) == 3, SOON_S)
        assert messages.waiting([DELIVER_QUEUE]) == 2

        with celery.connection_for_write() as connection:
            for queue in (PREPARE_QUEUE, DELIVER_QUEUE):
                connection.default_channel.queue_purge(queue)


def test_a_broker_that_dies_loses_hints_and_no_job(
    service: Service, broker: RabbitServer, tmp_path: Path
) -> None:
    with (
        worker_process(service.settings, service.fleet, tmp_path / "worker.log", (*PLAIN, "--pace", "1")),
        make_celery(broker.url, 1) as celery,
    ):
        held = submit(service)
        wait_until(lambda: service.jobs.get(held).status is Status.RUNNING)
        broker.kill()
        try:
            began = time.monotonic()
            job_id = submit(service)
            assert time.monotonic() - began < SOON_S
            with pytest.raises(StoreUnavailable):
                AmqpMessages(celery).waiting([PREPARE_QUEUE])
        finally:
            broker.start()

        for one in (held, job_id):
            job = service.ended(one)
            assert (job.status, job.attempt) == (Status.COMPLETED, 1)
