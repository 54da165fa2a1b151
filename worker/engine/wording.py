"""From tokens to what a hypothesis says: text, utterances, words. No torch, no model."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker.engine import alignment
from worker.engine.decoding import Draft
from worker.engine.doctor import Tokens
from worker.engine.utterances import Stretch, split_at_timestamps, split_words
from worker.engine.values import Utterance


class Wording:
    """With a checkpoint's own tokenizer. May be used from several threads."""

    def __init__(self, tokenizer: Any, tokens: Tokens) -> None:
        self._tokenizer = tokenizer
        self._tokens = tokens

    def text(self, tokens: Sequence[int]) -> str:
        """Of what was written, timestamps and all."""
        return self._to_text([token for token in tokens if self._tokens.is_text(token)])

    def utterances(self, draft: Draft, duration_s: float) -> tuple[Utterance, ...]:
        stretches = split_at_timestamps(
            draft.tokens, self._tokens.timestamps, duration_s, is_text=self._tokens.is_text
        )
        spoken = (self._utterance(stretch, draft) for stretch in stretches)
        return tuple(utterance for utterance in spoken if utterance.text.strip())

    def with_words(
        self,
        spoken: Sequence[Utterance],
        starts: NDArray[np.float64],
        language: str | None,
    ) -> tuple[Utterance, ...]:
        timed = []
        first = 0
        for utterance in spoken:
            stop = first + len(utterance.tokens)
            pieces = split_words(utterance.tokens, language, self._to_text)
            words = alignment.to_words(pieces, starts[first : stop + 1], np.exp(utterance.logprobs))
            timed.append(alignment.with_words(utterance, words))
            first = stop
        return tuple(timed)

    def _utterance(self, stretch: Stretch, draft: Draft) -> Utterance:
        logprobs = draft.logprobs[stretch.first : stretch.first + len(stretch.tokens)]
        return Utterance(
            start=stretch.start,
            end=stretch.end,
            text=self._to_text(stretch.tokens),
            tokens=stretch.tokens,
            avg_logprob=sum(logprobs) / len(logprobs),
            logprobs=logprobs,
        )

    def _to_text(self, tokens: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(
            list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text
