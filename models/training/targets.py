"""What is to be written for a window: Whisper's tokens, and for each the frame it belongs to."""

from dataclasses import dataclass

import numpy as np
from transformers import WhisperTokenizer

from models.training.corpus import Corpus, Rng
from models.training.speech import FRAME, RATE

FRAME_S = FRAME / RATE
POSITIONS = 1500
"""Frames of thirty seconds."""
MAX_TOKENS = 440
NO_TARGET = -100
NOWHERE = -1.0


@dataclass(frozen=True, slots=True)
class Placed:
    """An utterance in a window: `start_s` and `end_s` are those of the speech itself."""

    text: str
    start_s: float
    end_s: float
    words: np.ndarray


class Targets:
    """Placed utterances as Whisper's tokens, each with the frame it belongs to."""

    def __init__(self, tokenizer: WhisperTokenizer, corpus: Corpus) -> None:
        token = tokenizer.convert_tokens_to_ids
        self._corpus, self._encode = corpus, tokenizer.backend_tokenizer.encode
        self._first_time, self.end = token("<|0.00|>"), token("<|endoftext|>")
        self._start = [token("<|startoftranscript|>"), token("<|en|>"), token("<|transcribe|>")]
        self._without_times, self._previous = token("<|notimestamps|>"), token("<|startofprev|>")
        self._no_speech = token("<|nospeech|>")
        self._cache: dict[str, tuple[list[int], np.ndarray]] = {}

    def of(
        self,
        rng: Rng,
        placed: list[Placed],
        cut_s: float | None,
        offset: int,
        with_times: bool,
        prompt_share: float,
    ) -> tuple[list[int], list[int], list[float]]:
        """Inputs, targets, and for each target its frame in the window, or `NOWHERE`."""
        body, when = self._body(placed, cut_s, offset, with_times)
        head = self._start + ([] if with_times else [self._without_times])
        tokens = (head + body + [self.end])[:MAX_TOKENS]
        frames = ([NOWHERE] * (len(head) - 1) + when + [NOWHERE])[: MAX_TOKENS - 1]
        inputs, targets = tokens[:-1], tokens[1:]
        if not placed:
            targets[0] = self._no_speech
        if with_times and placed and not offset:
            # Whisper's decoding allows a first time of one second at most.
            inputs[3] = min(inputs[3], self._first_time + 50)
        # It should lean on the sound, not on the word before.
        for index in range(len(head), len(inputs)):
            if inputs[index] < self.end and rng.random() < 0.06:
                inputs[index] = int(rng.integers(self.end))
        prompt = self._prompt(rng) if rng.random() < prompt_share else []
        return prompt + inputs, [NO_TARGET] * len(prompt) + targets, [NOWHERE] * len(prompt) + frames

    def _body(
        self, placed: list[Placed], cut_s: float | None, offset: int, with_times: bool
    ) -> tuple[list[int], list[float]]:
        body: list[int] = []
        when: list[float] = []

        def time(at_s: float) -> None:
            if with_times:
                body.append(self._first_time + min(POSITIONS, max(0, round(at_s / FRAME_S) + offset)))
                when.append(at_s / FRAME_S)

        for utterance in placed:
            ids, places = self._pieces(utterance.text)
            time(utterance.start_s)
            words = utterance.words[places[:, 0].astype(int)]
            body += ids
            when += list((words[:, 0] + (words[:, 1] - words[:, 0]) * places[:, 1]) / FRAME_S)
            time(utterance.end_s)
        if cut_s is not None:
            time(cut_s)
        elif with_times and not placed:
            body.append(self._first_time)
            when.append(NOWHERE)
        return body, when

    def _pieces(self, text: str) -> tuple[list[int], np.ndarray]:
        """Tokens, and for each the number of its word and how far in the word its middle lies (0 to 1)."""
        if text not in self._cache:
            coded = self._encode(" " + text, add_special_tokens=False)
            word, used, places = -1, 0, []
            lengths = [len(one) for one in text.split()]
            for piece in coded.tokens:
                if piece.startswith("Ġ"):
                    word, used = word + 1, 0
                size = len(piece.removeprefix("Ġ"))
                places.append((word, (used + size / 2) / lengths[word]))
                used += size
            self._cache[text] = coded.ids, np.array(places)
        return self._cache[text]

    def _prompt(self, rng: Rng) -> list[int]:
        prompt: list[int] = []
        for _ in range(rng.integers(1, 5)):
            prompt += self._pieces(self._corpus.text(self._corpus.any(rng)))[0]
        return [self._previous, *prompt[-120:]]
