"""The bundled model from nothing: text, speech, tokenizer, training, alignment heads, figures, samples, card.

    python -m models.training --work var/model

A step whose result is in the work folder is not done again, so a run that was stopped goes on where it was.
"""

import argparse
import json
import os
import shutil
from pathlib import Path

from models.training import grammar, speech
from models.training.card import write_card
from models.training.corpus import Corpus
from models.training.evaluate import evaluate, plain
from models.training.heads import choose_heads
from models.training.samples import write_samples
from models.training.tokenizer import write_untrained
from models.training.train import CPU_STAGES, CUDA_STAGES, Course, Training, train
from worker.engine import manifest

MODELS = Path(__file__).parents[1]
NAME = "synthetic-en"
ABOUT = {
    "description": "Small Whisper trained from scratch on synthetic English speech; "
    "for demonstration and tests, not for real recordings.",
    "languages": ["en"],
    # Measured with `benchmarks.shortcuts`.
    "bears": "0.5s",
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m models.training", description=__doc__)
    parser.add_argument(
        "--work", type=Path, default=Path("var/model"), help="text, speech, log and state lie here"
    )
    parser.add_argument("--models", type=Path, default=MODELS, help="where the model and its samples go")
    parser.add_argument("--device", default="cpu", help="cpu (bf16 where it has it) or cuda")
    parser.add_argument("--sentences", type=int, default=85_000, help="to speak and to learn from")
    parser.add_argument(
        "--held-out", type=int, default=60, help="sentences of each file of patterns to test with"
    )
    parser.add_argument("--hours", type=float, help="of audio to hear, instead of what suits the device")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    build(asked.work, asked.models, asked.device, asked.sentences, asked.held_out, asked.hours, asked.seed)


def build(
    work: Path, models: Path, device: str, sentences: int, held_out: int, hours: float | None, seed: int
) -> None:
    cores = os.cpu_count() or 1
    if not (work / "text" / "train.txt").exists():
        grammar.write_lists(work / "text", seed, sentences, held_out)
    lists = {path.stem: path.read_text().splitlines() for path in (work / "text").glob("*.txt")}
    lists["handwritten"] = grammar.HANDWRITTEN.read_text().splitlines()
    spoken = {name: work / "speech" / name for name in sorted(lists) if name != "samples"}
    for number, (name, folder) in enumerate(spoken.items()):
        voice = speech.unheard_voice if name == "voices" else speech.any_voice
        speech.write_shards(lists[name], folder, voice, seed + number, cores)
    if not (work / "untrained" / "config.json").exists():
        write_untrained(lists["train"], work / "untrained")
    course = Course(stages=CPU_STAGES if device == "cpu" else CUDA_STAGES, seed=seed)
    workers = 0 if device == "cpu" else cores - 2
    run = Training(course.of(hours), work / "untrained", Corpus([spoken["train"]]), device, workers)
    checkpoint = train(run, work / "run")
    tests = {name: folder for name, folder in spoken.items() if name != "train"}
    choose_heads(checkpoint, spoken["handwritten"])
    (checkpoint / "ananse.json").write_text(json.dumps(ABOUT, indent=2) + "\n")
    write_samples(lists["samples"], models / "samples", seed)
    figures = evaluate(checkpoint, tests)
    shutil.copytree(checkpoint, models / NAME, dirs_exist_ok=True)
    learned_from = {
        "hours": round(Corpus([spoken["train"]]).seconds / 3600, 1),
        "sentences": len(lists["train"]),
        "words": len({word for line in lists["train"] for word in plain(line).split()}),
    }
    write_card(models / NAME, figures, run.heard, learned_from)
    manifest.pin(models / NAME, None, manifest.beside(models / NAME))


if __name__ == "__main__":
    main()
