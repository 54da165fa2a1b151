"""One side of `benchmarks.engine`: loads, says how long that took, transcribes once for each line it reads.

Several environments run this: what one of them lacks is imported by its own side only.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import soundfile

Transcribe = Callable[[Sequence[str]], list[str]]

SAMPLE_RATE = 16_000
BATCH = 8


def ours(plan: dict[str, Any], *, int8: bool = False) -> Transcribe:
    """Detect, pack, run: all files at once, as many jobs of one worker. `int8` are the encoder's matrices,
    whatever that does to the text."""
    from shared.models import ModelSource, Shortcuts  # noqa: PLC0415
    from worker.engine import decoding  # noqa: PLC0415
    from worker.engine.encoder import Encoder  # noqa: PLC0415
    from worker.engine.engine import Engine  # noqa: PLC0415
    from worker.engine.loading import load  # noqa: PLC0415
    from worker.engine.spans import SpeechParams  # noqa: PLC0415
    from worker.engine.vad import detector_for  # noqa: PLC0415
    from worker.engine.values import DecodingOptions, Window  # noqa: PLC0415
    from worker.engine.whisper import WhisperRunner, load_runner  # noqa: PLC0415
    from worker.engine.windows import cut_windows  # noqa: PLC0415

    if plan["tokens"]:
        decoding.TOKENS_AT_LEAST, decoding.TOKENS_PER_SECOND = plan["tokens"], 0
    how = {"device": "cpu", "dtype": plan["dtype"], "threads": plan["threads"]}
    if int8:
        loaded = load(ModelSource("bench", plan["model"]), hf_endpoint=None, **how)
        short = Encoder(loaded.model, Shortcuts(int8=True))
        runner = WhisperRunner(replace(loaded, whole=None, short=short), plan["slots"])
        runner.use_shortcuts()
        runner.warm_up()
    else:
        runner = load_runner(ModelSource("bench", plan["model"]), batch_size=plan["slots"], **how)
    print(runner.card.dtype, runner.card.details, file=sys.stderr)
    engine = Engine(runner, plan["slots"])
    options = DecodingOptions(language="en", temperatures=(0.0,))

    # A file that comes again is another job: of the same one only the first windows go first.
    jobs = map(str, count())

    def transcribe(files: Sequence[str]) -> list[str]:
        futures: list[list[Any]] = []
        for file in files:
            job = next(jobs)
            pcm, _ = soundfile.read(file, dtype="int16")
            blocks = (pcm[first : first + SAMPLE_RATE] for first in range(0, len(pcm), SAMPLE_RATE))
            detector = detector_for(not plan["tokens"], SpeechParams())
            futures.append([])
            for cut in cut_windows(blocks, detector, runner.card.abilities.window_s):
                window = Window(cut.index, cut.start / SAMPLE_RATE, cut.pcm, cut.speech_s, options)
                futures[-1].append(engine.submit(job, window))
        texts = [" ".join(future.result().text for future in one) for one in futures]
        now = engine.statistics()
        print(
            f"fill {now.batch_fill:.3f}, idle {now.idle_s:.2f} s, busy {now.busy_s:.2f} s",
            file=sys.stderr,
            flush=True,
        )
        return texts

    return transcribe


def seed(plan: dict[str, Any]) -> Transcribe:
    """As the server this one replaces did it: one file at a time, its first thirty seconds, float32."""
    import librosa  # noqa: PLC0415
    import torch  # noqa: PLC0415
    from transformers import WhisperForConditionalGeneration, WhisperProcessor  # noqa: PLC0415

    torch.set_num_threads(plan["threads"])
    processor = WhisperProcessor.from_pretrained(plan["model"])
    model = WhisperForConditionalGeneration.from_pretrained(plan["model"], dtype=torch.float32).eval()

    def transcribe(files: Sequence[str]) -> list[str]:
        texts = []
        for file in files:
            sound, rate = librosa.load(file, sr=SAMPLE_RATE)
            features = processor(sound, sampling_rate=rate, return_tensors="pt").input_features
            with torch.no_grad():
                tokens = model.generate(features, language="en", task="transcribe", **_length(plan))
            texts.append(processor.batch_decode(tokens, skip_special_tokens=True)[0])
        return texts

    return transcribe


def generate_batched(plan: dict[str, Any]) -> Transcribe:
    """Batches of files up to thirty seconds, in the number format that suits the processor."""
    import torch  # noqa: PLC0415
    from transformers import WhisperForConditionalGeneration, WhisperProcessor  # noqa: PLC0415

    torch.set_num_threads(plan["threads"])
    dtype = _dtype()
    processor = WhisperProcessor.from_pretrained(plan["model"])
    model = WhisperForConditionalGeneration.from_pretrained(plan["model"], dtype=dtype).eval()

    def transcribe(files: Sequence[str]) -> list[str]:
        texts: list[str] = []
        for first in range(0, len(files), BATCH):
            sounds = [soundfile.read(file, dtype="float32")[0] for file in files[first : first + BATCH]]
            features = processor(sounds, sampling_rate=SAMPLE_RATE, return_tensors="pt").input_features
            with torch.inference_mode():
                tokens = model.generate(features.to(dtype), language="en", task="transcribe", **_length(plan))
            texts += processor.batch_decode(tokens, skip_special_tokens=True)
        return texts

    return transcribe


def pipeline_long(plan: dict[str, Any]) -> Transcribe:
    """Transformers' own way with recordings of any length."""
    import torch  # noqa: PLC0415
    from transformers import pipeline  # noqa: PLC0415

    torch.set_num_threads(plan["threads"])
    recognise = pipeline("automatic-speech-recognition", plan["model"], dtype=_dtype(), device="cpu")
    settings = {"language": "en", "task": "transcribe", **_length(plan)}

    def transcribe(files: Sequence[str]) -> list[str]:
        texts = []
        for file in files:
            sound, rate = soundfile.read(file, dtype="float32")
            heard = recognise(
                {"raw": sound, "sampling_rate": rate},
                return_timestamps=not plan["tokens"],
                generate_kwargs=dict(settings),
            )
            texts.append(heard["text"])
        return texts

    return transcribe


def faster_whisper(plan: dict[str, Any], batch: int = 0) -> Transcribe:
    """int8, greedy; one window after the other, or `batch` at once."""
    from faster_whisper import BatchedInferencePipeline, WhisperModel  # noqa: PLC0415

    from benchmarks.convert import to_faster_whisper  # noqa: PLC0415

    folder = Path(plan["out"]) / "faster-whisper-int8"
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        to_faster_whisper(Path(plan["model"]), folder, "int8")
    model = WhisperModel(str(folder), device="cpu", compute_type="int8", cpu_threads=plan["threads"])
    settings: dict[str, Any] = {"language": "en", "beam_size": 1, "temperature": 0.0}
    settings |= {"vad_filter": not plan["tokens"], "without_timestamps": bool(plan["tokens"])}
    if plan["tokens"]:
        settings |= {"max_new_tokens": plan["tokens"], "log_prob_threshold": None}
        settings |= {"compression_ratio_threshold": None, "no_speech_threshold": None}
    if batch:
        speak = BatchedInferencePipeline(model).transcribe
        settings |= {"batch_size": batch, "vad_filter": True}
    else:
        speak = model.transcribe
        settings |= {"condition_on_previous_text": False}

    def transcribe(files: Sequence[str]) -> list[str]:
        texts = []
        for file in files:
            sound, _ = soundfile.read(file, dtype="float32")
            segments, _ = speak(sound, **settings)
            texts.append(" ".join(segment.text for segment in segments))
        return texts

    return transcribe


def whisper_cpp(plan: dict[str, Any]) -> Transcribe:
    from pywhispercpp.model import Model  # noqa: PLC0415

    from benchmarks.convert import to_whisper_cpp  # noqa: PLC0415

    file = Path(plan["out"]) / "ggml-f16.bin"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        to_whisper_cpp(Path(plan["model"]), file)
    settings: dict[str, Any] = {"print_progress": False, "print_realtime": False, "no_context": True}
    settings |= {"language": "en", "temperature_inc": 0.0, "redirect_whispercpp_logs_to": None}
    model = Model(str(file), n_threads=plan["threads"], **settings)

    def transcribe(files: Sequence[str]) -> list[str]:
        texts = []
        for one in files:
            sound, _ = soundfile.read(one, dtype="float32")
            texts.append(" ".join(segment.text for segment in model.transcribe(sound)))
        return texts

    return transcribe


def openvino(plan: dict[str, Any], weights: str) -> Transcribe:
    """OpenVINO GenAI on what its own converter makes of the checkpoint; `weights` are int8 or fp32."""
    from openvino_genai import WhisperPipeline  # noqa: PLC0415

    folder = Path(plan["out"]) / f"openvino-{weights}"
    if not folder.exists():
        convert = Path(sys.executable).parent / "optimum-cli"
        what = ("--model", plan["model"], "--task", "automatic-speech-recognition-with-past")
        command = [str(convert), "export", "openvino", *what, "--weight-format", weights, str(folder)]
        subprocess.run(command, check=True)
    pipeline = WhisperPipeline(str(folder), "CPU", INFERENCE_NUM_THREADS=plan["threads"])
    settings = {"language": "<|en|>", "task": "transcribe", **_length(plan)}

    def transcribe(files: Sequence[str]) -> list[str]:
        sounds = (soundfile.read(file, dtype="float32")[0] for file in files)
        return [str(pipeline.generate(sound.tolist(), **settings)) for sound in sounds]

    return transcribe


def _dtype() -> Any:
    import torch  # noqa: PLC0415

    has_bfloat16 = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if has_bfloat16 else torch.float32


def _length(plan: dict[str, Any]) -> dict[str, int]:
    return {"max_new_tokens": plan["tokens"]} if plan["tokens"] else {}


def _side(plan: dict[str, Any]) -> Transcribe:
    name = plan["side"]
    if name.startswith("faster-whisper"):
        return faster_whisper(plan, int(name.rpartition("-")[2]) if name != "faster-whisper" else 0)
    if name.startswith("openvino"):
        return openvino(plan, name.rpartition("-")[2])
    sides = {
        "ours": ours,
        "ours-int8": partial(ours, int8=True),
        "seed": seed,
        "generate-batched": generate_batched,
        "pipeline-long": pipeline_long,
        "whisper.cpp": whisper_cpp,
    }
    return sides[name](plan)


def main() -> None:
    plan = json.loads(sys.argv[1])
    # Libraries print what they like, also in the middle of our lines: that goes to the log.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    os.environ.setdefault("OMP_NUM_THREADS", str(plan["threads"]))
    began = time.perf_counter()
    transcribe = _side(plan)
    print(json.dumps({"load_s": time.perf_counter() - began}), file=answers)
    for _ in sys.stdin:
        began = time.perf_counter()
        texts = transcribe(plan["files"])
        print(json.dumps({"seconds": time.perf_counter() - began, "texts": texts}), file=answers)


if __name__ == "__main__":
    main()
