"""The encoder that does less: the same as the whole where it does all, close to it where it does not."""

import copy
import gc
import weakref
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
from worker.engine.encoder import (
    REMEMBERED,
    SAMPLES_PER_POSITION,
    Encoder,
    Silence,
    SoundStates,
    packed_int8,
)
from worker.engine.listening import begin_pass, encode
from worker.engine.loading import Loaded, choose_shortcuts, load
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


def as_loud(pcm: Pcm, share: float) -> Pcm:
    return (pcm * share).astype(np.int16)


def heard(short: Encoder, loaded: Loaded, pcm: Pcm) -> SoundStates:
    """From beginning to end."""
    way = begin_pass(short, loaded.mel, pcm)
    while True:
        try:
            next(way)
        except StopIteration as end:
            states: SoundStates = end.value
            return states


def away(ours: torch.Tensor, whole: torch.Tensor) -> float:
    """How far off, as a share of what there is."""
    return float((ours - whole).norm() / whole.norm())


def both(loaded: Loaded, shortcuts: Shortcuts, pcm: Pcm) -> tuple[torch.Tensor, torch.Tensor]:
    """States of the short and of the whole encoder."""
    with torch.inference_mode():
        ours = heard(Encoder(loaded.model, shortcuts), loaded, pcm).whole()
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


@pytest.mark.parametrize("share", [1.0, 0.3, 0.01])
def test_the_silence_remembered_is_as_loud_as_that_behind_the_sound(
    loaded: Loaded, sentence: Pcm, share: float
) -> None:
    """So far below the loudest, or the lowest there is. The next level is off by three times what is allowed
    here."""
    pcm = as_loud(sentence, share)
    features = loaded.mel([pcm / 32768.0], sampling_rate=SAMPLE_RATE, return_tensors="pt").input_features
    behind = features[:, :, -1:].expand_as(features).contiguous()

    with torch.inference_mode():
        found = heard(Encoder(loaded.model, MARGIN), loaded, pcm)
        whole = loaded.model.model.encoder(behind).last_hidden_state

    assert found.silence is not None
    assert away(found.silence.states, whole) < 0.01


def test_the_last_position_hears_what_follows_it(loaded: Loaded, sentence: Pcm) -> None:
    """That is silence, and not the end of the world. Without it the last position is 14 % off."""
    short = Encoder(loaded.model, Shortcuts(margin_s=0.5))
    pcm = sentence[: 2 * SAMPLE_RATE]

    with torch.inference_mode():
        ours = heard(short, loaded, pcm).states
        whole = encode(loaded.model, loaded.mel, [pcm])[0, : len(ours)]

    assert away(ours[-1], whole[-1]) < 0.07


def test_the_silences_used_last_are_remembered_and_no_others(random: Loaded, sentence: Pcm) -> None:
    short, shares = Encoder(random.model, MARGIN), (1.0, 0.1, 0.01, 0.3)

    def behind(share: float) -> Silence:
        found = heard(short, random, as_loud(sentence, share)).silence
        assert found is not None
        return found

    with torch.inference_mode():
        first, second, third = (behind(share) for share in shares[:REMEMBERED])
        assert behind(shares[0]) is first
        behind(shares[REMEMBERED])

        assert behind(shares[2]) is third
        assert behind(shares[0]) is first
        assert behind(shares[1]) is not second
    assert len(short._silences) == REMEMBERED


def test_memory_of_what_is_remembered_is_told(random: Loaded, sentence: Pcm) -> None:
    """As it is, nothing of it in memory twice and nothing beside it."""
    short = Encoder(random.model, MARGIN)
    runner = WhisperRunner(replace(random, short=short), 4)
    runner.use_shortcuts()
    for number, share in enumerate((1.0, 0.1, 0.01, 0.3)):
        runner.seat(number, window(as_loud(sentence, share)))
        while runner._coming:
            runner.step()

    kept = [
        tensor
        for one in short._silences.values()
        for tensor in (*one.keys, *one.values, one.states, *(half for pair in one.sound for half in pair))
    ]
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in kept}
    assert short.silence_bytes(runner._decoder.sound_bytes) == sum(storages.values())
    assert Encoder(random.model, Shortcuts(int8=True)).silence_bytes(1) == 0


def test_what_is_remembered_goes_with_the_model(random: Loaded) -> None:
    """Before its memory is given back to the system."""
    short = Encoder(random.model, MARGIN)
    gone = weakref.ref(short)
    runner = WhisperRunner(replace(random, short=short))
    runner.use_shortcuts()
    del short

    runner.close()

    assert gone() is None


def test_the_decoder_gets_what_it_would_make_of_the_whole(loaded: Loaded, sentence: Pcm) -> None:
    """Though it makes the silence's part once; whatever was in the row before, and in that row alone."""
    decoder, short = Decoder(loaded.model, 3), Encoder(loaded.model, MARGIN)
    tokens, positions = torch.tensor([loaded.tokens.sot] * 3), torch.zeros(3, dtype=torch.long)
    with torch.inference_mode():
        [before] = encode(loaded.model, loaded.mel, [np.resize(sentence[::-1], WINDOW_SAMPLES)])
        for row in range(3):
            decoder.place(row, before)
        rest = decoder.step(tokens, positions, longest=1)[2]

        ours = heard(short, loaded, sentence)
        assert ours.silence is not None
        decoder.place(0, ours.whole())
        decoder.place(1, ours.states, behind=decoder.sound(ours.silence.states[0]))

        for layer in range(loaded.model.config.decoder_layers):
            assert away(decoder.sound_keys([1], layer), decoder.sound_keys([0], layer)) < 1e-5
        one, other, unharmed = decoder.step(tokens, positions, longest=1)
        assert away(one, other) < 1e-4
        assert torch.equal(unharmed, rest)


def test_a_margin_is_behind_the_sound_and_never_beyond_the_window(loaded: Loaded) -> None:
    short = Encoder(loaded.model, Shortcuts(margin_s=1.0))

    assert short.samples(0) == SAMPLE_RATE
    assert short.samples(1) == SAMPLE_RATE + 320
    assert short.samples(WINDOW_SAMPLES - 10) == WINDOW_SAMPLES
    assert Encoder(loaded.model, Shortcuts(int8=True)).samples(1) == WINDOW_SAMPLES


@pytest.mark.parametrize("is_one_length", [False, True])
def test_int8_is_close_to_what_it_stands_for(is_one_length: bool) -> None:
    torch.manual_seed(0)
    rows, weight, bias = torch.randn(20, 64), torch.randn(32, 64), torch.randn(32)
    engine = torch.backends.quantized.engine
    whole = rows @ weight.T + bias

    assert away(packed_int8(weight, bias, is_one_length=is_one_length)(rows), whole) < 0.03
    assert torch.backends.quantized.engine == engine


def window(pcm: Pcm) -> Window:
    options = DecodingOptions(language="en", temperatures=(0.0,))
    return Window(0, 0.0, pcm, len(pcm) / SAMPLE_RATE, options)


def run(runner: WhisperRunner, pcm: Pcm) -> str:
    [found] = runner.run([window(pcm)])
    return found.text


def with_shortcuts(loaded: Loaded, shortcuts: Shortcuts, recording: Pcm | None) -> WhisperRunner:
    whole = Encoder(loaded.model, Shortcuts())
    short = Encoder(loaded.model, shortcuts, beside=whole)
    runner = WhisperRunner(replace(loaded, whole=whole, short=short))
    runner.take_shortcuts(recording)
    return runner


def test_shortcuts_are_taken_where_the_text_stays_the_same_and_told(loaded: Loaded, sentence: Pcm) -> None:
    whole = WhisperRunner(loaded)

    short = with_shortcuts(loaded, MARGIN, calibration.recording())

    assert whole.card.details["encoder"] == "30 s, whole matrices"
    assert short.card.details["encoder"] == "sound and 1.3 s, whole matrices"
    assert run(short, sentence) == run(whole, sentence)

    assert short.card.details["silence_bytes"] == str(REMEMBERED * (2 * 6 + 1 + 2 * 4) * 1_500 * 256 * 4)
    assert "silence_bytes" not in whole.card.details


def test_a_text_depends_on_nothing_that_was_heard_before(loaded: Loaded, sentence: Pcm) -> None:
    """Though silence of another level is remembered, and what the decoder made of it, and a longer sound was
    in the row before."""
    loud = window(sentence)
    quiet = window(as_loud(sentence[:SAMPLE_RATE], 0.01))
    before, alone = (WhisperRunner(replace(loaded, short=Encoder(loaded.model, MARGIN))) for _ in "12")
    before.use_shortcuts()
    alone.use_shortcuts()

    before.run([loud])
    [found], [expected] = before.run([quiet]), alone.run([quiet])

    assert found.text == expected.text
    assert found.avg_logprob == expected.avg_logprob


def test_shortcuts_are_refused_where_the_text_is_another(loaded: Loaded, sentence: Pcm) -> None:
    """The end of what is said is cut off by this one."""
    short = with_shortcuts(loaded, Shortcuts(margin_s=-2.0), calibration.recording())

    assert short.card.details["encoder"] == "30 s, whole matrices"
    assert run(short, sentence) == run(WhisperRunner(loaded), sentence)


def test_without_a_recording_to_try_on_nothing_is_left_out(loaded: Loaded) -> None:
    assert with_shortcuts(loaded, MARGIN, None).card.details["encoder"] == "30 s, whole matrices"


def test_what_two_encoders_can_share_is_in_memory_once(random: Loaded) -> None:
    whole = Encoder(random.model, Shortcuts())

    assert Encoder(random.model, MARGIN, beside=whole)._layers is whole._layers
    assert Encoder(random.model, Shortcuts(int8=True), beside=whole)._layers is not whole._layers


@pytest.mark.parametrize("shortcuts", [MARGIN, Shortcuts(int8=True)])
def test_whole_matrices_leave_memory_where_others_took_their_place(
    loaded: Loaded, sentence: Pcm, shortcuts: Shortcuts
) -> None:
    """And nowhere else: the others are made of them."""
    model = copy.deepcopy(loaded.model)
    matrix = weakref.ref(model.model.encoder.layers[0].fc1.weight)
    runner = with_shortcuts(replace(loaded, model=model), shortcuts, sentence[:SAMPLE_RATE])
    assert runner.card.details["encoder"] == str(shortcuts)

    gc.collect()
    assert (matrix() is None) is shortcuts.int8
    assert len(model.model.encoder.layers) == (0 if shortcuts.int8 else 6)


def test_what_a_model_bears_is_for_its_own_number_format(loaded: Loaded) -> None:
    """And what was asked for goes before what the model bears."""
    model, borne = loaded.model, Shortcuts(margin_s=1.3)

    assert choose_shortcuts(None, borne, model) == borne
    assert choose_shortcuts(None, None, model) == Shortcuts()
    assert choose_shortcuts(Shortcuts(), borne, model) == Shortcuts()
    assert choose_shortcuts(Shortcuts(margin_s=2.0), borne, model).margin_s == 2.0
