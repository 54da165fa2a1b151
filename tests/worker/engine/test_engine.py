"""One thread, shared slots, and failures that stay where they belong."""

import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import CancelledError, Future

import numpy as np
import pytest

from shared.errors import ModelError, OutOfMemory
from tests.fakes import InPasses, ScriptedRunner, SteppedClock, hypothesis
from worker.engine.engine import SHARED_STEPS, Engine
from worker.engine.meter import RECOVERY_WINDOWS
from worker.engine.scheduler import KEPT_SHARE
from worker.engine.values import SAMPLE_RATE, DecodingOptions, Ended, Hypothesis, Window

SOUND = np.zeros(30 * SAMPLE_RATE, dtype=np.int16)
PATIENCE_S = 10

Make = Callable[..., Engine]


def window(index: int, seconds: float = 10.0, language: str = "en") -> Window:
    pcm = SOUND[: int(seconds * SAMPLE_RATE)]
    return Window(index, 0.0, pcm, seconds, DecodingOptions(language=language))


@pytest.fixture
def make() -> Iterator[Make]:
    """Makes engines and closes them."""
    engines: list[tuple[ScriptedRunner, Engine]] = []

    def engine(runner: ScriptedRunner, batch_size: int = 4, **more: object) -> Engine:
        engines.append((runner, Engine(runner, batch_size, **more)))  # type: ignore[arg-type]
        return engines[-1][1]

    yield engine
    for runner, made in engines:
        runner.let_go.set()
        assert made.close(PATIENCE_S)


def queue_behind(
    engine: Engine, runner: ScriptedRunner, windows: Sequence[Window]
) -> list[Future[Hypothesis]]:
    """Queues `windows` while a first window (index 99) is in the model, then lets the model go."""
    first = engine.submit("first", window(99))
    assert runner.entered.wait(PATIENCE_S)
    futures = [engine.submit("job", w) for w in windows]
    runner.let_go.set()
    first.result(PATIENCE_S)
    return futures


def test_every_window_gets_its_own_hypothesis(make: Make) -> None:
    engine = make(ScriptedRunner())

    futures = [engine.submit(f"job {i % 3}", window(i)) for i in range(20)]

    assert [f.result(PATIENCE_S).text for f in futures] == [f"window {i}" for i in range(20)]


def test_windows_of_different_jobs_share_a_pass_and_one_thread_runs_them_all(make: Make) -> None:
    runner = ScriptedRunner(is_held=True)
    engine = make(runner)
    first = engine.submit("a", window(0))
    assert runner.entered.wait(PATIENCE_S)
    rest = [engine.submit(job, window(i)) for i, job in enumerate("abcd", start=1)]
    runner.let_go.set()

    for future in [first, *rest]:
        future.result(PATIENCE_S)
    assert runner.sizes == [1, 4]
    assert len(runner.threads) == 1
    assert runner.threads.isdisjoint({threading.get_ident()})


def test_windows_of_different_options_share_a_pass(make: Make) -> None:
    runner = ScriptedRunner(is_held=True)
    engine = make(runner)

    futures = queue_behind(engine, runner, [window(0, language="en"), window(1, language="tw")])
    for future in futures:
        future.result(PATIENCE_S)

    assert runner.sizes == [1, 2]


class SteppingRunner(InPasses):
    """Needs as many steps for a window as it has seconds; makes each when the test lets it."""

    def __init__(self) -> None:
        super().__init__()
        self.card = ScriptedRunner().card
        self.left: dict[int, float] = {}
        self.passes: list[list[int]] = []
        self.urgent: list[list[int]] = []
        self._may = threading.Semaphore(0)
        self._made = threading.Semaphore(0)

    def let(self, steps: int) -> None:
        """Returns when that many more have been made."""
        for _ in range(steps):
            self._may.release()
        for _ in range(steps):
            assert self._made.acquire(timeout=PATIENCE_S)

    def let_go(self) -> None:
        for _ in range(10_000):
            self._may.release()

    def step(self, urgent: Collection[int] = ()) -> list[Ended]:
        assert self._may.acquire(timeout=PATIENCE_S)
        self.urgent.append([self.seated[number].index for number in urgent])
        self.passes.append([window.index for window in self.seated.values()])
        for number, window in self.seated.items():
            self.left[number] = self.left.get(number, window.duration_s) - 1
        ended = [number for number in self.seated if self.left[number] <= 0]
        self._made.release()
        return [Ended(number, hypothesis(f"window {self.seated.pop(number).index}")) for number in ended]

    def close(self) -> None:
        pass


@pytest.fixture
def stepping() -> Iterator[tuple[SteppingRunner, Engine]]:
    runner = SteppingRunner()
    engine = Engine(runner, 2)
    yield runner, engine
    runner.let_go()
    assert engine.close(PATIENCE_S)


def test_a_slot_that_is_free_goes_to_the_next_window_at_once(stepping: tuple[SteppingRunner, Engine]) -> None:
    runner, engine = stepping
    long, *short = [engine.submit(str(i), window(i, seconds)) for i, seconds in enumerate((6, 2, 2, 2))]
    runner.let_go()

    for future in (long, *short):
        future.result(PATIENCE_S)
    begun = next(number for number, seen in enumerate(runner.passes) if len(seen) == 2)
    assert runner.passes[begun:][:4] == [[0, 1], [0, 1], [0, 2], [0, 2]]


def test_a_clip_finds_a_slot_that_is_kept_from_long_files() -> None:
    runner = SteppingRunner()
    engine = Engine(runner, KEPT_SHARE)
    for number in range(20):
        engine.submit("long", window(number, 30))
    runner.let(3)

    clip = engine.submit("clip", window(99, 2))
    runner.let(4)

    assert clip.result(PATIENCE_S).text == "window 99"
    assert max(len(seen) for seen in runner.passes if 99 not in seen) == KEPT_SHARE - 1
    runner.let_go()
    assert engine.close(PATIENCE_S)


def test_beside_a_clip_long_windows_have_a_part_in_one_step_of_several() -> None:
    runner = SteppingRunner()
    engine = Engine(runner, KEPT_SHARE)
    for number in range(20):
        engine.submit("long", window(number, 100))
    runner.let(3)

    clip = engine.submit("clip", window(99, 30))
    runner.let(34)

    assert clip.result(PATIENCE_S).text == "window 99"
    seen = list(zip(runner.passes, runner.urgent, strict=True))
    beside = [urgent for numbers, urgent in seen if 99 in numbers]
    assert beside == ([*[[99]] * (SHARED_STEPS - 1), []] * 2)[:30]
    assert [] in beside
    assert [urgent for numbers, urgent in seen if 99 not in numbers] == [[]] * 7, "its first windows hurry"
    runner.let_go()
    assert engine.close(PATIENCE_S)


def test_cancel_frees_a_slot_within_one_step(stepping: tuple[SteppingRunner, Engine]) -> None:
    runner, engine = stepping
    running = engine.submit("long", window(0, 30))
    runner.let(1)
    more = [engine.submit("long", window(i, 30)) for i in (1, 2)]
    runner.let(2)
    other = engine.submit("other", window(3, 2))

    assert engine.cancel("long") == 3
    runner.let(3)

    assert other.result(PATIENCE_S).text == "window 3"
    assert all(future.cancelled() for future in (running, *more))
    # The step that was under way when the cancel came may have been made with them.
    assert runner.passes[-2:] == [[3], [3]]


def test_slots_in_use_are_told(stepping: tuple[SteppingRunner, Engine]) -> None:
    runner, engine = stepping
    engine.submit("job", window(0, 5))
    engine.submit("job", window(1, 5))
    runner.let(3)

    assert engine.statistics().slots_used == 2


def test_a_future_cancelled_by_its_caller_is_not_run(make: Make) -> None:
    runner = ScriptedRunner(is_held=True)
    engine = make(runner)
    running = engine.submit("job", window(0))
    assert runner.entered.wait(PATIENCE_S)
    unwanted, wanted = engine.submit("job", window(1)), engine.submit("job", window(2))

    assert unwanted.cancel()
    runner.let_go.set()

    wanted.result(PATIENCE_S)
    running.result(PATIENCE_S)
    assert [w.index for batch in runner.batches for w in batch] == [0, 2]


def test_close_cancels_what_waits_and_finishes_what_is_in_the_model() -> None:
    runner = ScriptedRunner(is_held=True)
    engine = Engine(runner, 1)
    running = engine.submit("job", window(0))
    assert runner.entered.wait(PATIENCE_S)
    waiting = engine.submit("job", window(1))

    assert engine.close(timeout_s=0) is False
    assert waiting.cancelled()
    assert engine.submit("job", window(2)).cancelled()
    runner.let_go.set()

    assert engine.close(PATIENCE_S) is True
    assert running.result(0).text == "window 0"
    assert runner.sizes == [1]


def test_out_of_memory_halves_the_slots_until_it_fits(make: Make) -> None:
    def at_most_two(batch: Sequence[Window]) -> None:
        if len(batch) > 2:
            raise MemoryError

    runner = ScriptedRunner(at_most_two, is_held=True)
    engine = make(runner, batch_size=8)

    futures = queue_behind(engine, runner, [window(i) for i in range(8)])

    assert [f.result(PATIENCE_S).text for f in futures] == [f"window {i}" for i in range(8)]
    assert runner.sizes == [1, KEPT_SHARE - 1, 4, 2, 2, 2, 2]
    assert runner.slots == [4, 2]
    assert (engine.statistics().batch_limit, engine.statistics().overflows) == (2, 2)


def test_the_slots_come_back_after_a_while(make: Make) -> None:
    overflows = iter([False, True])

    def once(batch: Sequence[Window]) -> None:
        if next(overflows, False):
            raise MemoryError

    runner = ScriptedRunner(once, is_held=True)
    engine = make(runner, batch_size=4)

    futures = queue_behind(engine, runner, [window(i) for i in range(100)])
    for future in futures:
        future.result(PATIENCE_S)

    assert runner.sizes[:2] == [1, 4]
    assert runner.sizes[2 : 2 + RECOVERY_WINDOWS // 2] == [2] * (RECOVERY_WINDOWS // 2)
    assert runner.sizes[2 + RECOVERY_WINDOWS // 2] == 4
    assert runner.slots == [2, 4]


def test_slots_that_memory_has_no_room_for_are_not_tried_for_ever(make: Make) -> None:
    class Cramped(ScriptedRunner):
        def resize(self, slots: int) -> None:
            super().resize(slots)
            if slots > 2:
                raise MemoryError

    overflows = iter([False, True])

    def once(batch: Sequence[Window]) -> None:
        if next(overflows, False):
            raise MemoryError

    runner = Cramped(once, is_held=True)
    engine = make(runner, batch_size=4)

    for future in queue_behind(engine, runner, [window(i) for i in range(90)]):
        future.result(PATIENCE_S)

    assert runner.slots == [2, 4, 2]
    assert runner.sizes[-1] == 2


def test_a_window_alone_may_have_the_memory_of_the_other_slots(make: Make) -> None:
    runner = ScriptedRunner()

    def until_resized(batch: Sequence[Window]) -> None:
        if not runner.slots:
            raise MemoryError

    runner._script = until_resized
    engine = make(runner, batch_size=8)

    assert engine.submit("job", window(0)).result(PATIENCE_S).text == "window 0"
    assert runner.slots == [1]


def test_a_window_too_large_alone_fails_alone(make: Make) -> None:
    def too_large(batch: Sequence[Window]) -> None:
        if any(w.index == 2 for w in batch):
            raise MemoryError

    runner = ScriptedRunner(too_large, is_held=True)
    engine = make(runner)

    futures = queue_behind(engine, runner, [window(i) for i in range(4)])

    with pytest.raises(OutOfMemory):
        futures[2].result(PATIENCE_S)
    assert [futures[i].result(PATIENCE_S).text for i in (0, 1, 3)] == ["window 0", "window 1", "window 3"]
    assert engine.submit("job", window(5)).result(PATIENCE_S).text == "window 5"


def test_a_poisonous_window_harms_only_itself(make: Make) -> None:
    def poison(batch: Sequence[Window]) -> None:
        if any(w.index == 1 for w in batch):
            raise RuntimeError("index out of range in self")

    runner = ScriptedRunner(poison, is_held=True)
    engine = make(runner)

    futures = queue_behind(engine, runner, [window(i) for i in range(4)])

    with pytest.raises(ModelError) as failure:
        futures[1].result(PATIENCE_S)
    assert "index" not in failure.value.detail
    assert failure.value.__cause__ is None, "a chained traceback would keep the model's tensors alive"
    assert [futures[i].result(PATIENCE_S).text for i in (0, 2, 3)] == ["window 0", "window 2", "window 3"]
    assert runner.sizes == [1, 4, 1, 1, 1, 1]


def test_who_is_run_alone_is_alone_to_the_end(make: Make) -> None:
    """Others that came meanwhile must not be harmed by the last of those that are tried one by one."""

    def poison(batch: Sequence[Window]) -> None:
        if any(w.index == 3 for w in batch):
            raise RuntimeError

    runner = ScriptedRunner(poison, is_held=True)
    engine = make(runner)

    futures = queue_behind(engine, runner, [window(i) for i in range(8)])

    assert [future.exception(PATIENCE_S) is None for future in futures] == [i != 3 for i in range(8)]
    assert runner.sizes == [1, 4, 1, 1, 1, 1, 4]


def test_a_window_that_can_never_be_run_takes_no_slot(make: Make) -> None:
    class Choosy(ScriptedRunner):
        def seat(self, number: int, window: Window) -> None:
            if window.index == 1:
                raise ValueError
            super().seat(number, window)

    runner = Choosy(is_held=True)
    engine = make(runner)

    futures = queue_behind(engine, runner, [window(i) for i in range(3)])

    with pytest.raises(ModelError):
        futures[1].result(PATIENCE_S)
    assert futures[2].result(PATIENCE_S).text == "window 2"
    assert runner.sizes == [1, 2]


def test_a_runner_that_loses_a_hypothesis_is_a_model_error(make: Make) -> None:
    class Forgetful(ScriptedRunner):
        def run(self, batch: Sequence[Window]) -> list[Hypothesis]:
            return super().run(batch)[1:]

    engine = make(Forgetful())

    with pytest.raises(ModelError):
        engine.submit("job", window(0)).result(PATIENCE_S)


def test_when_the_thread_is_torn_down_nobody_waits_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda args: None)

    def torn_down(batch: Sequence[Window]) -> None:
        raise SystemExit

    runner = ScriptedRunner(torn_down, is_held=True)
    engine = Engine(runner, 1)
    running, waiting = engine.submit("job", window(0)), engine.submit("job", window(1))
    assert runner.entered.wait(PATIENCE_S)
    runner.let_go.set()

    with pytest.raises(ModelError):
        running.result(PATIENCE_S)
    with pytest.raises(CancelledError):
        waiting.result(PATIENCE_S)
    assert engine.submit("job", window(2)).cancelled()
    assert engine.close(PATIENCE_S)


def test_statistics_say_what_was_done_and_how_full_the_slots_were(make: Make) -> None:
    clock = SteppedClock()
    runner = ScriptedRunner(lambda batch: clock.advance(2.0), is_held=True)
    engine = make(runner, batch_size=4, clock=clock)
    clock.advance(5.0)

    for future in queue_behind(engine, runner, [window(i, seconds=20) for i in range(3)]):
        future.result(PATIENCE_S)

    now = engine.statistics()
    assert (now.windows, now.failed, now.batches, now.waiting, now.waiting_s) == (4, 0, 2, 0, 0.0)
    assert (now.audio_s, now.busy_s, now.idle_s) == (70.0, 4.0, 5.0)
    assert now.batch_fill == 0.5
    assert now.batch_limit == 4
    assert now.stuck_for_s == 0.0


def test_a_watchdog_sees_a_stuck_pass(make: Make) -> None:
    clock = SteppedClock()
    runner = ScriptedRunner(is_held=True)
    engine = make(runner, clock=clock)
    future = engine.submit("job", window(0))
    assert runner.entered.wait(PATIENCE_S)

    clock.advance(90.0)

    assert engine.statistics().stuck_for_s == 90.0
    runner.let_go.set()
    future.result(PATIENCE_S)
    assert engine.statistics().stuck_for_s == 0.0


def test_many_threads_may_submit_and_cancel_at_once(make: Make) -> None:
    engine = make(ScriptedRunner())
    futures: list[Future[Hypothesis]] = []

    def submit(job: str) -> None:
        futures.extend(engine.submit(job, window(i, seconds=0.1)) for i in range(50))
        engine.cancel(job)

    threads = [threading.Thread(target=submit, args=(str(number),)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)

    assert len(futures) == 400
    assert all(f.cancelled() or f.result(PATIENCE_S) for f in futures)
