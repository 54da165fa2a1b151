"""A pass of the encoder stops between its layers, so that a window in a hurry goes before the rest of it."""

import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from shared.models import ModelSource, Shortcuts
from tests.support.service import SAMPLES
from worker.engine.encoder import Encoder, Pass, SoundStates
from worker.engine.engine import Engine
from worker.engine.listening import begin_pass, encode
from worker.engine.loading import Loaded, load
from worker.engine.values import SAMPLE_RATE, DecodingOptions, Ended, Hypothesis, Pcm, Window
from worker.engine.whisper import WhisperRunner

BUNDLED = Path(__file__).parents[3] / "models" / "synthetic-en"

LAYERS = 6
"""Of the bundled model's encoder: a pass takes as many steps, and silence that is met first as many again."""

MARGIN = Shortcuts(margin_s=0.5)

LONG, CLIP = 0, 1

pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def loaded() -> Loaded:
    source = ModelSource("synthetic-en", str(BUNDLED))
    return load(source, device="cpu", dtype="float32", threads=1, hf_endpoint=None)


@pytest.fixture(scope="module")
def windows() -> list[Window]:
    pcm, _ = soundfile.read(SAMPLES / "short-3.flac", dtype="int16")
    options = DecodingOptions(language="en", temperatures=(0.0,))
    sounds: list[Pcm] = [pcm, pcm[: 3 * SAMPLE_RATE]]
    return [Window(0, 0.0, np.asarray(one), len(one) / SAMPLE_RATE, options) for one in sounds]


def runner_of(loaded: Loaded, shortcuts: Shortcuts) -> WhisperRunner:
    short = Encoder(loaded.model, shortcuts) if shortcuts else None
    runner = WhisperRunner(replace(loaded, short=short), 2)
    runner.use_shortcuts()
    return runner


@pytest.fixture(scope="module")
def alone(loaded: Loaded, windows: list[Window]) -> list[Hypothesis]:
    """Each of them with nobody in its way."""
    return runner_of(loaded, MARGIN).run(windows)


def layers_of(runner: WhisperRunner, number: int, window: Window, layers: int) -> None:
    """Seats a window and goes so far into its pass."""
    runner.seat(number, window)
    for _ in range(layers):
        assert runner.step() == []
    assert [seat.number for seat in runner._coming] == [number]


def finish(runner: WhisperRunner) -> dict[int, Hypothesis]:
    ended: list[Ended] = []
    while runner._coming or any(runner._rows):
        ended += runner.step()
    return {one.number: one.hypothesis for one in ended}


@pytest.mark.parametrize("layers", [2, LAYERS + 2], ids=["in the silence", "in the sound"])
def test_a_window_in_a_hurry_is_written_before_a_long_one_is_heard_out(
    loaded: Loaded, windows: list[Window], alone: list[Hypothesis], layers: int
) -> None:
    runner = runner_of(loaded, MARGIN)
    layers_of(runner, LONG, windows[LONG], layers)

    runner.seat(CLIP, windows[CLIP])
    ended: list[Ended] = []
    while not ended:
        ended = runner.step(urgent=[CLIP])
    assert [one.number for one in ended] == [CLIP]
    assert [seat.number for seat in runner._coming] == [LONG]

    for _ in range(2 * LAYERS - layers):
        assert runner._coming
        runner.step()
    assert not runner._coming
    # What the model leaves unfinished of it is another pass.
    assert [seat.hearing for seat in runner._rows if seat] == [None]
    [long] = finish(runner).values()
    assert ended[0].hypothesis.tokens == alone[CLIP].tokens
    assert long.tokens == alone[LONG].tokens


def test_a_pass_without_shortcuts_stops_too_and_is_the_whole_one(
    loaded: Loaded, windows: list[Window]
) -> None:
    """Bit for bit."""
    with torch.inference_mode():
        way = begin_pass(Encoder(loaded.model, Shortcuts()), loaded.mel, windows[CLIP].pcm)
        ours = end_of(way, stops=LAYERS - 1)
        [whole] = encode(loaded.model, loaded.mel, [windows[CLIP].pcm])

    assert torch.equal(ours.whole(), whole)
    layers_of(runner_of(loaded, Shortcuts()), LONG, windows[LONG], LAYERS - 1)


def end_of(way: Pass, stops: int) -> SoundStates:
    for _ in range(stops):
        next(way)
    with pytest.raises(StopIteration) as end:
        next(way)
    states: SoundStates = end.value.value
    return states


def test_of_a_pass_that_nobody_wants_any_more_nothing_is_left(
    loaded: Loaded, windows: list[Window], alone: list[Hypothesis]
) -> None:
    runner = runner_of(loaded, MARGIN)
    layers_of(runner, LONG, windows[LONG], LAYERS + 2)
    way = weakref.ref(runner._coming[0].hearing)

    runner.unseat(LONG)

    assert way() is None
    runner.seat(CLIP, windows[CLIP])
    assert finish(runner)[CLIP].tokens == alone[CLIP].tokens


def test_a_pass_that_runs_out_of_memory_on_its_way_begins_again(
    loaded: Loaded, windows: list[Window], alone: list[Hypothesis]
) -> None:
    runner = runner_of(loaded, MARGIN)
    assert runner._encoder is not None
    layer = runner._encoder._layers[3]
    widen = layer._widen

    def runs_out(rows: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        layer._widen = widen
        raise RuntimeError("DefaultCPUAllocator: not enough memory")

    layer._widen = runs_out
    engine = Engine(runner, 2)
    try:
        found = engine.submit("job", windows[CLIP]).result(timeout=120)
        overflows = engine.statistics().overflows
    finally:
        engine.close(60)

    assert overflows == 1
    assert found.tokens == alone[CLIP].tokens
