"""Whether messages are fetched: a drained worker lives on and leaves them to others."""

from collections.abc import Callable
from typing import Any


class Intake:
    """Open until shut. A message whose fetch was under way goes back to its queue."""

    def __init__(self) -> None:
        self._consumer: Any = None
        self._queues: tuple[str, ...] = ()

    def attach(self, consumer: Any) -> None:
        """Celery's consumer; it fetches from the queues that it has now."""
        self._consumer = consumer
        self._queues = tuple(consumer.app.amqp.queues.consume_from)

    def shut(self) -> None:
        # As Celery's remote control does it. To say that no thread is free (`can_consume`) will not do: the
        # fetch that is under way still takes a message from Redis, and it then stays in the socket.
        self._in_its_thread(self._cancel)

    def open(self) -> None:
        self._in_its_thread(self._consume)

    def _cancel(self) -> None:
        for queue in self._queues:
            self._consumer.cancel_task_queue(queue)

    def _consume(self) -> None:
        for queue in self._queues:
            self._consumer.add_task_queue(queue)

    def _in_its_thread(self, act: Callable[[], None]) -> None:
        """Soon; while the connection is broken, when there is one again."""
        if self._consumer is not None:
            self._consumer.hub.call_soon(act)
