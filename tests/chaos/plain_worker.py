"""`python -m tests.chaos.plain_worker [--pace S] [--tally FILE]`: a real worker, but for its model, which
spells what it hears.

Celery, ledger, leases, decoder children, sweeper: all as in the service. The model is a pure function of the
samples, so whoever knows a recording knows its only right transcript; and it starts in half a second.
"""

import argparse
import hashlib
import os
import signal
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from shared import log
from shared.models import Abilities, ModelCard, ModelSource
from shared.settings import Settings, load
from tests.fakes import InPasses
from worker import app
from worker.engine.values import Hypothesis, Pcm, Utterance, Window

WORDS = 4
LETTERS = 6

KILLER = 12_345
"""A window that begins with this sample, twice, kills the process that runs it."""


def spell(pcm: Pcm) -> str:
    """A few words that only these samples have."""
    digest = hashlib.sha256(np.ascontiguousarray(pcm, "<i2").tobytes()).hexdigest()
    return " ".join(digest[at * LETTERS : (at + 1) * LETTERS] for at in range(WORDS))


class SpellingRunner(InPasses):
    """Takes `pace` seconds for every second of sound. Each window it is given is written to `tally` before it
    is run, for what a killed worker had begun; all workers of a test may write to the same file."""

    def __init__(self, name: str, pace: float, tally: Path) -> None:
        super().__init__()
        self._pace = pace
        self._never = threading.Event()
        self._tally = os.open(tally, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self.card = ModelCard(
            name=name,
            source="tests",
            revision="spelling-1",
            device="cpu",
            dtype="float32",
            parameters=0,
            abilities=Abilities(("en",), ("transcribe", "translate"), True, False, False, True, window_s=5.0),
        )

    def run(self, batch: Sequence[Window]) -> list[Hypothesis]:
        os.write(self._tally, "".join(f"{spell(window.pcm)}\n" for window in batch).encode())
        if any(window.pcm[:2].tolist() == [KILLER, KILLER] for window in batch):
            os.kill(os.getpid(), signal.SIGKILL)
        # time.sleep() fails where libfaketime has set the process to another time.
        self._never.wait(self._pace * sum(window.duration_s for window in batch))
        return [_hypothesis(window) for window in batch]

    def close(self) -> None:
        os.close(self._tally)


def _hypothesis(window: Window) -> Hypothesis:
    text = spell(window.pcm)
    utterance = Utterance(0.0, window.duration_s, text, (), -0.1)
    return Hypothesis(
        (utterance,),
        "en",
        1.0,
        avg_logprob=-0.1,
        compression_ratio=1.0,
        no_speech_prob=0.0,
        temperature=0.0,
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pace", type=float, default=0.0)
    parser.add_argument("--tally", type=Path, default=Path(os.devnull))
    given = parser.parse_args()

    def load_model(source: ModelSource, settings: Settings) -> SpellingRunner:
        return SpellingRunner(source.name, given.pace, given.tally)

    settings = load()
    log.configure(settings.log_level)
    log.own_process()
    worker = app.build(settings, load_model)
    try:
        app.run(worker)
    finally:
        worker.close()


if __name__ == "__main__":
    main()
