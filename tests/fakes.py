"""Stand-ins for the outer parts, driven by the test that made them."""

import threading
from collections.abc import Callable, Collection, Sequence

from worker.engine.values import Abilities, Ended, Hypothesis, ModelCard, Utterance, Window

Script = Callable[[Sequence[Window]], None]


def hypothesis(text: str = "hello", *, end: float = 1.0, **fields: float) -> Hypothesis:
    """One confident utterance; `fields` replace figures of the hypothesis."""
    figures = {"avg_logprob": -0.2, "compression_ratio": 1.2, "no_speech_prob": 0.01, "temperature": 0.0}
    figures |= fields
    utterance = Utterance(0.0, end, text, (), figures["avg_logprob"])
    return Hypothesis((utterance,), "en", 0.9, **figures)


class InPasses:
    """A runner whose `run` does all that are seated in one step."""

    def __init__(self) -> None:
        self.seated: dict[int, Window] = {}
        self.slots: list[int] = []

    def seat(self, number: int, window: Window) -> None:
        self.seated[number] = window

    def unseat(self, number: int) -> None:
        self.seated.pop(number, None)

    def resize(self, slots: int) -> None:
        self.slots.append(slots)

    def step(self, urgent: Collection[int] = ()) -> list[Ended]:
        found = self.run(list(self.seated.values()))
        ended = [Ended(number, one) for number, one in zip(self.seated, found, strict=True)]
        self.seated.clear()
        return ended

    def run(self, batch: Sequence[Window]) -> list[Hypothesis]:
        raise NotImplementedError


class ScriptedRunner(InPasses):
    """Hears "window <index>" in every window. `script` sees each batch first and may raise.

    With `is_held`, each batch waits for `let_go` before it ends; `entered` is set once one is inside.
    """

    def __init__(self, script: Script | None = None, *, is_held: bool = False) -> None:
        super().__init__()
        self.card = ModelCard(
            name="scripted",
            source="tests",
            revision=None,
            device="cpu",
            dtype="float32",
            parameters=0,
            abilities=Abilities(("en",), ("transcribe",), True, True, True, True),
        )
        self.batches: list[list[Window]] = []
        self.threads: set[int] = set()
        self.is_closed = False
        self.entered = threading.Event()
        self.let_go = threading.Event()
        self._script = script
        if not is_held:
            self.let_go.set()

    def run(self, batch: Sequence[Window]) -> list[Hypothesis]:
        self.batches.append(list(batch))
        self.threads.add(threading.get_ident())
        self.entered.set()
        if not self.let_go.wait(timeout=10):
            raise AssertionError("the test never let the batch go")
        if self._script is not None:
            self._script(batch)
        return [hypothesis(f"window {window.index}", end=window.duration_s) for window in batch]

    def close(self) -> None:
        self.is_closed = True

    @property
    def sizes(self) -> list[int]:
        return [len(batch) for batch in self.batches]


class SteppedClock:
    """Seconds that move only when the test moves them."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds
