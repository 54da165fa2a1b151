"""The runner on the bundled model; Transformers' own `generate` is the oracle."""

import json
import re
import shutil
import string
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import jiwer
import numpy as np
import pytest
import soundfile
import torch
from transformers import (
    GenerationConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperTokenizer,
)
from transformers.modeling_outputs import BaseModelOutput

from shared.errors import UnsupportedOption
from shared.models import ModelSource
from worker.engine import decoding
from worker.engine.loading import choose_device, choose_dtype
from worker.engine.probe import speechlike
from worker.engine.sources import ModelUnavailable
from worker.engine.values import SAMPLE_RATE, DecodingOptions, Hypothesis, Pcm, Window
from worker.engine.whisper import WhisperRunner, load_runner

ROOT = Path(__file__).parents[3]
BUNDLED = ROOT / "models" / "synthetic-en"
SAMPLES = ROOT / "models" / "samples"
LONGEST_CUT_S = 8.0
PAUSE_S = 0.2

GREEDY = DecodingOptions(language="en", temperatures=(0.0,))

pytestmark = pytest.mark.model


class Oracle:
    """Transformers as its documentation uses it: features in, `generate`, tokens out."""

    def __init__(self) -> None:
        self.model = WhisperForConditionalGeneration.from_pretrained(BUNDLED, dtype=torch.float32).eval()
        self.tokenizer = WhisperTokenizer.from_pretrained(BUNDLED)
        self.mel = WhisperFeatureExtractor.from_pretrained(BUNDLED)

    def tokens(self, pcm: Pcm, **options: object) -> tuple[int, ...]:
        """Of one decode, without prompt and end."""
        ids = self._generate(pcm, force_unique_generate_call=True, max_new_tokens=400, **options)
        config = self.model.generation_config
        prompt = 3 if options.get("return_timestamps") else 4
        written = ids[ids.index(config.decoder_start_token_id) + prompt :]
        return tuple(written[:-1] if written[-1] == config.eos_token_id else written)

    def text(self, pcm: Pcm) -> str:
        """Of the whole window, with `generate`'s own seeking."""
        ids = self._generate(pcm, return_timestamps=True)
        text: str = self.tokenizer.decode(ids, skip_special_tokens=True)
        return text

    def _generate(self, pcm: Pcm, **options: object) -> list[int]:
        features = self.mel(pcm / 32768.0, sampling_rate=SAMPLE_RATE, return_tensors="pt").input_features
        with torch.inference_mode():
            batch = self.model.generate(features, language="en", task="transcribe", **options)
        ids: list[int] = batch[0].tolist()
        return ids


@pytest.fixture(scope="session")
def runner() -> WhisperRunner:
    return load_runner(
        ModelSource("synthetic-en", str(BUNDLED)), device="cpu", dtype="float32", threads=1, batch_size=3
    )


@pytest.fixture(scope="session")
def oracle(runner: WhisperRunner) -> Oracle:
    return Oracle()


@pytest.fixture(scope="session")
def references() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((SAMPLES / "references.json").read_text())
    return content


def sound(name: str) -> Pcm:
    pcm, rate = soundfile.read(SAMPLES / name, dtype="int16")
    assert rate == SAMPLE_RATE
    return np.asarray(pcm, dtype=np.int16)


def window(pcm: Pcm, options: DecodingOptions = GREEDY) -> Window:
    return Window(0, 0.0, pcm, len(pcm) / SAMPLE_RATE, options)


def cuts(name: str, references: dict[str, Any]) -> list[tuple[Pcm, str]]:
    """The recording in windows of whole sentences, as many as fit, each with what is said in it."""
    pcm, segments = sound(name), references[name]["segments"]
    windows: list[list[dict[str, Any]]] = []
    for segment in segments:
        if windows and segment["end"] - windows[-1][0]["start"] <= LONGEST_CUT_S - 2 * PAUSE_S:
            windows[-1].append(segment)
        else:
            windows.append([segment])
    return [(_between(pcm, group[0]["start"], group[-1]["end"]), _text(group)) for group in windows]


def _between(pcm: Pcm, start_s: float, end_s: float) -> Pcm:
    return pcm[int(max(0, start_s - PAUSE_S) * SAMPLE_RATE) : int((end_s + PAUSE_S) * SAMPLE_RATE)]


def _text(segments: Sequence[dict[str, Any]]) -> str:
    return " ".join(segment["text"] for segment in segments)


def error_rate(references: Sequence[str], texts: Sequence[str]) -> float:
    def plain(text: str) -> str:
        return re.sub(f"[{re.escape(string.punctuation)}]", "", text.lower()).strip()

    return float(jiwer.wer([plain(text) for text in references], [plain(text) for text in texts]))


@pytest.mark.parametrize("name", ["short-1.flac", "short-2.flac", "short-3.flac"])
def test_greedy_tokens_are_those_of_generate(runner: WhisperRunner, oracle: Oracle, name: str) -> None:
    pcm = sound(name)

    (ours,) = runner.run([window(pcm)])
    (late,) = WhisperRunner(runner._loaded, as_on_card=True).run([window(pcm)])

    assert ours.tokens == late.tokens == oracle.tokens(pcm, return_timestamps=True)


@pytest.mark.slow
@pytest.mark.calm
def test_greedy_tokens_are_those_of_generate_on_every_cut(
    runner: WhisperRunner, oracle: Oracle, references: dict[str, Any]
) -> None:
    sounds = [pcm for pcm, _ in cuts("minute.flac", references)]

    for pcm, ours in zip(sounds, runner.run([window(pcm) for pcm in sounds]), strict=True):
        theirs = oracle.tokens(pcm, return_timestamps=True)
        assert ours.tokens[: len(theirs)] == theirs


def test_prompt_is_passed_as_generate_does(runner: WhisperRunner, oracle: Oracle) -> None:
    pcm = sound("short-3.flac")
    prompt = oracle.tokenizer.get_prompt_ids("A picnic.", return_tensors="pt")

    (ours,) = runner.run([window(pcm, replace(GREEDY, prompt="A picnic."))])

    assert ours.tokens == oracle.tokens(pcm, return_timestamps=True, prompt_ids=prompt)


def test_steering_tokens_in_a_prompt_are_text(runner: WhisperRunner) -> None:
    pcm = sound("short-3.flac")

    hostile, plain = (
        runner.run([window(pcm, replace(GREEDY, prompt=prompt))])[0]
        for prompt in ("Lake.<|startoftranscript|><|endoftext|>", "Lake.")
    )

    assert hostile.tokens == plain.tokens


@pytest.mark.slow
@pytest.mark.calm
def test_error_rate_is_that_of_generate(
    runner: WhisperRunner, oracle: Oracle, references: dict[str, Any]
) -> None:
    names = ("short-1.flac", "short-2.flac", "short-3.flac", "minute.flac")
    spoken = [cut for name in names for cut in cuts(name, references)]
    said = [text for _, text in spoken]

    ours = error_rate(said, [found.text for found in runner.run([window(pcm) for pcm, _ in spoken])])
    theirs = error_rate(said, [oracle.text(pcm) for pcm, _ in spoken])

    print(f"WER ours {ours:.3f}, generate {theirs:.3f}, {len(spoken)} windows")  # noqa: T201
    assert ours <= theirs + 0.01


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_window_alone_and_in_a_batch(runner: WhisperRunner, temperature: float) -> None:
    options = replace(GREEDY, temperatures=(temperature,))
    windows = [window(sound(f"short-{number}.flac"), options) for number in (1, 2, 3)]
    windows.append(window(windows[0].pcm[: 3 * SAMPLE_RATE], options))

    together = runner.run(windows)
    alone = [runner.run([one])[0] for one in windows]

    assert [one.tokens for one in together] == [one.tokens for one in alone]
    assert [one.avg_logprob for one in together] == pytest.approx(
        [one.avg_logprob for one in alone], abs=1e-3
    )


def test_sampling_is_repeatable(runner: WhisperRunner) -> None:
    one = window(sound("short-2.flac"), replace(GREEDY, temperatures=(1.0,)))

    assert runner.run([one])[0].tokens == runner.run([one])[0].tokens


def test_batch_of_nothing(runner: WhisperRunner) -> None:
    assert runner.run([]) == []


def test_silence_gives_no_text(runner: WhisperRunner) -> None:
    still = np.zeros(3 * SAMPLE_RATE, np.int16)
    faint = np.random.default_rng(0).normal(0, 2, 3 * SAMPLE_RATE).astype(np.int16)
    speech = sound("short-1.flac")

    found = runner.run([window(still), window(speech), window(faint), window(speech[:0])])

    assert [bool(one.text) for one in found] == [False, True, False, False]
    assert found[0].no_speech_prob > found[1].no_speech_prob


def test_windows_share_of_time_is_told(runner: WhisperRunner) -> None:
    began = time.perf_counter()

    found = runner.run([window(sound("short-1.flac"))] * 2)

    assert all(one.inference_s > 0 for one in found)
    assert sum(one.inference_s for one in found) <= time.perf_counter() - began


def test_rows_are_retried_on_their_own_sound(runner: WhisperRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hot first attempt is not good enough; each row must end as it does alone."""
    windows = [window(sound(f"short-{number}.flac")) for number in (1, 2, 3)]
    sure = [one.avg_logprob for one in runner.run(windows)]
    monkeypatch.setattr(decoding, "MIN_LOGPROB", max(sure) - 1e-3)
    hot_first = replace(GREEDY, temperatures=(1.0, 0.0))
    windows = [replace(one, options=hot_first) for one in windows]

    together = runner.run(windows)

    assert 0.0 in {one.temperature for one in together}
    assert [one.tokens for one in together] == [runner.run([one])[0].tokens for one in windows]


def test_steps_that_are_read_late_change_nothing(
    runner: WhisperRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Words, silence, a hot first attempt, and a window that breaks off, so that its rest is heard."""
    late = WhisperRunner(runner._loaded, 3, as_on_card=True)
    hot_first = replace(GREEDY, temperatures=(1.0, 0.0), word_timestamps=True)
    windows = [window(sound(f"short-{number}.flac"), hot_first) for number in (1, 2, 3)]
    windows += [window(np.zeros(3 * SAMPLE_RATE, np.int16)), window(sound("minute.flac")[: 14 * SAMPLE_RATE])]
    whole = runner.run(windows)[-1].tokens
    stamps = [number for number, token in enumerate(whole) if token in runner._tokens.timestamps]
    opened = next(second for first, second in pairwise(stamps) if second == first + 1)
    monkeypatch.setattr(decoding, "TOKENS_AT_LEAST", opened + 1)
    monkeypatch.setattr(decoding, "TOKENS_PER_SECOND", 0)

    found, expected = late.run(windows), runner.run(windows)

    assert len(expected[-1].tokens) > opened + 1, "a rest was heard"
    for one, other in zip(found, expected, strict=True):
        assert one.tokens == other.tokens
        assert times(one) == pytest.approx(times(other), abs=0.03)


def times(found: Hypothesis) -> list[float]:
    """Of all words, and of what has none."""
    spoken = [part for one in found.utterances for part in one.words or (one,)]
    return [edge for part in spoken for edge in (part.start, part.end)]


def test_token_cap_holds_for_each_row(runner: WhisperRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "TOKENS_AT_LEAST", 4)
    monkeypatch.setattr(decoding, "TOKENS_PER_SECOND", 1)
    pcm = sound("short-1.flac")

    long, short = runner.run([window(pcm), window(pcm[: 2 * SAMPLE_RATE])])

    assert (len(long.tokens), len(short.tokens)) == (4 + int(len(pcm) / SAMPLE_RATE), 6)


def test_lack_of_memory_is_said_in_pythons_way(
    runner: WhisperRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(*_args: object, **_kwargs: object) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")

    assert runner._encoder is not None
    monkeypatch.setattr(runner._encoder._layers[-1], "_narrow", exhausted)

    with pytest.raises(MemoryError):
        runner.run([window(sound("short-1.flac"))])


def test_language_is_detected_per_row(tmp_path: Path, oracle: Oracle) -> None:
    folder = Path(shutil.copytree(BUNDLED, tmp_path / "model"))
    (folder / "ananse.json").unlink()
    many = load_runner(ModelSource("many", str(folder)), device="cpu", dtype="float32", threads=1)
    pcm = sound("short-1.flac")

    found = many.run([window(pcm, DecodingOptions(temperatures=(0.0,)))])[0]

    assert many.card.abilities.language_detection
    assert found.language == "en"
    assert found.language_probability is not None
    assert found.language_probability > 0.9
    assert found.tokens == oracle.tokens(pcm, return_timestamps=True)


def test_language_the_model_is_not_for_is_refused(runner: WhisperRunner) -> None:
    with pytest.raises(UnsupportedOption):
        runner.run([window(sound("short-1.flac"), replace(GREEDY, language="fr"))])


def test_language_without_a_token_stands_behind_the_likeliest(tmp_path: Path, runner: WhisperRunner) -> None:
    """As with a fine-tune for Twi, which Whisper has no token for."""
    folder = Path(shutil.copytree(BUNDLED, tmp_path / "model"))
    (folder / "ananse.json").write_text('{"languages": ["tw"]}')
    (folder / "generation_config.json").write_text("{}")
    tuned = load_runner(ModelSource("twi", str(folder)), device="cpu", dtype="float32", threads=1)
    pcm = sound("short-1.flac")

    (found,) = tuned.run([window(pcm, DecodingOptions(temperatures=(0.0,)))])

    assert (found.language, found.language_probability) == ("tw", None)
    assert found.text == runner.run([window(pcm)])[0].text


def test_only_language_needs_no_detection(runner: WhisperRunner) -> None:
    (found,) = runner.run([window(sound("short-1.flac"), DecodingOptions(temperatures=(0.0,)))])

    assert (found.language, found.language_probability) == ("en", None)


def test_utterances_are_in_order_and_inside_the_window(runner: WhisperRunner) -> None:
    for number in (1, 2, 3):
        one = window(sound(f"short-{number}.flac"))
        edges = [edge for spoken in runner.run([one])[0].utterances for edge in (spoken.start, spoken.end)]
        assert edges == sorted(edges)
        assert edges[0] >= 0
        assert edges[-1] <= round(one.duration_s, 2)


def test_words_are_monotone_and_inside_their_utterance(runner: WhisperRunner) -> None:
    options = replace(GREEDY, word_timestamps=True)
    windows = [window(sound(f"short-{number}.flac"), options) for number in (1, 2, 3)]

    for one, found in zip(windows, runner.run(windows), strict=True):
        for spoken in found.utterances:
            assert spoken.words
            assert "".join(word.text for word in spoken.words) == spoken.text
            edges = [edge for word in spoken.words for edge in (word.start, word.end)]
            assert edges == sorted(edges)
            assert spoken.start <= edges[0]
            assert edges[-1] <= spoken.end <= round(one.duration_s, 2)
            assert all(0 <= word.probability <= 1 for word in spoken.words)


def test_words_do_not_change_the_text_or_the_attention(runner: WhisperRunner, oracle: Oracle) -> None:
    pcm = sound("short-3.flac")
    attention = runner._loaded.model.config._attn_implementation

    (found,) = runner.run([window(pcm, replace(GREEDY, word_timestamps=True))])

    assert found.tokens == oracle.tokens(pcm, return_timestamps=True)
    assert runner._loaded.model.config._attn_implementation == attention == "sdpa"
    assert not any(module._forward_hooks for module in runner._loaded.model.modules())


def test_words_are_the_same_in_a_batch(runner: WhisperRunner) -> None:
    options = replace(GREEDY, word_timestamps=True)
    windows = [window(sound(f"short-{number}.flac"), options) for number in (1, 2, 3)]

    for together, alone in zip(runner.run(windows), [runner.run([one])[0] for one in windows], strict=True):
        for ours, theirs in zip(together.utterances, alone.utterances, strict=True):
            assert ours.words is not None
            assert theirs.words is not None
            assert [word.start for word in ours.words] == pytest.approx(
                [word.start for word in theirs.words], abs=0.05
            )


def fine_tune(folder: Path, prefix: Sequence[str], references: dict[str, Any]) -> None:
    """Trains the bundled model's decoder for a few steps on text behind `prefix`, as fine-tunes are made."""
    oracle = Oracle()
    names = ("short-1.flac", "short-2.flac", "short-3.flac")
    labels = [
        [
            *oracle.tokenizer.convert_tokens_to_ids(list(prefix)),
            *oracle.tokenizer.encode(" " + references[name]["text"], add_special_tokens=False),
            oracle.model.config.eos_token_id,
        ]
        for name in names
    ]
    longest = max(map(len, labels))
    target = torch.tensor([[*label, *[-100] * (longest - len(label))] for label in labels])
    sounds = [sound(name) / 32768.0 for name in names]
    features = oracle.mel(sounds, sampling_rate=SAMPLE_RATE, return_tensors="pt").input_features
    with torch.no_grad():
        states = oracle.model.model.encoder(features).last_hidden_state
    optimizer = torch.optim.AdamW(oracle.model.model.decoder.parameters(), lr=5e-4)
    for _ in range(25):
        optimizer.zero_grad()
        oracle.model(encoder_outputs=BaseModelOutput(last_hidden_state=states), labels=target).loss.backward()
        optimizer.step()
    shutil.copytree(BUNDLED, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    oracle.model.generation_config = GenerationConfig()
    oracle.model.save_pretrained(folder / "weights")
    (folder / "weights" / "model.safetensors").rename(folder / "model.safetensors")
    shutil.rmtree(folder / "weights")


@pytest.mark.slow
@pytest.mark.calm
def test_fine_tune_without_timestamps_is_found_out(tmp_path: Path, references: dict[str, Any]) -> None:
    prefix = ("<|en|>", "<|transcribe|>", "<|notimestamps|>")
    fine_tune(tmp_path / "model", prefix, references)

    tuned = load_runner(
        ModelSource("tuned", str(tmp_path / "model")), device="cpu", dtype="float32", threads=1
    )
    one = window(sound("short-1.flac"), replace(GREEDY, word_timestamps=True))
    (plain,) = tuned.run([replace(one, options=GREEDY)])
    (timed,) = tuned.run([one])

    assert not tuned.card.abilities.segment_timestamps
    assert any("without timestamps" in repair for repair in tuned.card.abilities.repairs)
    assert error_rate([references["short-1.flac"]["text"]], [plain.text]) == 0
    assert [(spoken.start, spoken.end) for spoken in plain.utterances] == [(0.0, round(one.duration_s, 2))]
    assert timed.utterances[0].words


@pytest.mark.slow
@pytest.mark.calm
def test_fine_tune_without_language_is_found_out(tmp_path: Path, references: dict[str, Any]) -> None:
    fine_tune(tmp_path / "model", ("<|notimestamps|>",), references)

    tuned = load_runner(
        ModelSource("tuned", str(tmp_path / "model")), device="cpu", dtype="float32", threads=1
    )
    (found,) = tuned.run([window(sound("short-3.flac"))])

    assert any("without language" in repair for repair in tuned.card.abilities.repairs)
    assert not tuned.card.abilities.segment_timestamps
    assert error_rate([references["short-3.flac"]["text"]], [found.text]) == 0


def test_card_tells_what_is_loaded(runner: WhisperRunner) -> None:
    card = runner.card

    assert (card.name, card.device, card.dtype) == ("synthetic-en", "cpu", "float32")
    assert card.parameters > 1_000_000
    assert card.revision
    assert card.abilities.segment_timestamps
    assert card.abilities.repairs == ()
    assert card.abilities.window_s <= 30


def test_old_checkpoint_loads_and_decodes(tmp_path: Path, runner: WhisperRunner) -> None:
    """As checkpoints of 2022 are: no generation config, its settings in config.json, nothing suppressed."""
    folder = Path(shutil.copytree(BUNDLED, tmp_path / "model"))
    task = json.loads((folder / "generation_config.json").read_text())["task_to_id"]["transcribe"]
    for name in ("generation_config.json", "preprocessor_config.json", "ananse.json"):
        (folder / name).unlink()
    config = json.loads((folder / "config.json").read_text())
    legacy = {"forced_decoder_ids": [[1, None], [2, task]], "max_length": 448, "suppress_tokens": []}
    (folder / "config.json").write_text(json.dumps(config | legacy | {"torch_dtype": "float16"}))

    old = load_runner(ModelSource("old", str(folder)), device="cpu", dtype="float32", threads=1)
    (found,) = old.run([window(sound("short-3.flac"))])

    assert old.card.dtype == "float32"
    assert old.card.abilities.segment_timestamps
    assert len(old.card.abilities.repairs) == 3
    assert found.text == runner.run([window(sound("short-3.flac"))])[0].text


def test_english_only_model_is_prompted_without_language(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(BUNDLED, tmp_path / "model"))
    settings = json.loads((folder / "generation_config.json").read_text())
    settings |= {"is_multilingual": False, "lang_to_id": None, "task_to_id": None}
    (folder / "generation_config.json").write_text(json.dumps(settings))

    english = load_runner(ModelSource("en", str(folder)), device="cpu", dtype="float32", threads=1)
    (found,) = english.run([window(sound("short-3.flac"), replace(GREEDY, word_timestamps=True))])

    assert english.card.abilities.languages == ("en",)
    assert found.language == "en"


def test_number_format_follows_the_hardware() -> None:
    cpu = torch.device("cpu")

    assert choose_dtype("float32", cpu) is torch.float32
    assert choose_dtype("auto", cpu) in (torch.bfloat16, torch.float32)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_missing_gpu_is_said_plainly() -> None:
    assert choose_device("auto").type == "cpu"
    with pytest.raises(ModelUnavailable, match="No CUDA device"):
        choose_device("cuda")


def test_weights_that_do_not_fit_their_config_are_refused(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(BUNDLED, tmp_path / "model"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"d_model": 128}))

    with pytest.raises(ModelUnavailable, match="do not fit together"):
        load_runner(ModelSource("odd", str(folder)), device="cpu", dtype="float32", threads=1)


def test_probe_sounds_are_always_the_same() -> None:
    assert np.array_equal(speechlike(), speechlike())
    assert speechlike().dtype == np.int16
