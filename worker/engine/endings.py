"""Windows that are out of the model: their words are made in a thread, and their parts put together."""

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

from worker.engine import alignment
from worker.engine.alignment import Gaze
from worker.engine.seats import Seat
from worker.engine.tails import joined
from worker.engine.values import Ended, Hypothesis
from worker.engine.wording import Wording


class Endings:
    def __init__(self, wording: Wording) -> None:
        self._wording = wording
        self._ended: list[Ended] = []
        self._in_thread: list[tuple[Seat, Future[Hypothesis]]] = []
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="words")

    def __len__(self) -> int:
        """Windows whose words are being made."""
        return len(self._in_thread)

    def add(self, seat: Seat) -> None:
        if any(gaze for _, _, gaze in seat.parts):
            self._in_thread.append((seat, self._thread.submit(self._whole, seat)))
        else:
            self._ended.append(Ended(seat.number, self._whole(seat)))

    def drop(self, number: int) -> None:
        self._in_thread = [pair for pair in self._in_thread if pair[0].number != number]
        self._ended = [ended for ended in self._ended if ended.number != number]

    def collect(self, *, wait: bool) -> list[Ended]:
        """Those that are done by now; with `wait` one at least, if there is any."""
        in_thread, self._in_thread = self._in_thread, []
        must_wait = wait and not self._ended
        for number, (seat, future) in enumerate(in_thread):
            if future.done() or (must_wait and number == 0):
                self._ended.append(Ended(seat.number, future.result()))
            else:
                self._in_thread.append((seat, future))
        ended, self._ended = self._ended, []
        return ended

    def close(self) -> None:
        self._thread.shutdown()

    def _whole(self, seat: Seat) -> Hypothesis:
        """All parts as one, with their words."""
        found = joined([(window, self._timed(hypothesis, gaze)) for window, hypothesis, gaze in seat.parts])
        return replace(found, inference_s=seat.spent_s)

    def _timed(self, hypothesis: Hypothesis, gaze: Gaze | None) -> Hypothesis:
        if gaze is None:
            return hypothesis
        starts = alignment.token_starts(gaze)
        spoken = self._wording.with_words(hypothesis.utterances, starts, hypothesis.language)
        return replace(hypothesis, utterances=spoken)
