"""Windows of one job through the model, and the language they agree on."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from dataclasses import replace

from shared.transcript import WindowResult
from worker.engine.engine import Engine
from worker.engine.values import Hypothesis, Window
from worker.leases import Held

_LOOK_S = 0.5
_VOTERS = 3


def votes_of(results: Iterable[WindowResult]) -> defaultdict[str, float]:
    """Languages found so far, by confidence and length."""
    votes: defaultdict[str, float] = defaultdict(float)
    for result in results:
        if result.language is not None:
            votes[result.language.code] += (result.language.confidence or 0.0) * (result.end - result.start)
    return votes


def recognized(
    engine: Engine, job_id: str, windows: Sequence[Window], votes: defaultdict[str, float], held: Held
) -> Iterator[tuple[Window, Hypothesis]]:
    """Windows with what the model made of them, as they get done.

    Where the language is to be found out, the first few windows vote and the rest of the part follows:
    single windows guess wrong, and a transcript that changes its language in between helps nobody.
    """
    is_open = bool(windows) and windows[0].options.language is None
    voters, rest = (windows[:_VOTERS], windows[_VOTERS:]) if is_open and not votes else ((), windows)
    for window, hypothesis in _settle(engine, job_id, voters, held):
        if hypothesis.language is not None:
            votes[hypothesis.language] += (hypothesis.language_probability or 0.0) * window.duration_s
        yield window, hypothesis
    if is_open and votes:
        language = max(votes, key=lambda code: votes[code])
        rest = [replace(window, options=replace(window.options, language=language)) for window in rest]
    yield from _settle(engine, job_id, rest, held)


def _settle(
    engine: Engine, job_id: str, windows: Sequence[Window], held: Held
) -> Iterator[tuple[Window, Hypothesis]]:
    """Hands all windows to the engine; leaves none behind, whatever ends the loop."""
    pending: dict[Future[Hypothesis], Window] = {engine.submit(job_id, window): window for window in windows}
    try:
        while pending:
            held.check()
            done, _ = wait(pending, timeout=_LOOK_S, return_when=FIRST_COMPLETED)
            # Of those that ended together; who follows the job's events reads them in the file's order.
            for future in sorted(done, key=lambda one: pending[one].index):
                window = pending.pop(future)
                try:
                    yield window, future.result()
                except CancelledError:
                    held.check()
                    raise
    finally:
        for future in pending:
            future.cancel()
