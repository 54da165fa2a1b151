"""Several recordings at once, in threads that Ctrl-C does not wait for."""

import queue
import threading
from collections.abc import Iterator, Sequence

from ananse_client.cli.inputs import Recording
from ananse_client.cli.work import Desk, Outcome


def each(desk: Desk, recordings: Sequence[Recording], at_once: int) -> Iterator[Outcome]:
    """Outcomes in the order of the recordings, as soon as that allows. Raises what a thread dies of."""
    todo: queue.SimpleQueue[int] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[int, Outcome | BaseException]] = queue.SimpleQueue()
    for number in range(len(recordings)):
        todo.put(number)
    for _ in range(min(max(at_once, 1), len(recordings))):
        threading.Thread(target=_work, args=(desk, recordings, todo, done), daemon=True).start()
    early: dict[int, Outcome] = {}
    for number in range(len(recordings)):
        while number not in early:
            came, outcome = done.get()
            if isinstance(outcome, BaseException):
                raise outcome
            early[came] = outcome
        yield early.pop(number)


def _work(
    desk: Desk,
    recordings: Sequence[Recording],
    todo: "queue.SimpleQueue[int]",
    done: "queue.SimpleQueue[tuple[int, Outcome | BaseException]]",
) -> None:
    while True:
        try:
            number = todo.get_nowait()
        except queue.Empty:
            return
        try:
            done.put((number, desk.do(recordings[number])))
        except BaseException as error:
            done.put((number, error))
