"""A model comes when it is needed, leaves when it is not, and makes room where not all fit."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace

import numpy as np
import pytest

from shared.errors import NoWorker
from tests.fakes import ScriptedRunner, SteppedClock
from tests.support.waiting import wait_until
from worker.engine.engine import Engine
from worker.engine.residence import LULL_S, STAY_S, Residence
from worker.engine.values import SAMPLE_RATE, DecodingOptions, Hypothesis, ModelUnavailable, Runner, Window

PATIENCE_S = 10
BLINK_S = 0.01

Make = Callable[..., Engine]


def window(index: int = 0) -> Window:
    return Window(index, 0.0, np.zeros(SAMPLE_RATE, dtype=np.int16), 1.0, DecodingOptions(language="en"))


def wait_until_idle(engine: Engine) -> None:
    """Until its model has been in memory, and is there no more."""
    engine.card()
    wait_until(lambda: not engine.statistics().is_loaded, PATIENCE_S)


class Loads:
    """Loads a runner anew each time; `script` is asked before each and may raise."""

    def __init__(
        self, script: Callable[[int], None] = lambda number: None, revisions: Sequence[str] = ()
    ) -> None:
        self._revisions = iter(revisions)
        self.runners: list[ScriptedRunner] = []
        self.threads: set[int] = set()
        self.tries = 0
        self._script = script

    def __call__(self) -> Runner:
        self.tries += 1
        self.threads.add(threading.get_ident())
        self._script(self.tries)
        runner = ScriptedRunner()
        runner.card = replace(runner.card, revision=next(self._revisions, None))
        self.runners.append(runner)
        return runner


@pytest.fixture
def make() -> Iterator[Make]:
    engines: list[Engine] = []

    def engine(load: Loads, residence: Residence | None = None, **more: float) -> Engine:
        engines.append(Engine((residence or Residence()).add(load), 4, **more))
        return engines[-1]

    yield engine
    assert all(engine.close(PATIENCE_S) for engine in engines)


def test_a_model_is_loaded_at_once_by_the_thread_that_runs_it(make: Make) -> None:
    loads = Loads()
    engine = make(loads)

    assert engine.card().name == "scripted"
    engine.submit("job", window()).result(PATIENCE_S)

    assert loads.tries == 1
    assert loads.threads == loads.runners[0].threads != {threading.get_ident()}


def test_a_model_that_cannot_be_had_is_told_to_who_waits_for_it(make: Make) -> None:
    def refuse(number: int) -> None:
        raise ModelUnavailable("No such model.")

    with pytest.raises(ModelUnavailable, match="No such model"):
        make(Loads(refuse)).card()


def test_a_model_nobody_uses_leaves_memory_and_comes_back_with_the_next_window(make: Make) -> None:
    loads = Loads()
    engine = make(loads, idle_s=BLINK_S)
    wait_until_idle(engine)
    assert loads.runners[0].is_closed

    assert engine.submit("job", window(7)).result(PATIENCE_S).text == "window 7"

    assert len(loads.runners) == 2
    assert engine.card().name == "scripted"


def test_without_a_time_it_stays(make: Make) -> None:
    loads = Loads()
    engine = make(loads)
    engine.card()
    engine.submit("job", window()).result(PATIENCE_S)

    assert engine.statistics().is_loaded
    assert not loads.runners[0].is_closed


def test_a_load_is_no_work_of_the_model_s(make: Make) -> None:
    clock, is_loading, let_go = SteppedClock(), threading.Event(), threading.Event()

    def slowly(number: int) -> None:
        if number == 2:
            is_loading.set()
            assert let_go.wait(PATIENCE_S)

    residence = Residence(clock=clock)
    engine = make(Loads(slowly), residence, clock=clock, idle_s=BLINK_S)
    wait_until_idle(engine)
    future = engine.submit("job", window())
    assert is_loading.wait(PATIENCE_S)
    clock.advance(900.0)

    now = engine.statistics()
    assert (now.stuck_for_s, now.loading_for_s, now.busy_s) == (0.0, 900.0, 0.0)
    let_go.set()
    future.result(PATIENCE_S)
    assert engine.statistics().loading_for_s == 0.0


@pytest.mark.parametrize(
    "failure", [ModelUnavailable("Its files are gone."), MemoryError("no"), AttributeError("odd")]
)
def test_a_model_that_cannot_be_loaded_again_hands_its_windows_on(make: Make, failure: Exception) -> None:
    is_loading, let_go = threading.Event(), threading.Event()

    def once(number: int) -> None:
        if number > 1:
            is_loading.set()
            assert let_go.wait(PATIENCE_S)
            raise failure

    loads = Loads(once)
    engine = make(loads, idle_s=BLINK_S)
    wait_until_idle(engine)
    first = engine.submit("job", window())
    assert is_loading.wait(PATIENCE_S)
    waiting = engine.submit("other", window())
    let_go.set()

    for future in (first, waiting):
        with pytest.raises(NoWorker):
            future.result(PATIENCE_S)
    with pytest.raises(NoWorker):
        engine.submit("late", window()).result(PATIENCE_S)
    assert engine.statistics().lost
    assert loads.tries == 2, "it was given up, not tried for every window"


def test_files_that_are_not_the_same_any_more_are_not_used(make: Make) -> None:
    loads = Loads(revisions=("r1", "r2"))
    engine = make(loads, idle_s=BLINK_S)
    wait_until_idle(engine)

    with pytest.raises(NoWorker):
        engine.submit("job", window()).result(PATIENCE_S)

    assert "not those it was started with" in engine.statistics().lost
    assert loads.runners[1].is_closed


def test_at_most_so_many_are_in_memory_and_the_longest_unused_makes_room(make: Make) -> None:
    clock = SteppedClock()
    residence = Residence(most=2, clock=clock)
    engines = []
    for _ in range(3):
        engines.append(make(Loads(), residence, clock=clock))
        engines[-1].card()
        clock.advance(LULL_S)

    def loaded() -> list[bool]:
        return [engine.statistics().is_loaded for engine in engines]

    assert loaded() == [False, True, True]
    engines[1].submit("job", window()).result(PATIENCE_S)
    clock.advance(LULL_S)
    engines[0].submit("job", window()).result(PATIENCE_S)

    assert loaded() == [True, True, False]


def test_where_memory_runs_out_another_makes_room(make: Make) -> None:
    clock = SteppedClock()
    residence = Residence(clock=clock)
    first = make(Loads(), residence, clock=clock)
    first.card()
    clock.advance(LULL_S)

    def if_alone(number: int) -> None:
        if first.statistics().is_loaded:
            raise MemoryError

    second = make(Loads(if_alone), residence, clock=clock)

    assert second.card()
    assert not first.statistics().is_loaded
    clock.advance(LULL_S)
    assert first.submit("job", window()).result(PATIENCE_S).text == "window 0"


def test_who_is_alone_and_does_not_fit_says_so(make: Make) -> None:
    def never(number: int) -> None:
        raise MemoryError("model m does not fit into memory")

    with pytest.raises(ModelUnavailable, match="model m does not fit into memory"):
        make(Loads(never)).card()


def test_who_is_at_work_is_not_put_out_at_once_but_not_kept_for_ever() -> None:
    clock = SteppedClock()
    residence = Residence(clock=clock)
    resident = residence.add(Loads())

    with resident.hold():
        clock.advance(STAY_S - 1)
        assert not resident.make_room(), "it is in use"
        assert not resident.is_wanted, "it may work on for a while"
        clock.advance(1)
        assert not resident.make_room(), "it is in use"
        assert resident.is_wanted, "it has been in for long enough"
    assert resident.is_in
    with resident.hold():
        pass
    assert resident.make_room(), "it has been in for long enough"

    with resident.hold():
        pass
    assert not resident.make_room(), "it has only just come"
    clock.advance(LULL_S)
    assert resident.make_room(), "nobody uses it"


def test_windows_that_nobody_wants_any_more_load_nothing(make: Make) -> None:
    loads = Loads()
    engine = make(loads, idle_s=BLINK_S)
    wait_until_idle(engine)

    with engine._changed:
        # Before its thread can take them.
        assert all(engine.submit("job", window(index)).cancel() for index in range(2))
    wait_until(lambda: engine.statistics().waiting == 0, PATIENCE_S)

    assert loads.tries == 1


def test_a_model_that_is_never_without_work_makes_room_all_the_same(make: Make) -> None:
    """Else one backlog would keep all others out: what is in its slots ends, what waits has to wait."""
    clock = SteppedClock()
    residence = Residence(most=1, clock=clock)
    busy = make(Loads(), residence, clock=clock)
    busy.card()
    ended: list[Future[Hypothesis]] = []

    def again(future: Future[Hypothesis]) -> None:
        """Its windows never run out."""
        ended.append(future)
        clock.advance(1.0)
        if not future.cancelled():
            busy.submit("backlog", window()).add_done_callback(again)

    for _ in range(2):
        busy.submit("backlog", window()).add_done_callback(again)
    other = make(Loads(), residence, clock=clock)

    assert other.submit("job", window(7)).result(PATIENCE_S).text == "window 7"
    assert ended
