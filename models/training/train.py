"""The training: stages of windows, two optimisers, a log line every so often, and a state to go on from.

python -m models.training.train --help
"""

import argparse
import contextlib
import ctypes
import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import GenerationConfig, WhisperForConditionalGeneration, WhisperProcessor

from models.training.corpus import Corpus
from models.training.network import Learner, Losses, Weights, untrained
from models.training.windows import Mel, Stage, Windows

LOG_STEPS = 50
SAVE_SECONDS = 120
MOST_STEPS = 1_000_000
SMALL_FILES = ("vocab.json", "merges.txt", "preprocessor_config.json")

CPU_STAGES = (
    Stage(hours=140, window_s=8, batch=20, timestamps=0.3),
    Stage(hours=66, window_s=30, batch=4, timestamps=0.6, prompt=0.15, cut=0.1),
)
"""About an hour and a half on two cores with AMX."""
CUDA_STAGES = (
    Stage(hours=1500, window_s=8, batch=96, timestamps=0.3),
    Stage(hours=1500, window_s=30, batch=48, timestamps=0.6, prompt=0.15, cut=0.1),
)


@dataclass(frozen=True, slots=True)
class Course:
    """All that decides what comes out, beside the speech."""

    stages: Sequence[Stage]
    seed: int = 1
    rate: float = 2e-3
    warm_hours: float = 4.0
    falls_after: float = 0.4
    """The share of the hours after which the learning rate falls to nothing, in a straight line."""
    decay: float = 0.05
    matrices: str = "muon"

    @property
    def hours(self) -> float:
        return sum(stage.hours for stage in self.stages)

    def of(self, hours: float | None) -> "Course":
        """The same course in so many hours; each stage keeps its share."""
        if hours is None:
            return self
        return replace(
            self, stages=[replace(stage, hours=stage.hours * hours / self.hours) for stage in self.stages]
        )

    def rate_at(self, heard: float) -> float:
        done = heard / self.hours
        fall = min(1.0, (1 - done) / (1 - self.falls_after))
        return self.rate * min(1.0, (heard + 0.1) / self.warm_hours) * max(0.01, fall)

    def stage_at(self, heard: float) -> Stage:
        end = 0.0
        for stage in self.stages:
            end += stage.hours
            if heard < end:
                return stage
        return self.stages[-1]

    def weights_at(self, heard: float) -> Weights:
        """The phones matter most at first, the text at last."""
        early = max(0.0, 1 - 3 * heard / self.hours)
        return Weights(text=1.0, times=0.4, phones=0.5 + early, look=0.1 + 0.2 * early)


class Training:
    """One run: `step` until the hours are heard."""

    def __init__(
        self, course: Course, untrained_folder: Path, corpus: Corpus, device: str, workers: int = 0
    ) -> None:
        self._course, self._folder, self._corpus = course, untrained_folder, corpus
        self._device, self._workers = device, workers
        self._tokenizer = WhisperProcessor.from_pretrained(untrained_folder).tokenizer
        first_time = self._tokenizer.convert_tokens_to_ids("<|0.00|>")
        self.learner = Learner(untrained(untrained_folder, course.seed), first_time).to(device)
        self.learner.train()
        self._optimisers = list(_optimisers(self.learner, course))
        self._mel = Mel(device)
        self.steps, self.heard = 0, 0.0

    def batches(self) -> Iterator[dict[str, Any]]:
        """What is still to be heard, mixed in `workers` processes (in this one when there are none)."""
        while not self.is_done:
            stage = self._course.stage_at(self.heard)
            windows = Windows(self._corpus, self._tokenizer, stage, self._course.seed)
            steps = range(self.steps, self.steps + MOST_STEPS)
            ahead = 4 if self._workers else None
            loader = DataLoader(
                windows, None, sampler=steps, num_workers=self._workers, prefetch_factor=ahead
            )
            for batch in loader:
                yield batch
                if self.is_done or self._course.stage_at(self.heard) != stage:
                    break

    def step(self, batch: dict[str, Any]) -> Losses:
        stage = self._course.stage_at(self.heard)
        losses = self._losses(batch)
        total = losses.weighted(self._course.weights_at(self.heard))
        torch.autograd.backward(total)
        torch.nn.utils.clip_grad_norm_(self.learner.parameters(), 1.0)
        for optimiser in self._optimisers:
            for group in optimiser.param_groups:
                group["lr"] = self._course.rate_at(self.heard)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        self.steps += 1
        self.heard += stage.window_s * stage.batch / 3600
        return losses

    def _losses(self, batch: dict[str, Any]) -> Losses:
        for name in ("sound", "inputs", "targets", "when", "phones"):
            batch[name] = batch[name].to(self._device, non_blocking=True)
        mel = self._mel(batch.pop("sound"))
        for row, low, high, first, last in batch.pop("masks"):
            hidden = mel[row].amin() if low and high == mel.shape[1] else mel[row].mean()
            mel[row, low:high, first:last] = hidden
        with torch.autocast(self._device.split(":")[0], torch.bfloat16):
            losses: Losses = self.learner(mel, batch)
        return losses

    @property
    def is_done(self) -> bool:
        return self.heard >= self._course.hours

    def keep(self, state: Path) -> None:
        parts = {
            "learner": self.learner.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in self._optimisers],
            "steps": self.steps,
            "heard": self.heard,
        }
        torch.save(parts, state.with_suffix(".part"))
        os.replace(state.with_suffix(".part"), state)

    def go_on_from(self, state: Path) -> None:
        parts = torch.load(state, map_location=self._device)
        self.learner.load_state_dict(parts["learner"])
        for optimiser, kept in zip(self._optimisers, parts["optimisers"], strict=True):
            optimiser.load_state_dict(kept)
        self.steps, self.heard = parts["steps"], parts["heard"]

    def export(self, folder: Path) -> None:
        """The checkpoint in fp16, without what was for learning only."""
        half = WhisperForConditionalGeneration(self.learner.whisper.config).to(torch.float16)
        weights = {
            name: one.to("cpu", torch.float16) for name, one in self.learner.whisper.state_dict().items()
        }
        half.load_state_dict(weights)
        half.tie_weights()
        half.config._attn_implementation = None
        half.generation_config = GenerationConfig.from_pretrained(self._folder)
        half.save_pretrained(folder)
        WhisperProcessor.from_pretrained(self._folder).save_pretrained(folder)
        for name in SMALL_FILES:
            shutil.copyfile(self._folder / name, folder / name)


def _optimisers(learner: Learner, course: Course) -> Iterator[torch.optim.Optimizer]:
    """Muon for the matrices between hidden states, AdamW for embeddings, convolutions, norms and biases."""
    named = {name: one for name, one in learner.named_parameters() if one.requires_grad}
    inner = [one for name, one in named.items() if ".layers." in name and one.dim() == 2]
    outer = [one for name, one in named.items() if not (".layers." in name and one.dim() == 2)]
    if course.matrices == "muon":
        yield torch.optim.Muon(
            inner, lr=course.rate, weight_decay=course.decay, adjust_lr_fn="match_rms_adamw"
        )
    else:
        yield torch.optim.AdamW(
            inner, lr=course.rate, weight_decay=course.decay, betas=(0.9, 0.98), fused=True
        )
    yield torch.optim.AdamW(outer, lr=course.rate, weight_decay=0.0, betas=(0.9, 0.98), fused=True)


def train(training: Training, out: Path, minutes: float | None = None) -> Path:
    """Gives the checkpoint when all is heard. Asked to stop, or after `minutes`, it keeps its state and
    raises SystemExit."""
    out.mkdir(parents=True, exist_ok=True)
    state, began = out / "training.state", time.monotonic()
    if state.exists():
        training.go_on_from(state)
        print(f"going on from step {training.steps}, {training.heard:.1f} h heard", flush=True)
    log, saved = _Log(training, out / "log.jsonl"), began
    is_asked_to_stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: is_asked_to_stop.set())
    for batch in training.batches():
        log.add(training.step(batch))
        now = time.monotonic()
        if now - saved > SAVE_SECONDS:
            training.keep(state)
            _give_back_memory()
            saved = now
        if is_asked_to_stop.is_set() or (minutes and now - began > minutes * 60):
            training.keep(state)
            raise SystemExit(
                f"Stopped after {training.heard:.1f} h heard; the same command goes on from there."
            )
    training.keep(state)
    checkpoint = out / "checkpoint"
    training.export(checkpoint)
    return checkpoint


def _give_back_memory() -> None:
    """What lies free in small pieces: told to keep all it has, the allocator grows without end."""
    with contextlib.suppress(OSError, AttributeError):  # other C libraries lack it
        ctypes.CDLL("libc.so.6").malloc_trim(0)


class _Log:
    """A line every `LOG_STEPS` steps, shown and kept: mean losses since the last one, and the speed."""

    def __init__(self, training: Training, path: Path) -> None:
        self._training, self._path = training, path
        self._began = time.monotonic()
        self._start()

    def _start(self) -> None:
        self._losses: list[Tensor] = []
        self._marked, self._marked_heard = time.monotonic(), self._training.heard

    def add(self, losses: Losses) -> None:
        self._losses.append(torch.stack([loss.detach().float() for loss in losses]))
        if self._training.steps % LOG_STEPS:
            return
        now, heard = time.monotonic(), self._training.heard
        means = torch.stack(self._losses).mean(0).tolist()
        line = json.dumps(
            {
                "step": self._training.steps,
                "minutes": round((now - self._began) / 60, 1),
                "heard_h": round(heard, 2),
                "audio_s_per_s": round((heard - self._marked_heard) * 3600 / (now - self._marked)),
                **{name: round(mean, 3) for name, mean in zip(Losses._fields, means, strict=True)},
            }
        )
        print(line, flush=True)
        with self._path.open("a") as log:
            log.write(line + "\n")
        self._start()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--untrained", type=Path, required=True, help="folder written by the tokenizer step")
    parser.add_argument("--speech", type=Path, nargs="+", required=True, help="folders of shards")
    parser.add_argument(
        "--out", type=Path, required=True, help="log, state and checkpoint; there to go on from"
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--workers", type=int, default=0, help="processes that mix windows; 0 on a processor")
    parser.add_argument("--minutes", type=float, help="stop after so long and keep the state")
    parser.add_argument("--hours", type=float, help="scale the stages to so many hours of audio heard")
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--matrices", choices=("muon", "adamw"), default="muon")
    arguments = parser.parse_args()
    stages = CPU_STAGES if arguments.device == "cpu" else CUDA_STAGES
    course = Course(stages=stages, rate=arguments.rate, matrices=arguments.matrices).of(arguments.hours)
    corpus = Corpus(arguments.speech)
    run = Training(course, arguments.untrained, corpus, arguments.device, arguments.workers)
    train(run, arguments.out, arguments.minutes)


if __name__ == "__main__":
    main()
