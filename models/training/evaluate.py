"""What a checkpoint can do, measured: by Hugging Face's `generate` alone, and by the service's own engine."""

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import jiwer
import numpy as np
import torch
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from models.training.corpus import Corpus
from models.training.disturbance import Noises
from models.training.grammar import DOMAIN
from models.training.speech import RATE
from shared.models import ModelSource
from shared.transcript import Transcript
from worker.engine.merge import assemble, window_result
from worker.engine.spans import SpeechParams
from worker.engine.vad import detector_for
from worker.engine.values import DecodingOptions, Window
from worker.engine.whisper import WhisperRunner, load_runner
from worker.engine.windows import cut_windows

BATCH = 8
PAUSE_S = 0.3
LOUDNESS = 0.6
BLOCK = 10 * RATE


@dataclass(frozen=True, slots=True)
class Clip:
    """Some sentences in one recording, and the truth about them."""

    sound: np.ndarray
    text: str
    sentences: tuple[tuple[float, float], ...]
    words: np.ndarray
    """Rows of (start, end), in seconds, one for each word of `text.split()`."""


def evaluate(checkpoint: Path, sets: dict[str, Path]) -> dict[str, Any]:
    """`sets` are folders of shards: `handwritten` and each `domain-FILE` in voices it knows, `voices` in
    others. Error rates are in percent."""
    figures: dict[str, Any] = {}
    in_domain = [folder for name, folder in sets.items() if name.startswith(DOMAIN)]
    groups = {"domain": in_domain} | {name: [folder] for name, folder in sets.items()}
    oracle = _Oracle(checkpoint)
    runner = load_runner(
        ModelSource(checkpoint.name, str(checkpoint)), device="auto", dtype="auto", threads=0
    )
    for name, folders in groups.items():
        clips = single_sentences(Corpus(folders))
        texts = [clip.text for clip in clips]
        figures[name] = {
            "sentences": len(clips),
            "generate_wer": wer(texts, oracle.texts([clip.sound for clip in clips])),
            "service_wer": wer(texts, [transcribe(runner, clip.sound).text for clip in clips]),
        }
        print(name, figures[name], flush=True)
    domain = Corpus(in_domain)
    full = list(joined(domain, 28.0, seed=5))
    figures["full_windows"] = {
        "windows": len(full),
        "generate_wer": wer([clip.text for clip in full], oracle.texts([clip.sound for clip in full])),
        "service_wer": wer(
            [clip.text for clip in full], [transcribe(runner, clip.sound).text for clip in full]
        ),
    }
    print("full_windows", figures["full_windows"], flush=True)
    figures["ten_minutes"] = long_file(runner, next(joined(domain, 600.0, seed=6, may_repeat=True)))
    print("ten_minutes", figures["ten_minutes"], flush=True)
    figures["words_in"] = {name: len(transcribe(runner, sound).text.split()) for name, sound in not_speech()}
    print("words_in", figures["words_in"], flush=True)
    return figures


def single_sentences(corpus: Corpus) -> list[Clip]:
    return [_joined(corpus, [index], random.Random(index)) for index in range(len(corpus))]


def joined(corpus: Corpus, seconds: float, seed: int, may_repeat: bool = False) -> Iterator[Clip]:
    """Recordings of about `seconds`, of sentences one after another in the order of a shuffle."""
    rng = random.Random(seed)
    order = list(range(len(corpus)))
    rng.shuffle(order)
    if may_repeat:
        order *= 10
    part: list[int] = []
    length_s = 0.0
    for index in order:
        more_s = len(corpus.sound(index)[0]) / RATE + 0.65
        if part and length_s + more_s > seconds:
            yield _joined(corpus, part, rng)
            part, length_s = [], 0.0
        part.append(index)
        length_s += more_s


def _joined(corpus: Corpus, order: Sequence[int], rng: random.Random) -> Clip:
    sounds, texts, sentences, words = [np.zeros(int(PAUSE_S * RATE), np.float32)], [], [], []
    at_s = PAUSE_S
    for index in order:
        samples, _, spans = corpus.sound(index)
        pause = int(rng.uniform(0.3, 1.0) * RATE)
        sounds += [samples / np.abs(samples).max() * LOUDNESS, np.zeros(pause, np.float32)]
        texts.append(corpus.text(index))
        sentences.append((at_s + spans[0, 0], at_s + spans[-1, 1]))
        words.append(spans + at_s)
        at_s += (len(samples) + pause) / RATE
    return Clip(np.concatenate(sounds), " ".join(texts), tuple(sentences), np.concatenate(words))


class _Oracle:
    """The documented way of Transformers, at its defaults but for the language."""

    def __init__(self, checkpoint: Path) -> None:
        self._model = WhisperForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.bfloat16).eval()
        self._processor = WhisperProcessor.from_pretrained(checkpoint)

    def texts(self, sounds: Sequence[np.ndarray]) -> list[str]:
        texts: list[str] = []
        for first in range(0, len(sounds), BATCH):
            features = self._processor(
                list(sounds[first : first + BATCH]), sampling_rate=RATE, return_tensors="pt"
            ).input_features
            tokens = self._model.generate(features.to(self._model.dtype), language="en", task="transcribe")
            texts += self._processor.batch_decode(tokens, skip_special_tokens=True)
        return texts


def transcribe(runner: WhisperRunner, sound: np.ndarray, word_timestamps: bool = False) -> Transcript:
    """Detect, pack, run, assemble: what the service does with a recording, in one process."""
    pcm = np.clip(sound * 32768, -32768, 32767).astype(np.int16)
    options = DecodingOptions(language="en", word_timestamps=word_timestamps)
    blocks = (pcm[first : first + BLOCK] for first in range(0, len(pcm), BLOCK))
    windows = [
        Window(cut.index, cut.start / RATE, cut.pcm, cut.speech_s, options)
        for cut in cut_windows(blocks, detector_for(True, SpeechParams()), runner.card.abilities.window_s)
    ]
    results = []
    for first in range(0, len(windows), BATCH):
        batch = windows[first : first + BATCH]
        results += [window_result(*pair) for pair in zip(batch, runner.run(batch), strict=True)]
    return assemble(results, len(pcm) / RATE)


def long_file(runner: WhisperRunner, clip: Clip) -> dict[str, Any]:
    """Segment times against the nearest true edge of a sentence; times of the words that were heard right."""
    transcript = transcribe(runner, clip.sound, word_timestamps=True)
    said = [word for segment in transcript.segments for word in segment.words or ()]
    starts = np.array([segment.start for segment in transcript.segments])
    ends = np.array([segment.end for segment in transcript.segments])
    gaps = [np.abs(starts - start).min() for start, _ in clip.sentences]
    gaps += [np.abs(ends - end).min() for _, end in clip.sentences]
    off = np.array(list(_word_errors(clip, said)))
    return {
        "seconds": round(len(clip.sound) / RATE),
        "service_wer": wer([clip.text], [transcript.text]),
        "segment_error_s": round(float(np.mean(gaps)), 3),
        "word_error_s": round(float(off.mean()), 3),
        "words_within_0.2_s": round(float((off <= 0.2).mean()), 3),
        "words_in_order": all(a.start <= b.start and a.start <= a.end for a, b in pairwise(said)),
    }


def _word_errors(clip: Clip, said: Sequence[Any]) -> Iterator[float]:
    """For each word that was heard right, the larger error of its start and end."""
    reference = [plain(word) or "-" for word in clip.text.split()]
    heard = [plain(word.text) or "-" for word in said]
    reference, heard = [w.replace(" ", "") for w in reference], [w.replace(" ", "") for w in heard]
    for chunk in jiwer.process_words(" ".join(reference), " ".join(heard)).alignments[0]:
        if chunk.type == "equal":
            for a, b in zip(
                range(chunk.ref_start_idx, chunk.ref_end_idx),
                range(chunk.hyp_start_idx, chunk.hyp_end_idx),
                strict=True,
            ):
                yield float(max(abs(clip.words[a][0] - said[b].start), abs(clip.words[a][1] - said[b].end)))


def not_speech() -> Iterator[tuple[str, np.ndarray]]:
    """Twenty seconds of each."""
    rng, size = np.random.default_rng(3), 20 * RATE
    noises = Noises(seed=99)
    yield "silence", np.zeros(size, np.float32)
    for name, kind in (("white noise", 0), ("hum", 3), ("music", 5)):
        yield name, noises.any(rng, size, kind) * 0.1


def plain(text: str) -> str:
    """Lower case, no punctuation, hyphens as spaces."""
    return " ".join(re.sub(r"[^a-z0-9' ]", "", text.lower().replace("-", " ")).split())


def wer(references: Sequence[str], heard: Sequence[str]) -> float:
    """In percent."""
    rate = jiwer.wer([plain(one) for one in references], [plain(one) or "-" for one in heard])
    return round(100 * float(rate), 2)
