"""The Whisper runner: turns windows of many jobs into hypotheses, batch by batch, and owns the torch model.

Its parts: `loading`, `listening` (mel, encoder, language), `decoding` (tokens), `alignment` (word times).
"""

import math
import time
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from shared.errors import UnsupportedOption
from shared.log import get_logger
from shared.models import ModelSource
from worker.engine import alignment, probe
from worker.engine.decoding import Draft, Row, decode, decode_with_fallback, is_silent, max_tokens
from worker.engine.listening import Encoded, Heard, encode, listen
from worker.engine.loading import Loaded, load
from worker.engine.memory import give_back, memory_errors
from worker.engine.prompts import build_prompt, previous_text
from worker.engine.tails import with_tails
from worker.engine.utterances import Stretch, split_at_timestamps, split_words
from worker.engine.values import (
    SAMPLE_RATE,
    DecodingOptions,
    Hypothesis,
    ModelUnavailable,
    Utterance,
    Window,
)

_log = get_logger()


def load_runner(
    source: ModelSource,
    *,
    device: str,
    dtype: str,
    threads: int,
    hf_endpoint: str | None = None,
    batch_size: int = 1,
) -> "WhisperRunner":
    """`device` and `dtype` may be "auto"; `threads` 0 takes all cores this process may use; `batch_size` is
    the largest batch to be warm for. Raises ModelUnavailable with a sentence for the operator, and
    MemoryError when there is no room."""
    with memory_errors(f"model {source.name}"):
        loaded = load(source, device=device, dtype=dtype, threads=threads, hf_endpoint=hf_endpoint)
    runner = WhisperRunner(loaded)
    try:
        runner.warm_up(batch_size)
    except (RuntimeError, ValueError, TypeError, LookupError, ArithmeticError) as error:
        raise ModelUnavailable(
            f"Model {source.source} was loaded but cannot transcribe ({type(error).__name__}): "
            "fetch the checkpoint again, or try another device or dtype."
        ) from error
    return runner


@dataclass(frozen=True, slots=True)
class _Language:
    """`probability` is None where the language was not detected. `token` is the language whose token stands
    in the prompt: a fine-tune for a language without one was trained behind another's."""

    code: str | None
    probability: float | None
    token: str | None


class WhisperRunner:
    """Implements the Runner port. Called from one thread only."""

    def __init__(self, loaded: Loaded) -> None:
        self.card = loaded.card
        self._loaded = loaded
        self._tokens = loaded.tokens
        self._timestamps = loaded.card.abilities.segment_timestamps
        self._positions = int(loaded.model.config.max_target_positions)

    def run(self, batch: Sequence[Window]) -> list[Hypothesis]:
        """All windows of `batch` have equal `options`. Raises MemoryError when the batch does not fit."""
        if not batch:
            return []
        began = time.perf_counter()
        with torch.inference_mode(), memory_errors("the batch"):
            hypotheses = with_tails(batch, self._transcribe(batch), self._transcribe, self._tokens.timestamps)
        inference_s = (time.perf_counter() - began) / len(batch)
        return [replace(hypothesis, inference_s=inference_s) for hypothesis in hypotheses]

    def warm_up(self, batch_size: int = 1) -> None:
        """The first pass allocates, compiles and picks kernels; better now than on somebody's job. Raises
        MemoryError when not even one window fits, and ArithmeticError when the model gives no numbers."""
        began = time.perf_counter()
        options = DecodingOptions(word_timestamps=True, temperatures=(0.0,))
        pcm = probe.speechlike()
        window = Window(0, 0.0, pcm, len(pcm) / SAMPLE_RATE, options)
        heard = self.run([window])
        # Tokens without a probability are left out of the mean, so that alone would not show it.
        if not all(math.isfinite(one.avg_logprob + one.no_speech_prob) for one in heard):
            raise ArithmeticError("probabilities are not numbers")
        # On a processor each row takes its own pass; a card has kernels for the size of the whole.
        if batch_size > 1 and self._loaded.model.device.type == "cuda":
            # What does not fit now will be halved when it matters.
            with suppress(MemoryError):
                self.run([window] * batch_size)
        alignment.warm_up()
        seconds = round(time.perf_counter() - began, 3)
        self.card = replace(self.card, details=self.card.details | {"warm_up_s": str(seconds)})
        _log.info("model_warmed", model=self.card.name, seconds=seconds)

    def close(self) -> None:
        del self._loaded
        give_back()

    def _transcribe(self, batch: Sequence[Window]) -> list[Hypothesis]:
        options = batch[0].options
        states = encode(self._loaded.model, self._loaded.mel, [window.pcm for window in batch])
        encoded, heard = listen(self._loaded.model, states, self._tokens)
        languages = [self._language(options, ear) for ear in heard]
        drafts = self._decode(batch, encoded, languages, [ear.no_speech_prob for ear in heard])
        utterances = [
            () if is_silent(draft, ear.no_speech_prob) else self._utterances(window, draft)
            for window, draft, ear in zip(batch, drafts, heard, strict=True)
        ]
        if options.word_timestamps:
            utterances = self._align(batch, encoded, languages, utterances)
        return [_hypothesis(*row) for row in zip(drafts, utterances, heard, languages, strict=True)]

    def _language(self, options: DecodingOptions, heard: Heard) -> _Language:
        """The caller's, the checkpoint's own, the only one, or the likeliest of those the model is for."""
        abilities = self.card.abilities
        if options.language and abilities.languages and options.language not in abilities.languages:
            raise UnsupportedOption(f"The model does not know the language {options.language!r}.")
        code, probability = options.language or self._tokens.fixed_language, None
        if code is None and abilities.language_detection:
            known = {code: heard.languages[code] for code in abilities.languages if code in heard.languages}
            code = max(known, key=lambda candidate: known[candidate])
            probability = round(known[code] / sum(known.values()), 4)
        code = code or next(iter(abilities.languages), None)
        if code in heard.languages or not heard.languages:
            return _Language(code, probability, token=code)
        likeliest = max(heard.languages, key=lambda candidate: heard.languages[candidate])
        return _Language(code, probability, token=likeliest)

    def _decode(
        self,
        batch: Sequence[Window],
        encoded: Encoded,
        languages: Sequence[_Language],
        no_speech_probs: Sequence[float],
    ) -> list[Draft]:
        options = batch[0].options
        previous = previous_text(options.prompt, self._tokens, self._loaded.tokenizer, self._positions)
        rows = [
            self._row(window, language, options.task, previous)
            for window, language in zip(batch, languages, strict=True)
        ]

        def attempt(numbers: Sequence[int], temperature: float) -> list[Draft]:
            return decode(
                self._loaded.model,
                encoded.rows(numbers),
                [rows[number] for number in numbers],
                self._tokens,
                temperature=temperature,
                timestamps=self._timestamps,
                to_text=self._to_text,
            )

        return decode_with_fallback(attempt, no_speech_probs, options.temperatures)

    def _row(self, window: Window, language: _Language, task: str, previous: Sequence[int]) -> Row:
        prompt = build_prompt(
            self._tokens, language.token, task, timestamps=self._timestamps, previous=previous
        )
        # The seed is the sound's own, so a retry draws the same text in whatever company.
        seed = zlib.crc32(window.pcm.tobytes())
        return Row(prompt, max_tokens(window.duration_s, prompt, self._positions), seed)

    def _utterances(self, window: Window, draft: Draft) -> tuple[Utterance, ...]:
        stretches = split_at_timestamps(
            draft.tokens, self._tokens.timestamps, window.duration_s, is_text=self._tokens.is_text
        )
        spoken = (self._utterance(stretch, draft) for stretch in stretches)
        return tuple(utterance for utterance in spoken if utterance.text.strip())

    def _utterance(self, stretch: Stretch, draft: Draft) -> Utterance:
        logprobs = draft.logprobs[stretch.first : stretch.first + len(stretch.tokens)]
        return Utterance(
            start=stretch.start,
            end=stretch.end,
            text=self._to_text(stretch.tokens),
            tokens=stretch.tokens,
            avg_logprob=sum(logprobs) / len(logprobs),
        )

    def _align(
        self,
        batch: Sequence[Window],
        encoded: Encoded,
        languages: Sequence[_Language],
        utterances: list[tuple[Utterance, ...]],
    ) -> list[tuple[Utterance, ...]]:
        rows = [row for row, spoken in enumerate(utterances) if spoken]
        if not rows:
            return utterances
        task = batch[0].options.task
        times = alignment.token_times(
            self._loaded.model,
            encoded.rows(rows),
            texts=[[token for spoken in utterances[row] for token in spoken.tokens] for row in rows],
            prompts=[
                build_prompt(self._tokens, languages[row].token, task, timestamps=False) for row in rows
            ],
            durations_s=[batch[row].duration_s for row in rows],
            heads=self._loaded.heads,
            eos=self._tokens.eos,
        )
        aligned = list(utterances)
        for row, (starts, chances) in zip(rows, times, strict=True):
            aligned[row] = self._with_words(utterances[row], starts, chances, languages[row].code)
        return aligned

    def _with_words(
        self,
        spoken: Sequence[Utterance],
        starts: NDArray[np.float64],
        chances: Sequence[float],
        language: str | None,
    ) -> tuple[Utterance, ...]:
        timed = []
        first = 0
        for utterance in spoken:
            stop = first + len(utterance.tokens)
            pieces = split_words(utterance.tokens, language, self._to_text)
            words = alignment.to_words(pieces, starts[first : stop + 1], chances[first:stop])
            timed.append(alignment.with_words(utterance, words))
            first = stop
        return tuple(timed)

    def _to_text(self, tokens: Sequence[int]) -> str:
        text: str = self._loaded.tokenizer.decode(
            list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text


def _hypothesis(
    draft: Draft, utterances: tuple[Utterance, ...], heard: Heard, language: _Language
) -> Hypothesis:
    return Hypothesis(
        utterances=utterances,
        language=language.code,
        language_probability=language.probability,
        avg_logprob=draft.avg_logprob,
        compression_ratio=draft.compression_ratio,
        no_speech_prob=heard.no_speech_prob,
        temperature=draft.temperature,
        tokens=draft.tokens,
    )
