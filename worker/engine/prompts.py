"""What stands before the text: previous text, start, language, task, with or without timestamps."""

from collections.abc import Sequence
from typing import Any

from worker.engine.doctor import Tokens


def build_prompt(
    tokens: Tokens, language: str | None, task: str, *, timestamps: bool, previous: Sequence[int] = ()
) -> tuple[int, ...]:
    """`previous <|startoftranscript|> language task <|notimestamps|>`, as far as the model has them."""
    ids = [*previous, tokens.sot]
    if tokens.languages:
        if language is None or language not in tokens.languages:
            raise ValueError(f"the model has no token for language {language!r}")
        ids.append(tokens.languages[language])
    if task in tokens.tasks:
        ids.append(tokens.tasks[task])
    if not timestamps and tokens.no_timestamps is not None:
        ids.append(tokens.no_timestamps)
    return tuple(ids)


def previous_text(text: str | None, tokens: Tokens, tokenizer: Any, positions: int) -> tuple[int, ...]:
    """A caller's prompt as previous text: its end, at most half of the decoder's `positions`. Steering tokens
    written in it are dropped: a caller must not end the prompt early."""
    if not text or not text.strip() or tokens.prev is None:
        return ()
    ids = tokenizer.encode(" " + text.strip(), add_special_tokens=False)
    kept = [token for token in ids if tokens.is_text(token)]
    return (tokens.prev, *kept[-(positions // 2 - 1) :])
