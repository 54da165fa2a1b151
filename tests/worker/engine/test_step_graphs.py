"""What a card plays back must be a step like any other, and may not ask the host for anything."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from structlog.testing import capture_logs
from torch.utils._python_dispatch import TorchDispatchMode

from tests.support.windows import mixed
from worker.engine import decoding
from worker.engine.loading import Loaded
from worker.engine.rules import Rules
from worker.engine.step_graphs import Capture, Graph, StepGraphs
from worker.engine.text_decoder import Decoder
from worker.engine.whisper import WhisperRunner

pytestmark = pytest.mark.model

SLOTS = 6
ASKING = ("item", "_local_scalar_dense", "is_nonzero", "nonzero", "lift_fresh", "masked_select", "unique")
"""What reads a number back, has a shape of its data's, or brings numbers from the host."""


class NeverAsks(TorchDispatchMode):
    def __torch_dispatch__(
        self, act: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = act.overloadpacket.__name__
        assert name not in ASKING, f"{name} makes the host wait"
        if name.startswith("index"):
            masks = [one for one in args[1] if one is not None and one.dtype == torch.bool]
            assert not masks, f"{name} by a mask looks for what is true in it"
        return act(*args, **(kwargs or {}))


@pytest.fixture(autouse=True)
def inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


def decoder(nano: Loaded) -> Decoder:
    """With a sound of its own in each row."""
    made = Decoder(nano.model, SLOTS)
    torch.manual_seed(0)
    config = nano.model.config
    for row in range(SLOTS):
        made.place(row, torch.randn(config.max_source_positions, config.d_model))
    return made


def rules(nano: Loaded) -> Rules:
    made = Rules(nano.tokens, SLOTS, timestamps=True, device=torch.device("cpu"))
    for row in range(SLOTS):
        made.begin(row, max_tokens=9, temperature=0.8 if row == 1 else 0.0, seed=row)
    return made


@pytest.mark.parametrize(
    "asks",
    [
        lambda tensor: tensor.sum().item(),
        lambda tensor: bool(tensor.any()),
        lambda tensor: tensor[tensor > 0],
        lambda tensor: tensor.nonzero(),
        lambda tensor: torch.tensor([1, 2]),
    ],
)
def test_who_asks_is_found_out(asks: Callable[[torch.Tensor], object]) -> None:
    with pytest.raises(AssertionError), NeverAsks():
        asks(torch.ones(3))


def test_a_step_never_waits_for_the_card(nano: Loaded) -> None:
    made, writes = decoder(nano), rules(nano)
    graphs = StepGraphs(made, torch.device("cpu"))
    rows, positions = slice(0, 3), torch.tensor([0, 5, 2])

    with NeverAsks():
        for steps in (made, graphs):
            logits = steps.step(writes.last(rows), positions, longest=6)
            writes.choose(logits)


def test_few_shapes_stand_for_all(nano: Loaded) -> None:
    made = decoder(nano)
    shapes = set(StepGraphs(made, torch.device("cpu"))._shapes())

    assert {rows for rows, _ in shapes} == {1, 2, 4, 6}
    assert {length for _, length in shapes} == {64, 128, 192, 256, 320, 384, 448}


@pytest.mark.parametrize("count", [1, 3, 5, 6])
def test_rows_that_fill_up_change_nothing(nano: Loaded, count: int) -> None:
    """Neither the logits of those in use nor the caches of the others, as far as anybody reads them."""
    plain, filled = decoder(nano), decoder(nano)
    graphs = StepGraphs(filled, torch.device("cpu"))
    everywhere = torch.arange(SLOTS)
    for steps in (plain, graphs):
        for position in range(2):
            steps.step(everywhere + 50 + position, torch.full((SLOTS,), position), position + 1)
    logits = [
        [
            steps.step(
                torch.full((count,), 7 * position), torch.full((count,), position), position + 1
            ).clone()
            for position in range(2, 5)
        ]
        for steps in (plain, graphs)
    ]
    after = [steps.step(everywhere, torch.full((SLOTS,), 5), longest=6) for steps in (plain, graphs)]

    for ours, theirs in zip(*logits, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-3)
    assert torch.allclose(*after, atol=1e-3)


def test_rows_from_the_middle_are_steps_as_ever(nano: Loaded) -> None:
    plain, filled = decoder(nano), decoder(nano)
    tokens, positions = torch.tensor([9, 8]), torch.tensor([0, 0])

    ours = StepGraphs(filled, torch.device("cpu")).step(tokens, positions, longest=1, first=3)

    assert torch.equal(ours, plain.step(tokens, positions, longest=1, first=3))


def test_a_processor_captures_nothing(nano: Loaded) -> None:
    graphs = StepGraphs(decoder(nano), torch.device("cpu"))

    graphs.prove(lambda: pytest.fail("nor does it write for that"))

    assert not graphs._graphs


def in_place(compute: Callable[[], torch.Tensor], wrong_by: int = 0) -> Graph:
    """What a card does, without one: computed again where its logits have always been."""
    logits = compute()

    def play() -> None:
        logits.copy_(compute().roll(wrong_by, dims=-1))

    return play, logits


def runner_with(nano: Loaded, capture: Capture) -> WhisperRunner:
    runner = WhisperRunner(nano, 4, as_on_card=True)
    runner._graphs._card = lambda: capture
    return runner


@pytest.fixture
def few_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "TOKENS_AT_LEAST", 8)
    monkeypatch.setattr(decoding, "TOKENS_PER_SECOND", 2)


@pytest.mark.usefixtures("few_tokens")
def test_what_is_played_back_writes_the_same(nano: Loaded) -> None:
    """All steps, with more and fewer slots as well."""
    windows = mixed(5)
    expected = WhisperRunner(nano, 4, as_on_card=False).run(windows)
    runner = runner_with(nano, in_place)

    runner.warm_up()
    assert len(runner._graphs._graphs) == 3 * 7
    for slots in (4, 2, 5):
        runner.resize(slots)
        found = runner.run(windows)
        assert [one.tokens for one in found] == [one.tokens for one in expected]
        assert [one.no_speech_prob for one in found] == pytest.approx(
            [one.no_speech_prob for one in expected], abs=1e-5
        )
    assert len(runner._graphs._graphs) == 4 * 7


@pytest.mark.usefixtures("few_tokens")
@pytest.mark.parametrize(("fails", "reason"), [(False, "the text is another"), (True, "RuntimeError")])
def test_graphs_that_do_not_work_are_left_alone(nano: Loaded, fails: bool, reason: str) -> None:
    windows = mixed(3)
    expected = WhisperRunner(nano, 4, as_on_card=False).run(windows)

    def captured(compute: Callable[[], torch.Tensor]) -> Graph:
        if fails:
            raise RuntimeError("operation not permitted when stream is capturing")
        return in_place(compute, wrong_by=1)

    runner = runner_with(nano, captured)
    with capture_logs() as logs:
        runner.warm_up()
    runner.resize(3)

    assert [line["reason"] for line in logs if line["event"] == "step_graphs_refused"] == [reason]
    assert not runner._graphs._graphs
    assert [one.tokens for one in runner.run(windows)] == [one.tokens for one in expected]


@pytest.mark.usefixtures("few_tokens")
def test_graphs_that_break_when_played_are_left_alone(nano: Loaded) -> None:
    def captured(compute: Callable[[], torch.Tensor]) -> Graph:
        def play() -> None:
            raise RuntimeError("CUDA error: invalid argument")

        return play, compute()

    runner = runner_with(nano, captured)
    runner.warm_up()

    assert not runner._graphs._graphs


@pytest.mark.usefixtures("few_tokens")
def test_graphs_leave_before_the_caches_that_they_read(nano: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their memory is wanted, too, where there is none for other caches."""
    runner = runner_with(nano, in_place)
    runner.warm_up()

    def exhausted(*_args: object, **_kwargs: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(runner._decoder, "resize", exhausted)
    with pytest.raises(MemoryError):
        runner.resize(2)

    assert not runner._graphs._graphs
