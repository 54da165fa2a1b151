"""The compiled pass computes what torch's operations compute, in every format that it keeps numbers in."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from llvmlite import binding
from structlog.testing import capture_logs
from torch import Tensor
from torch.nn import functional
from transformers import WhisperForConditionalGeneration

from shared.models import ModelSource
from tests.support.checkpoints import BUNDLED, write_random
from worker.engine import calibration, kernels
from worker.engine.compiled_decoder import CompiledDecoder
from worker.engine.decoders import choose_format
from worker.engine.kernels import Affine
from worker.engine.text_decoder import Decoder
from worker.engine.values import SAMPLE_RATE, DecodingOptions, Window
from worker.engine.whisper import load_runner

pytestmark = pytest.mark.model

SLOTS = 5
"""Four rows are multiplied together, and one more alone."""

STEPS = 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random(tmp_path_factory.mktemp("shapes") / "tiny", "tiny")


@pytest.fixture
def fresh(folder: Path) -> Callable[[torch.dtype], Any]:
    def read(dtype: torch.dtype = torch.float32) -> Any:
        return WhisperForConditionalGeneration.from_pretrained(folder, dtype=dtype).eval()

    return read


def heard(decoder: Decoder, model: Any) -> Decoder:
    """With another sound in each row."""
    dice = torch.Generator().manual_seed(0)
    for row in range(decoder.slots):
        states = torch.randn(model.config.max_source_positions, model.config.d_model, generator=dice)
        decoder.place(row, states.to(model.dtype))
    return decoder


def written(decoder: Decoder, rows: int, steps: int = STEPS) -> Tensor:
    """Logits of some steps with rows at positions of their own, [steps, rows, vocabulary]."""
    dice = torch.Generator().manual_seed(1)
    found = []
    for step in range(steps):
        tokens = torch.randint(0, 2_000, (SLOTS,), generator=dice)[:rows]
        found.append(decoder.step(tokens, torch.full((rows,), step), step + 1).float())
    return torch.stack(found)


@pytest.mark.parametrize("rows", [1, 4, SLOTS])
def test_a_step_is_that_of_torch(fresh: Callable[..., Any], rows: int) -> None:
    model = fresh()
    with torch.inference_mode():
        expected = written(heard(Decoder(model, SLOTS), model), rows)
        found = written(heard(CompiledDecoder(model, SLOTS), model), rows)

    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    assert expected.std() > 0.1


@pytest.mark.parametrize(
    ("model_dtype", "kept", "off"),
    [
        (torch.float32, torch.float16, 0.01),
        (torch.bfloat16, torch.bfloat16, 0.1),
    ],
)
def test_numbers_kept_in_half_cost_little(
    fresh: Callable[..., Any], model_dtype: torch.dtype, kept: torch.dtype, off: float
) -> None:
    model, whole = fresh(model_dtype), fresh()
    with torch.inference_mode():
        decoder = CompiledDecoder(model, SLOTS, kept)
        expected = written(heard(Decoder(whole, SLOTS), whole), SLOTS)
        found = written(heard(decoder, model), SLOTS)

    assert decoder.slot_bytes == Decoder(whole, 1).slot_bytes // 2
    assert 0 < (found - expected).abs().max() < off * expected.abs().max()


def test_a_row_is_the_same_alone_and_among_others(fresh: Callable[..., Any]) -> None:
    model = fresh()
    with torch.inference_mode():
        among = written(heard(CompiledDecoder(model, SLOTS), model), SLOTS)
        alone = written(heard(CompiledDecoder(model, SLOTS), model), 1)

    torch.testing.assert_close(alone[:, 0], among[:, 0], rtol=0, atol=1e-4)


@pytest.mark.parametrize("kept", [torch.float32, torch.float16])
def test_rows_in_the_middle_are_written_moved_and_kept(fresh: Callable[..., Any], kept: torch.dtype) -> None:
    model = fresh()
    off = 1e-4 if kept == torch.float32 else 0.02

    def after(decoder: Decoder) -> Tensor:
        heard(decoder, model)
        for step in range(STEPS):
            decoder.step(torch.full((2,), 7 + step), torch.full((2,), step), step + 1, first=2)
        decoder.move(3, 0)
        decoder.resize(2, kept=2)
        decoder.resize(4, kept=2)
        return decoder.step(torch.tensor([9]), torch.tensor([STEPS]), STEPS + 1).float()

    with torch.inference_mode():
        torch.testing.assert_close(
            after(CompiledDecoder(model, SLOTS, kept)), after(Decoder(model, SLOTS)), rtol=0, atol=off
        )


def test_texts_are_read_and_asked_about_as_with_torch(fresh: Callable[..., Any]) -> None:
    """Of rows that are no neighbours, of several lengths, up to a layer in the middle."""
    model = fresh()
    rows, lengths, layers = (3, 0, 2), (9, 23, 4), (0, 2)
    dice = torch.Generator().manual_seed(2)
    texts = [torch.randint(0, 2_000, (length,), generator=dice).tolist() for length in lengths]

    def read(decoder: Decoder) -> tuple[Tensor, list[Tensor]]:
        heard(decoder, model)
        asked = decoder.questions(rows, texts, layers)
        decoder.read(1, texts[1])
        return decoder.step(torch.tensor([5]), torch.tensor([23]), 24, first=1).float(), asked

    with torch.inference_mode():
        (after, found), (expected_after, expected) = (
            read(CompiledDecoder(model, SLOTS)),
            read(Decoder(model, SLOTS)),
        )

    torch.testing.assert_close(after, expected_after, rtol=0, atol=1e-4)
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        for row, length in enumerate(lengths):
            torch.testing.assert_close(one[row, :, :length], other[row, :, :length], rtol=0, atol=1e-4)


def test_numbers_that_are_none_come_out(fresh: Callable[..., Any]) -> None:
    """Or nobody would know of a model that gives none."""
    model = fresh()
    model.model.decoder.layers[1].fc1.weight.data[3, 3] = float("nan")
    with torch.inference_mode():
        assert written(heard(CompiledDecoder(model, SLOTS), model), SLOTS, steps=1).isnan().all()


def test_exponentials_and_activations_are_those_of_torch() -> None:
    numbers = np.linspace(-86, 87, 4_001, dtype=np.float32)

    found = np.array([kernels.exp(number) for number in numbers])

    np.testing.assert_allclose(found, np.exp(numbers.astype(np.float64)), rtol=3e-7)
    assert kernels.exp(np.float32(-1e9)) < 1e-37
    assert np.isfinite(kernels.exp(np.float32(1e9)))

    near = np.linspace(-9, 9, 4_001, dtype=np.float32)
    activated = np.array([kernels.gelu(number) for number in near])
    expected = functional.gelu(torch.from_numpy(near).double()).numpy()
    np.testing.assert_allclose(activated, expected, rtol=0, atol=5e-7)


@pytest.mark.parametrize("columns", [4, 5, 17, 33])
@pytest.mark.parametrize("rows", [1, 3, 4, 7])
def test_a_product_has_any_size(rows: int, columns: int) -> None:
    dice = np.random.default_rng(rows * columns)
    left, right = dice.random((rows, 24), np.float32), dice.random((columns, 24), np.float32)
    bias = dice.random(columns, np.float32)
    out = np.full((rows, columns), np.nan, np.float32)

    kernels.product(left, Affine(right, bias), out)

    np.testing.assert_allclose(out, left @ right.T + bias, rtol=1e-5)


has_halves = pytest.mark.skipif(
    "x86" in binding.get_default_triple() and not binding.get_host_cpu_features().get("f16c", False),
    reason="this processor converts no float16",
)


@has_halves
def test_half_is_for_models_that_need_not_be_exact(fresh: Callable[..., Any]) -> None:
    model = fresh()

    assert choose_format(model, is_exact=True) == torch.float32
    assert choose_format(model, is_exact=False) == torch.float16


def test_weights_too_large_for_half_are_kept_whole(fresh: Callable[..., Any]) -> None:
    model = fresh()
    model.model.decoder.layers[0].fc2.bias.data[0] = 70_000

    assert choose_format(model, is_exact=False) == torch.float32


def test_another_activation_is_left_to_torch(fresh: Callable[..., Any]) -> None:
    model = fresh()
    model.config.activation_function = "relu"

    assert choose_format(model, is_exact=True) is None


def test_heads_of_an_odd_width_are_left_to_torch(fresh: Callable[..., Any]) -> None:
    """Four numbers of a query are taken at once."""
    model = fresh()
    model.config.decoder_attention_heads = model.config.d_model // 6

    assert choose_format(model, is_exact=True) is None


def test_who_cannot_compile_writes_as_before(
    fresh: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "numba.np.ufunc.omppool", None)

    with capture_logs() as logs:
        assert choose_format(fresh(), is_exact=True) is None

    assert [log["event"] for log in logs] == ["decoder_not_compiled"]


@has_halves
def test_what_is_kept_in_half_leaves_memory_whole() -> None:
    """And the runner goes on, with a long prompt and words too."""
    source = ModelSource("bundled", str(BUNDLED))
    runner = load_runner(source, device="cpu", dtype="auto", threads=1, batch_size=2)
    try:
        left = sum(weight.numel() for weight in runner._loaded.model.model.decoder.parameters())
        assert runner.card.details["decoder"] == "compiled, float16"
        assert left < runner.card.parameters / 20
        recording = calibration.recording()
        assert recording is not None
        options = DecodingOptions(prompt="One two three four five six seven.", word_timestamps=True)
        [found] = runner.run([Window(0, 0.0, recording, len(recording) / SAMPLE_RATE, options)])
        assert found.utterances[0].words
    finally:
        runner.close()
