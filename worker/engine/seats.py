"""A window on its way through the model: where it stands, what it writes next, what it has had so far."""

import zlib
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from worker.engine.alignment import Gaze
from worker.engine.decoding import Attempts, Draft, Written
from worker.engine.encoder import Pass
from worker.engine.values import Hypothesis, Utterance, Window


@dataclass(frozen=True, slots=True)
class Language:
    """`probability` is None where the language was not detected. `token` is the language whose token stands
    in the prompt: a fine-tune for a language without one was trained behind another's."""

    code: str | None
    probability: float | None
    token: str | None


@dataclass(slots=True, eq=False)
class Seat:
    """`window` is what is being heard: the one that was handed in, or the rest of it. `token` is read next,
    at `position`; `forced` follow it whatever the model would say, and none does once it writes by itself.
    `hearing` is a pass of the encoder that has stopped on its way. `course` is another whenever it goes on
    elsewhere than behind its last token: a step that was begun on an older one counts no more.

    `stands` is what `window` says, once that is settled and only its words are still to be looked for: until
    then its sound stays where it is.
    """

    number: int
    window: Window
    hearing: Pass | None = None
    parts: list[tuple[Window, Hypothesis, Gaze | None]] = field(default_factory=list)
    spent_s: float = 0.0
    seed: int = 0
    token: int = 0
    position: int = 0
    course: int = 0
    forced: deque[int] = field(default_factory=deque)
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    prompt: tuple[int, ...] = ()
    language: Language = Language(None, None, None)
    attempts: Attempts = field(default_factory=lambda: Attempts((0.0,)))
    stands: Hypothesis | None = None

    @property
    def has_listened(self) -> bool:
        """Whether the first step is behind it, which tells language and silence."""
        return bool(self.prompt)

    @property
    def is_writing(self) -> bool:
        return self.has_listened and not self.forced

    @property
    def written(self) -> Written:
        """In this attempt."""
        return Written(tuple(self.tokens), tuple(self.logprobs))

    def listen(self, start: int) -> None:
        """To `window`, from the start token."""
        # The seed is the sound's own, so a retry draws the same text in whatever company.
        self.seed = zlib.crc32(self.window.pcm.tobytes())
        self.token, self.position, self.prompt = start, 0, ()
        self.forced.clear()
        self.stands = None
        self._turn()
        self.attempts = Attempts(self.window.options.temperatures)

    def read_on(self, prompt: Sequence[int], known: int) -> None:
        """`prompt` is what stands before the text; the model has read `known` of its tokens."""
        self.prompt = tuple(prompt)
        self.position = min(known, len(prompt) - 1)
        self.token, *rest = prompt[self.position :]
        self.forced = deque(rest)
        self._turn()

    def note(self, choice: int, logprob: float) -> None:
        self.tokens.append(choice)
        self.logprobs.append(logprob)

    def go_on(self, choice: int) -> None:
        """To the next token: the prompt's, or else `choice`."""
        self.position += 1
        self.token = self.forced.popleft() if self.forced else choice

    def start_again(self) -> None:
        """At the end of the prompt."""
        self.position = len(self.prompt) - 1
        self.token = self.prompt[-1]
        self._turn()

    def stand(self, hypothesis: Hypothesis) -> None:
        """Steps go over the row until its words are looked for; what they choose is nobody's."""
        self.stands = hypothesis
        self._turn()

    def hypothesis(self, draft: Draft, spoken: tuple[Utterance, ...]) -> Hypothesis:
        """Of `window`, from the draft that stands."""
        return Hypothesis(
            utterances=spoken,
            language=self.language.code,
            language_probability=self.language.probability,
            avg_logprob=draft.avg_logprob,
            compression_ratio=draft.compression_ratio,
            no_speech_prob=self.attempts.no_speech_prob,
            temperature=draft.temperature,
            tokens=draft.tokens,
        )

    def _turn(self) -> None:
        self.course += 1
        self.tokens.clear()
        self.logprobs.clear()
