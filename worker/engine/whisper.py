"""The Whisper runner: turns windows of many jobs into hypotheses, in slots, and owns the torch model.

Its parts: `loading`, `listening` (mel, language), `encoder`, `hearing` (on a card), `text_decoder` (the
network over slots), `rules` (the next token), `writing` (a pass over the rows), `decoding` (judgement,
temperatures), `looking` and `alignment` (word times), `wording` (text), `endings`.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial

import torch

from shared.errors import UnsupportedOption
from shared.log import get_logger
from shared.models import ModelSource, Shortcuts
from worker.engine import alignment, calibration, looking, probe
from worker.engine.alignment import Gaze
from worker.engine.decoders import build_decoder
from worker.engine.decoding import has_run_into_a_loop, is_silent, to_draft
from worker.engine.encoder import SoundStates, free_layers
from worker.engine.endings import Endings
from worker.engine.hearing import Hearing
from worker.engine.listening import Heard, begin_pass, heard
from worker.engine.loading import Loaded, load
from worker.engine.looking import Looking, Standing
from worker.engine.memory import give_back, memory_errors
from worker.engine.prompts import build_prompt, previous_text
from worker.engine.rules import Rules
from worker.engine.seats import Language, Seat
from worker.engine.step_graphs import StepGraphs
from worker.engine.tails import rest
from worker.engine.values import (
    SAMPLE_RATE,
    DecodingOptions,
    Ended,
    Hypothesis,
    ModelUnavailable,
    Pcm,
    Utterance,
    Window,
)
from worker.engine.wording import Wording
from worker.engine.writing import Mark, Writer

SHORT_PROMPT = 8
"""A prompt of no more tokens is read in the steps of the other rows, where it costs next to nothing; a longer
one in a pass of its own."""

LOOP_LOOK_STEPS = 32

ENCODED_AT_ONCE = 8
"""On a card."""

_log = get_logger()


def load_runner(
    source: ModelSource,
    *,
    device: str,
    dtype: str,
    threads: int,
    hf_endpoint: str | None = None,
    batch_size: int = 8,
) -> "WhisperRunner":
    """`device` and `dtype` may be "auto"; `threads` 0 takes all cores this process may use; `batch_size` is
    the number of slots. Raises ModelUnavailable with a sentence for the operator, and MemoryError when there
    is no room."""
    with memory_errors(f"model {source.name}"):
        loaded = load(source, device=device, dtype=dtype, threads=threads, hf_endpoint=hf_endpoint)
        runner = _in_slots(loaded, batch_size)
    try:
        runner.warm_up()
        runner.take_shortcuts(calibration.recording())
        runner.let_go()
    except (RuntimeError, ValueError, TypeError, LookupError, ArithmeticError) as error:
        raise ModelUnavailable(
            f"Model {source.source} was loaded but cannot transcribe ({type(error).__name__}): "
            "fetch the checkpoint again, or try another device or dtype."
        ) from error
    return runner


def _in_slots(loaded: Loaded, slots: int) -> "WhisperRunner":
    """With as many as there is room for, one at least. Raises MemoryError."""
    while slots > 1:
        try:
            with memory_errors("the slots"):
                return WhisperRunner(loaded, slots)
        except MemoryError:
            _log.warning("slots_out_of_memory", slots=slots // 2)
        slots //= 2
    return WhisperRunner(loaded, slots)


class WhisperRunner:
    """Implements the Runner port. Called from one thread only. `as_on_card` is how a card is kept busy: steps
    in few shapes, of all rows, whose choices are read one step late. A processor would only have more to do;
    the tests let it."""

    def __init__(self, loaded: Loaded, slots: int = 1, *, as_on_card: bool | None = None) -> None:
        self._loaded = loaded
        device = loaded.model.device
        self._tokens = loaded.tokens
        self._timestamps = loaded.card.abilities.segment_timestamps
        self._wording = Wording(loaded.tokenizer, loaded.tokens)
        with torch.inference_mode():
            self._decoder = build_decoder(loaded.model, slots, loaded.kept)
            self._rules = Rules(loaded.tokens, slots, timestamps=self._timestamps, device=device)
        self._as_on_card = not self._is_on_cpu if as_on_card is None else as_on_card
        self._graphs = StepGraphs(self._decoder, device)
        steps = self._graphs if self._as_on_card else self._decoder
        self._writer = Writer(steps, self._rules, device, is_late=self._as_on_card)
        # A card has Transformers' encoder, in `Hearing`.
        self._encoder = loaded.whole if self._is_on_cpu else None
        self._hearing = Hearing(loaded.model, loaded.mel)
        self._coming: deque[Seat] = deque()
        self._rows: list[Seat | None] = []
        self._endings = Endings(self._wording)
        at_once = 1 if self._is_on_cpu else looking.ON_A_CARD
        self._looking = Looking(self._decoder, loaded.tokens, loaded.heads, at_once=at_once)
        details = {"slots": str(slots), "slot_bytes": str(self._decoder.slot_bytes)}
        details |= {"encoder": str(Shortcuts()), "decoder": str(self._decoder)}
        self.card = replace(loaded.card, details=loaded.card.details | details)

    def seat(self, number: int, window: Window) -> None:
        language = window.options.language
        known = self.card.abilities.languages
        if language and known and language not in known:
            raise UnsupportedOption(f"The model does not know the language {language!r}.")
        self._coming.append(Seat(number, window))

    def unseat(self, number: int) -> None:
        self._coming = deque(seat for seat in self._coming if seat.number != number)
        self._rows = [None if seat and seat.number == number else seat for seat in self._rows]
        self._endings.drop(number)

    def resize(self, slots: int) -> None:
        with torch.inference_mode(), memory_errors("the slots"):
            self._close_gaps()
            # There may be no slots for them any more.
            self._hearing.forget()
            self._graphs.forget()
            self._decoder.resize(slots, kept=len(self._rows))
            self._rules.resize(slots)
            self._graphs.resized()

    def step(self, urgent: Collection[int] = ()) -> list[Ended]:
        """Fills one slot, or goes a layer towards it, or writes one token in all that are filled; of the
        `urgent` first, and alone."""
        hurried = {seat.number for seat in (*self._coming, *self._rows) if seat and seat.number in urgent}
        coming = [seat for seat in self._coming if not hurried or seat.number in hurried]
        with torch.inference_mode(), memory_errors("the pass"):
            if coming and self._free and not self._is_heard_meanwhile:
                self._hear(coming[: self._heard_at_once])
            elif any(self._rows):
                self._write(hurried)
            self._look()
        return self._endings.collect(wait=not self._coming and not any(self._rows))

    def run(self, windows: Sequence[Window]) -> list[Hypothesis]:
        """All of them, for whoever has nothing else to do meanwhile; in their order."""
        found: dict[int, Hypothesis] = {}
        try:
            for number, window in enumerate(windows):
                self.seat(number, window)
            while len(found) < len(windows):
                found |= {ended.number: ended.hypothesis for ended in self.step()}
        finally:
            for number in range(len(windows)):
                self.unseat(number)
        return [found[number] for number in range(len(windows))]

    def warm_up(self) -> None:
        """The first pass allocates, compiles and picks kernels; better now than on somebody's job. Raises
        MemoryError when not even one window fits, and ArithmeticError when the model gives no numbers."""
        began = time.perf_counter()
        options = DecodingOptions(word_timestamps=True, temperatures=(0.0,))
        pcm = probe.speechlike()
        window = Window(0, 0.0, pcm, len(pcm) / SAMPLE_RATE, options)
        found = self.run([window])
        # Tokens without a probability are left out of the mean, so that alone would not show it.
        if not all(math.isfinite(one.avg_logprob + one.no_speech_prob) for one in found):
            raise ArithmeticError("probabilities are not numbers")
        # A card has kernels for the size of the whole. What does not fit now is halved when it matters.
        with suppress(MemoryError):
            self._graphs.prove(lambda: [one.tokens for one in self.run([window] * self._decoder.slots)])
        alignment.warm_up()
        seconds = round(time.perf_counter() - began, 3)
        self.card = replace(self.card, details=self.card.details | {"warm_up_s": str(seconds)})
        _log.info("model_warmed", model=self.card.name, seconds=seconds)

    def take_shortcuts(self, recording: Pcm | None) -> None:
        """If the model writes the same with them of this recording. What was whole leaves memory then."""
        short = self._loaded.short
        if short is None:
            return
        refusal = self._refusal(recording)
        if refusal:
            self._encoder = self._loaded.whole
            self._loaded = replace(self._loaded, short=None)
            _log.warning("shortcuts_refused", model=self.card.name, reason=refusal)
            return
        if short.shortcuts.int8:
            self._loaded = replace(self._loaded, whole=None)
            free_layers(self._loaded.model)
        details = {"encoder": str(short.shortcuts)}
        if short.shortcuts.margin_s is not None:
            details["silence_bytes"] = str(short.silence_bytes(self._decoder.sound_bytes))
        self.card = replace(self.card, details=self.card.details | details)
        _log.info("shortcuts_taken", model=self.card.name, encoder=str(short.shortcuts))

    def use_shortcuts(self) -> None:
        """Those that the model was loaded with, if any, whatever they do to the text."""
        self._encoder = self._loaded.short or self._loaded.whole

    def let_go(self) -> None:
        """What the decoder keeps in another format than the model leaves memory."""
        self._decoder.let_go(self._loaded.model)

    def _refusal(self, recording: Pcm | None) -> str:
        if recording is None:
            return "there is no recording to try them on"
        options = DecodingOptions(temperatures=(0.0,))
        window = Window(0, 0.0, recording, len(recording) / SAMPLE_RATE, options)
        [whole] = self.run([window])
        self.use_shortcuts()
        [quick] = self.run([window])
        return "" if quick.text == whole.text else "the text is another"

    def close(self) -> None:
        self._endings.close()
        del self._loaded, self._decoder, self._looking, self._rules, self._writer, self._graphs
        del self._encoder, self._hearing
        give_back()

    @property
    def _free(self) -> int:
        return self._decoder.slots - sum(seat is not None for seat in self._rows)

    @property
    def _heard_at_once(self) -> int:
        """On a CPU two windows take twice the time of one, so that nobody gains by waiting for the second."""
        return 1 if self._is_on_cpu else min(ENCODED_AT_ONCE, self._free)

    @property
    def _is_on_cpu(self) -> bool:
        return bool(self._loaded.model.device.type == "cpu")

    @property
    def _is_heard_meanwhile(self) -> bool:
        """Whether a card works on windows beside steps that are to be made."""
        return self._hearing.is_underway and any(self._rows)

    def _hear(self, seats: Sequence[Seat]) -> None:
        """Encodes their windows into free slots, or goes on with that: by a layer, or by what a card has done
        meanwhile."""
        began = time.perf_counter()
        placed = self._placed(seats)
        numbers = {seat.number for seat, _ in placed}
        self._coming = deque(seat for seat in self._coming if seat.number not in numbers)
        for seat, place in placed:
            row = self._rows.index(None) if None in self._rows else len(self._rows)
            place(row)
            self._rows[row : row + 1] = [seat]
            seat.listen(self._tokens.sot)
            self._rules.begin(row, max_tokens=SHORT_PROMPT, temperature=0.0, seed=0)
        for seat in seats:
            seat.spent_s += (time.perf_counter() - began) / len(seats)

    def _placed(self, seats: Sequence[Seat]) -> list[tuple[Seat, Callable[[int], None]]]:
        """What puts windows into a row; of none yet where a pass is on its way, so that steps are made, or
        whoever came meanwhile goes first."""
        if self._encoder is None:
            return self._placed_by_card(seats)
        [seat] = seats
        seat.hearing = seat.hearing or begin_pass(self._encoder, self._loaded.mel, seat.window.pcm)
        try:
            next(seat.hearing)
        except StopIteration as end:
            seat.hearing = None
            return [(seat, self._placed_beside(end.value))]
        return []

    def _placed_by_card(self, seats: Sequence[Seat]) -> list[tuple[Seat, Callable[[int], None]]]:
        if not self._hearing.has_begun:
            self._hearing.begin(seats)
        if self._is_heard_meanwhile:
            return []
        wanted = set(self._coming)
        return [
            (seat, partial(self._decoder.place, states=states))
            for seat, states in self._hearing.collect()
            if seat in wanted
        ]

    def _placed_beside(self, window: SoundStates) -> Callable[[int], None]:
        silence = window.silence
        if silence is None:
            return partial(self._decoder.place, states=window.states)
        silence.sound = silence.sound or self._decoder.sound(silence.states[0])
        return partial(self._decoder.place, states=window.states, behind=silence.sound)

    def _write(self, hurried: Collection[int]) -> None:
        """One more token in every row; or in as few as hold those that are in a hurry. On a card a row more
        takes no longer."""
        began = time.perf_counter()
        seats = self._close_gaps()
        wanted = [row for row, seat in enumerate(seats) if not self._as_on_card and seat.number in hurried]
        first = wanted[0] if wanted else 0
        seats = seats[first : wanted[-1] + 1] if wanted else seats
        marks = self._writer.write(seats, first)
        share_s = (time.perf_counter() - began) / len(seats)
        for seat in seats:
            seat.spent_s += share_s
        for row, writing in enumerate(self._rows):
            if writing in marks:
                self._advance(row, writing, marks[writing])

    def _close_gaps(self) -> list[Seat]:
        """Rows in use come first: a pass costs as much as there are, not as there could be."""
        while None in self._rows:
            gap = self._rows.index(None)
            last = self._rows.pop()
            if last is not None:
                self._decoder.move(len(self._rows), gap)
                self._rules.move(len(self._rows), gap)
                self._rows[gap] = last
        return [seat for seat in self._rows if seat is not None]

    def _advance(self, row: int, seat: Seat, mark: Mark) -> None:
        if seat.stands:
            return
        if mark.logits is not None:
            self._prompt(row, seat, heard(mark.logits, self._tokens))
            return
        if seat.is_writing:
            seat.note(mark.choice, mark.logprob)
            if mark.choice == self._tokens.eos or self._loops(seat):
                self._judge(row, seat)
                return
        seat.go_on(mark.choice)

    def _prompt(self, row: int, seat: Seat, ear: Heard) -> None:
        """The first step is done: what stands before the text is known now."""
        options = seat.window.options
        seat.attempts.no_speech_prob = ear.no_speech_prob
        seat.language = self._language(options, ear)
        previous = previous_text(
            options.prompt, self._tokens, self._loaded.tokenizer, self._decoder.positions
        )
        prompt = build_prompt(
            self._tokens, seat.language.token, options.task, timestamps=self._timestamps, previous=previous
        )
        if len(prompt) > SHORT_PROMPT:
            self._decoder.read(row, prompt[:-1])
            seat.read_on(prompt, known=len(prompt) - 1)
        else:
            # The start token is where the prompt begins, unless other text does.
            seat.read_on(prompt, known=0 if previous else 1)

    def _loops(self, seat: Seat) -> bool:
        """Whether it may as well stop here, because there is a better way to go on."""
        if seat.attempts.is_last or len(seat.tokens) % LOOP_LOOK_STEPS:
            return False
        tokens = [token for token in seat.tokens if self._tokens.is_text(token)]
        return has_run_into_a_loop(tokens, self._wording.text(tokens))

    def _judge(self, row: int, seat: Seat) -> None:
        """An attempt is over: another follows in the same slot, or this is what the window says."""
        written = seat.written
        text = self._wording.text(written.tokens)
        draft = to_draft(written, self._tokens.eos, text, seat.attempts.temperature)
        if seat.attempts.goes_on(draft):
            seat.start_again()
            return
        best = seat.attempts.best or draft
        spoken: tuple[Utterance, ...] = ()
        if not is_silent(best, seat.attempts.no_speech_prob):
            spoken = self._wording.utterances(best, seat.window.duration_s)
        self._conclude(row, seat, seat.hypothesis(best, spoken))

    def _conclude(self, row: int, seat: Seat, hypothesis: Hypothesis) -> None:
        """Frees the slot, or lets the seat wait in it until its words are looked for."""
        if not seat.window.options.word_timestamps or not hypothesis.utterances:
            self._leave(row, seat, hypothesis)
            return
        seat.stand(hypothesis)

    def _leave(self, row: int, seat: Seat, hypothesis: Hypothesis, gaze: Gaze | None = None) -> None:
        """Frees the slot. The rest of a window that the model left unfinished is heard next."""
        self._rows[row] = None
        seat.parts.append((seat.window, hypothesis, gaze))
        tail = rest(seat.window, hypothesis, self._tokens.timestamps)
        if tail is None:
            self._endings.add(seat)
        else:
            seat.window = tail
            self._coming.appendleft(seat)

    def _look(self) -> None:
        """For the words of those whose text stands; or not yet, while there is a free slot, so that nobody
        waits for theirs, and others are here who could join them."""
        standing = [
            Standing(row, seat, seat.stands) for row, seat in enumerate(self._rows) if seat and seat.stands
        ]
        seated = sum(seat is not None for seat in self._rows) + len(self._coming)
        may_wait = len(standing) < seated < self._decoder.slots - len(self._endings)
        for some in self._looking.due(standing, may_wait=may_wait):
            for one, gaze in zip(some, self._looking.look(some), strict=True):
                self._leave(one.row, one.seat, one.hypothesis, gaze)

    def _language(self, options: DecodingOptions, ear: Heard) -> Language:
        """The caller's, the checkpoint's own, the only one, or the likeliest of those the model is for."""
        abilities = self.card.abilities
        code, probability = options.language or self._tokens.fixed_language, None
        if code is None and abilities.language_detection:
            known = {code: ear.languages[code] for code in abilities.languages if code in ear.languages}
            code = max(known, key=lambda candidate: known[candidate])
            probability = round(known[code] / sum(known.values()), 4)
        code = code or next(iter(abilities.languages), None)
        if code in ear.languages or not ear.languages:
            return Language(code, probability, token=code)
        likeliest = max(ear.languages, key=lambda candidate: ear.languages[candidate])
        return Language(code, probability, token=likeliest)
