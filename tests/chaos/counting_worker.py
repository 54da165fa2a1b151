"""`python -m tests.chaos.counting_worker --tally PATH`: the plain worker, with a line in a file for each
window its model is given, written before it is run: what a killed worker had begun is known too.
"""

import argparse
import os
import signal
import threading
from collections.abc import Sequence
from pathlib import Path

from shared import log
from shared.models import ModelSource
from shared.settings import Settings, load
from tests.chaos.plain_worker import KILLER, SpellingRunner, _hypothesis, spell
from worker import app
from worker.engine.values import Hypothesis, Window


class CountingRunner(SpellingRunner):
    """All workers of a test append to the same file, a batch at a time."""

    def __init__(self, name: str, pace: float, tally: Path) -> None:
        super().__init__(name, pace)
        self._never = threading.Event()
        self._tally = os.open(tally, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def run(self, batch: Sequence[Window]) -> list[Hypothesis]:
        os.write(self._tally, "".join(f"{spell(window.pcm)}\n" for window in batch).encode())
        if any(window.pcm[:2].tolist() == [KILLER, KILLER] for window in batch):
            os.kill(os.getpid(), signal.SIGKILL)
        # time.sleep() fails where libfaketime has set the process to another time.
        self._never.wait(self._pace * sum(window.duration_s for window in batch))
        return [_hypothesis(window) for window in batch]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tally", type=Path, required=True)
    parser.add_argument("--pace", type=float, default=0.0)
    given = parser.parse_args()
    settings = load()
    log.configure(settings.log_level)

    def load_model(source: ModelSource, _: Settings) -> CountingRunner:
        return CountingRunner(source.name, given.pace, given.tally)

    worker = app.build(settings, load_model)
    try:
        app.run(worker)
    finally:
        worker.close()


if __name__ == "__main__":
    main()
