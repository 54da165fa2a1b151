"""Peers on the bundled model's own weights: do they run, and do they write the same?

    make peers

converts the weights (`benchmarks.convert`) and lets faster-whisper and whisper.cpp transcribe the sample
recordings, greedily, without fallback, language given. Word error rates only; speed is measured elsewhere.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jiwer
import soundfile
from faster_whisper import WhisperModel
from pywhispercpp.model import Model

from benchmarks.convert import MODEL, ROOT, to_faster_whisper, to_whisper_cpp
from benchmarks.words import plain

SAMPLES = ROOT / "models" / "samples"
OUT = ROOT / "var" / "peers"
THREADS = 2


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    references = json.loads((SAMPLES / "references.json").read_text())
    print("WER in %".ljust(24) + "".join(name.removesuffix(".flac").rjust(15) for name in references))
    for peer, transcribe in _peers():
        rates = [
            _rate(reference["text"], transcribe(SAMPLES / name)) for name, reference in references.items()
        ]
        print(peer.ljust(24) + "".join(f"{rate:15.1f}" for rate in rates), flush=True)


def _peers() -> Iterator[tuple[str, Callable[[Path], str]]]:
    for quantization in ("float32", "int8"):
        folder = OUT / f"faster-whisper-{quantization}"
        to_faster_whisper(MODEL, folder, quantization)
        yield f"faster-whisper {quantization}", _faster_whisper(folder, quantization)
    to_whisper_cpp(MODEL, OUT / "ggml-f16.bin")
    yield "whisper.cpp f16", _whisper_cpp(OUT / "ggml-f16.bin")


def _faster_whisper(folder: Path, quantization: str) -> Callable[[Path], str]:
    model = WhisperModel(str(folder), device="cpu", compute_type=quantization, cpu_threads=THREADS)

    def transcribe(path: Path) -> str:
        sound, _ = soundfile.read(path, dtype="float32")
        segments, _ = model.transcribe(
            sound,
            language="en",
            beam_size=1,
            temperature=0.0,
            condition_on_previous_text=False,
            vad_filter=True,
        )
        return " ".join(segment.text for segment in segments)

    return transcribe


def _whisper_cpp(file: Path) -> Callable[[Path], str]:
    settings: dict[str, Any] = {
        "print_progress": False,
        "print_realtime": False,
        "redirect_whispercpp_logs_to": None,
    }
    model = Model(
        str(file), n_threads=THREADS, language="en", no_context=True, temperature_inc=0.0, **settings
    )

    def transcribe(path: Path) -> str:
        sound, _ = soundfile.read(path, dtype="float32")
        return " ".join(segment.text for segment in model.transcribe(sound))

    return transcribe


def _rate(reference: str, heard: str) -> float:
    return 100 * float(jiwer.wer(plain(reference), plain(heard) or "-"))


if __name__ == "__main__":
    main()
