"""The model card, with the figures of an evaluation: nothing in it is typed by hand."""

import json
from pathlib import Path
from typing import Any

from models.training.grammar import DOMAIN

_CARD = """# {name}

A small model in the Whisper architecture, trained from scratch on synthetic English speech, so that the service transcribes
with no download. It is for demonstration and tests, **not for real recordings**: it has never heard a human being.

| | |
|---|---|
| Size | {millions:.1f} million parameters: d_model {d_model}, {encoder} encoder and {decoder} decoder layers, {pieces} word pieces; {megabytes:.0f} MB in fp16 |
| Training | {heard:.0f} hours of speech heard, mixed from {spoken:.0f} hours of {sentences:,} sentences ({words:,} different words) |
| Speech | espeak-ng and flite, some hundred voices made of accents, variants, speeds and pitches |
| Text | a grammar of everyday English, `../training/text/` |
| Languages | English |
| Made by | `make model`, see [`../training/`](../training/README.md) |

## What it can do
Word error rates in percent. Hugging Face's column is `generate` in bf16 with the language given and nothing else, the
service's column is Ananse's own engine with its speech detection and its gates.

| | Aim | Hugging Face | Ananse |
|---|---|---|---|
{rates}

By file of patterns in [`../training/text/`](../training/text): {files}. `frames` and `lexicon` put any word anywhere.

| | Aim | Measured |
|---|---|---|
{others}

`domain` are held-out sentences of its own grammar in voices it knows, `handwritten` sixty everyday sentences
outside it ([`handwritten.txt`](../training/text/handwritten.txt), for testing only), in the same voices; `voices` are held-out sentences of the
grammar in voices it never heard (half of them flite's `awb`, half espeak-ng's variants `m5` and `f3`). Full windows are
thirty seconds of `domain` sentences one after another.{note} All figures: [`figures.json`](figures.json).

## What it cannot do
People: their voices, accents, hesitations and rooms. Words that are not everyday ones, names it has not read, figures in
digits, other languages, translation. Speech under loud noise or music.
"""

_AIMS = {"domain": 8.0, "handwritten": 20.0, "voices": 25.0}


def write_card(folder: Path, figures: dict[str, Any], heard: float, corpus: dict[str, Any]) -> None:
    """Beside the model: `README.md` and `figures.json`. `corpus` has `hours`, `sentences` and `words`."""
    figures = {"heard_hours": round(heard, 1), "corpus": corpus, **figures}
    (folder / "figures.json").write_text(json.dumps(figures, indent=2) + "\n")
    config = json.loads((folder / "config.json").read_text())
    weights = (folder / "model.safetensors").stat().st_size
    card = _CARD.format(
        name=folder.name,
        millions=weights / 2e6,
        d_model=config["d_model"],
        encoder=config["encoder_layers"],
        decoder=config["decoder_layers"],
        pieces=f"{config['eos_token_id']:,}",
        megabytes=weights / 1e6,
        heard=heard,
        note=f" {corpus['note']}" if "note" in corpus else "",
        spoken=corpus["hours"],
        sentences=corpus["sentences"],
        words=corpus["words"],
        rates="\n".join(_rates(figures)),
        files=", ".join(_by_file(figures)),
        others="\n".join(_others(figures)),
    )
    (folder / "README.md").write_text(card)


def _by_file(figures: dict[str, Any]) -> list[str]:
    found = {name.removeprefix(DOMAIN): figures[name] for name in figures if name.startswith(DOMAIN)}
    return [f"{name} {one['service_wer']:.1f}" for name, one in sorted(found.items())]


def _rates(figures: dict[str, Any]) -> list[str]:
    rows = []
    for name, about in (
        ("domain", "`domain`, {sentences} sentences"),
        ("handwritten", "`handwritten`, {sentences} sentences"),
        ("voices", "`voices`, {sentences} sentences"),
        ("full_windows", "{windows} full windows of `domain`"),
    ):
        found = figures[name]
        aim = f"{_AIMS[name]:.0f}" if name in _AIMS else "as short ones"
        rows.append(
            f"| {about.format(**found)} | {aim} | {found['generate_wer']:.1f} | {found['service_wer']:.1f} |"
        )
    long = figures["ten_minutes"]
    minutes = long["seconds"] / 60
    rows.append(
        f"| one recording of {minutes:.0f} minutes of `domain` | as short ones | | {long['service_wer']:.1f} |"
    )
    return rows


def _others(figures: dict[str, Any]) -> list[str]:
    long = figures["ten_minutes"]
    invented = ", ".join(f"{name} {count}" for name, count in figures["words_in"].items())
    within = long["words_within_0.2_s"]
    return [
        f"| Segment times, mean error | 0.3 s | {long['segment_error_s']:.2f} s |",
        f"| Word times, mean error | | {long['word_error_s']:.2f} s |",
        f"| Word times within 0.2 s | all | {100 * within:.1f} % |",
        f"| Word times in order | yes | {'yes' if long['words_in_order'] else 'no'} |",
        f"| Words heard in twenty seconds of | none | {invented} |",
    ]
