"""A task queue that only writes down what it was asked to send."""

from shared.ledger import Hint


class RecordingQueue:
    """TaskQueue for tests; `sent` holds (queue, hint) in order."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, Hint]] = []

    def send(self, queue: str, hint: Hint) -> None:
        self.sent.append((queue, hint))
