"""The encoder that does less: the same as the whole where it does all, close to it where it does not."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from shared.models import ModelSource, Shortcuts
from tests.support.checkpoints import write_random
from tests.support.service import SAMPLES
from worker.engine import calibration
from worker.engine.listening import encode, encode_shortly
from worker.engine.loading import Loaded, choose_shortcuts, load
from worker.engine.short_encoder import SAMPLES_PER_POSITION, ShortEncoder, packed_int8
from worker.engine.text_decoder import Decoder
from worker.engine.values import SAMPLE_RATE, WINDOW_SAMPLES, DecodingOptions, Pcm, Window
from worker.engine.whisper import WhisperRunner

BUNDLED = Path(__file__).parents[3] / "models" / "synthetic-en"

pytestmark = pytest.mark.model

MARGIN = Shortcuts(margin_s=1.3)


@pytest.fixture(scope="module")
def loaded() -> Loaded:
    source = ModelSource("synthetic-en", str(BUNDLED))
    return load(source, device="cpu", dtype="float32", threads=1, hf_endpoint=None)


@pytest.fixture(scope="module")
def random(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    folder = write_random(tmp_path_factory.mktemp("shapes") / "tiny", "tiny")
    return load(ModelSource("tiny", str(folder)), device="cpu", dtype="float32", threads=1, hf_endpoint=None)


@pytest.fixture(scope="module")
def sentence() -> Pcm:
    pcm, _ = soundfile.read(SAMPLES / "short-2.flac", dtype="int16")
    return np.asarray(pcm, dtype=np.int16)


def away(ours: torch.Tensor, whole: torch.Tensor) -> float:
    """How far off, as a share of what there is."""
    return float((ours - whole).norm() / whole.norm())


def both(loaded: Loaded, shortcuts: Shortcuts, pcm: Pcm) -> tuple[torch.Tensor, torch.Tensor]:
    """States of the short and of the whole encoder."""
    with torch.inference_mode():
        ours = encode_shortly(ShortEncoder(loaded.model, shortcuts), loaded.mel, pcm).whole()
        return ours, encode(loaded.model, loaded.mel, [pcm])[0]


def test_with_nothing_left_out_the_states_are_those_of_the_whole(random: Loaded, sentence: Pcm) -> None:
    assert away(*both(random, Shortcuts(), sentence)) < 1e-5
    assert away(*both(random, MARGIN, np.resize(sentence, WINDOW_SAMPLES))) < 1e-5


def test_the_sound_is_heard_as_by_the_whole(loaded: Loaded, sentence: Pcm) -> None:
    ours, whole = both(loaded, MARGIN, sentence)

    spoken = len(sentence) // SAMPLES_PER_POSITION
    assert ours.shape == whole.shape
    assert away(ours[:spoken], whole[:spoken]) < 0.05


def test_silence_is_heard_as_by_the_whole(loaded: Loaded) -> None:
    assert away(*both(loaded, MARGIN, np.zeros(SAMPLE_RATE, np.int16))) < 1e-4


def test_the_decoder_gets_what_it_would_make_of_the_whole(loaded: Loaded, sentence: Pcm) -> None:
    """Though it makes the silence's part once."""
    decoder, short = Decoder(loaded.model, 2), ShortEncoder(loaded.model, MARGIN)
    with torch.inference_mode():
        heard = encode_shortly(short, loaded.mel, sentence)
        assert heard.silence is not None
        decoder.place(0, heard.whole())
        decoder.place(1, heard.states, behind=decoder.sound(heard.silence.states[0]))

        for layer in range(loaded.model.config.decoder_layers):
            assert away(decoder.sound_keys(1, layer), decoder.sound_keys(0, layer)) < 1e-5
        tokens, positions = torch.tensor([loaded.tokens.sot] * 2), torch.zeros(2, dtype=torch.long)
        one, other = decoder.step(tokens, positions, longest=1)
        assert away(one, other) < 1e-4


def test_a_margin_is_behind_the_sound_and_never_beyond_the_window(loaded: Loaded) -> None:
    short = ShortEncoder(loaded.model, Shortcuts(margin_s=1.0))

    assert short.samples(0) == SAMPLE_RATE
    assert short.samples(1) == SAMPLE_RATE + 320
    assert short.samples(WINDOW_SAMPLES - 10) == WINDOW_SAMPLES
    assert ShortEncoder(loaded.model, Shortcuts(int8=True)).samples(1) == WINDOW_SAMPLES


def test_int8_is_close_to_what_it_stands_for() -> None:
    torch.manual_seed(0)
    rows, weight, bias = torch.randn(20, 64), torch.randn(32, 64), torch.randn(32)
    whole = rows @ weight.T + bias

    assert away(packed_int8(weight, bias)(rows), whole) < 0.03


def run(runner: WhisperRunner, pcm: Pcm) -> str:
    options = DecodingOptions(language="en", temperatures=(0.0,))
    [found] = runner.run([Window(0, 0.0, pcm, len(pcm) / SAMPLE_RATE, options)])
    return found.text


def with_shortcuts(loaded: Loaded, shortcuts: Shortcuts, recording: Pcm | None) -> WhisperRunner:
    runner = WhisperRunner(replace(loaded, short=ShortEncoder(loaded.model, shortcuts)))
    runner.take_shortcuts(recording)
    return runner


def test_shortcuts_are_taken_where_the_text_stays_the_same_and_told(loaded: Loaded, sentence: Pcm) -> None:
    whole = WhisperRunner(loaded)

    short = with_shortcuts(loaded, MARGIN, calibration.recording())

    assert whole.card.details["encoder"] == "30 s, whole matrices"
    assert short.card.details["encoder"] == "sound and 1.3 s, whole matrices"
    assert run(short, sentence) == run(whole, sentence)


def test_shortcuts_are_refused_where_the_text_is_another(loaded: Loaded, sentence: Pcm) -> None:
    """The end of what is said is cut off by this one."""
    short = with_shortcuts(loaded, Shortcuts(margin_s=-2.0), calibration.recording())

    assert short.card.details["encoder"] == "30 s, whole matrices"
    assert run(short, sentence) == run(WhisperRunner(loaded), sentence)


def test_without_a_recording_to_try_on_nothing_is_left_out(loaded: Loaded) -> None:
    assert with_shortcuts(loaded, MARGIN, None).card.details["encoder"] == "30 s, whole matrices"


def test_what_a_model_bears_is_for_its_own_number_format(loaded: Loaded) -> None:
    """And what was asked for goes before what the model bears."""
    model, borne = loaded.model, Shortcuts(margin_s=1.3)

    assert choose_shortcuts(None, borne, model) == borne
    assert choose_shortcuts(None, None, model) == Shortcuts()
    assert choose_shortcuts(Shortcuts(), borne, model) == Shortcuts()
    assert choose_shortcuts(Shortcuts(margin_s=2.0), borne, model).margin_s == 2.0
