"""Hints that an operator sends."""

from shared.ledger import Hint
from shared.task_queue import CeleryQueue, make_celery


class Twice:
    """TaskQueue that sends every hint twice: a worker that stands still may have asked for a message before
    it did, and is given the first. The second does no harm."""

    def __init__(self, redis_url: str) -> None:
        self._tasks = CeleryQueue(make_celery(redis_url))

    def send(self, queue: str, hint: Hint) -> None:
        self._tasks.send(queue, hint)
        self._tasks.send(queue, hint)
