"""`python -m tests.chaos.plain_celery --redis URL`: Celery over Redis as its guide says, and nothing of ours.

Late ack, one message at a time: what a service has that trusts its broker. It is here to be seen losing.
"""

import argparse

from celery import Celery
from redis import Redis

from shared.task_queue import broker_url

QUEUE = "plain"
RAN = "ran"
"""The set of what was run, in the same Redis."""


def make_app(redis_url: str) -> Celery:
    """Both sides' app: the worker's, and that of whoever publishes."""
    app = Celery("plain", broker=broker_url(redis_url))
    app.conf.update(
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        worker_prefetch_multiplier=1,
        task_ignore_result=True,
        task_default_queue=QUEUE,
        broker_connection_retry_on_startup=True,
    )

    @app.task(name="plain.note")  # type: ignore[untyped-decorator]
    def note(name: str) -> None:
        with Redis.from_url(redis_url) as client:
            client.sadd(RAN, name)

    return app


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--redis", required=True)
    app = make_app(parser.parse_args().redis)
    app.worker_main(
        ["worker", "--pool=threads", "--concurrency=1", f"--queues={QUEUE}", "--loglevel=WARNING"]
    )


if __name__ == "__main__":
    main()
