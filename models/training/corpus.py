"""The spoken sentences, read from their shards."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from models.training.speech import FRAME, RATE

Rng = np.random.Generator


class Corpus:
    """All shards of some folders."""

    def __init__(self, folders: list[Path]) -> None:
        self._utterances: list[tuple[int, dict[str, Any]]] = []
        self._sounds: list[np.ndarray] = []
        self._phones: list[np.ndarray] = []
        self._by_voice: dict[str, list[int]] = {}
        for path in sorted(path for folder in folders for path in folder.glob("*.json")):
            self._sounds.append(np.memmap(path.with_suffix(".raw"), np.int16, "r"))
            self._phones.append(np.memmap(path.with_suffix(".phones"), np.uint8, "r"))
            for utterance in json.loads(path.read_text()):
                self._by_voice.setdefault(utterance["voice"], []).append(len(self._utterances))
                self._utterances.append((len(self._sounds) - 1, utterance))
        if not self._utterances:
            raise SystemExit(
                f"No speech in {', '.join(map(str, folders))}: run `make model` from its beginning."
            )

    def __len__(self) -> int:
        return len(self._utterances)

    @property
    def seconds(self) -> float:
        return sum(len(phones) for phones in self._phones) * FRAME / RATE

    def any(self, rng: Rng, voice: str | None = None) -> int:
        return int(rng.choice(self._by_voice[voice])) if voice else int(rng.integers(len(self)))

    def text(self, index: int) -> str:
        return str(self._utterances[index][1]["text"])

    def voice(self, index: int) -> str:
        return str(self._utterances[index][1]["voice"])

    def sound(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Samples (float, -1 to 1), phones by frame, words as rows of (start, end) in seconds."""
        shard, utterance = self._utterances[index]
        first, frames = utterance["frame"], utterance["frames"]
        samples = self._sounds[shard][first * FRAME : (first + frames) * FRAME].astype(np.float32) / 32768
        return (
            samples,
            self._phones[shard][first : first + frames],
            np.array(utterance["words"]).reshape(-1, 2),
        )
