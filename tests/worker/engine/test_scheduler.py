"""The laws of taking turns."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.engine.scheduler import (
    EXPRESS_WINDOWS,
    MEMORY_TURNS,
    PATIENCE_TURNS,
    RESERVED_SHARE,
    Scheduler,
)
from worker.engine.values import SAMPLE_RATE, DecodingOptions, Window

Ticket = tuple[str, int]

OPTIONS = tuple(DecodingOptions(language=code) for code in ("en", "tw", "fr"))
MINUTE = np.zeros(60 * SAMPLE_RATE, dtype=np.int16)


def window(index: int = 0, seconds: float = 30.0, options: DecodingOptions = OPTIONS[0]) -> Window:
    return Window(index, 0.0, MINUTE[: int(seconds * SAMPLE_RATE)], seconds, options)


def fill(
    scheduler: Scheduler[Ticket],
    job: str,
    windows: int,
    seconds: float = 30.0,
    options: int = 0,
    first: int = 0,
) -> None:
    for index in range(first, first + windows):
        scheduler.add(job, window(index, seconds, OPTIONS[options]), (job, index))


def take(scheduler: Scheduler[Ticket], free: int, kept: int = 0) -> list[Ticket]:
    return [ticket for ticket, _ in scheduler.take(free, kept)]


def drain(scheduler: Scheduler[Ticket], limit: int) -> list[list[Ticket]]:
    batches = []
    while batch := take(scheduler, limit):
        batches.append(batch)
    return batches


def test_nothing_waiting_fills_no_slot() -> None:
    assert take(Scheduler[Ticket](), 8) == []


def test_a_single_job_fills_all_slots() -> None:
    scheduler = Scheduler[Ticket]()
    fill(scheduler, "long", 20)

    assert [len(batch) for batch in drain(scheduler, 8)] == [8, 8, 4]


def test_a_kept_slot_is_for_the_first_windows_of_a_job() -> None:
    scheduler = Scheduler[Ticket]()
    fill(scheduler, "long", 20)
    take(scheduler, EXPRESS_WINDOWS)

    assert len(take(scheduler, 4, kept=1)) == 3
    assert take(scheduler, 1, kept=1) == []
    fill(scheduler, "clip", 1, seconds=4)
    assert take(scheduler, 1, kept=1) == [("clip", 0)]


def test_a_clip_goes_before_the_backlog_of_long_files() -> None:
    scheduler = Scheduler[Ticket]()
    for job in ("film", "speech", "lecture"):
        fill(scheduler, job, 200)
    for _ in range(5):
        take(scheduler, 8)

    fill(scheduler, "clip", EXPRESS_WINDOWS, seconds=4)

    assert {("clip", 0), ("clip", 1)} <= set(take(scheduler, 3))


@pytest.mark.parametrize("free", [1, 3, 8])
def test_long_files_keep_a_quarter_of_the_slots_under_a_flood_of_clips(free: int) -> None:
    scheduler = Scheduler[Ticket]()
    fill(scheduler, "long", 100)
    take(scheduler, 8)

    taken: Counter[str] = Counter()
    for turn in range(10):
        for clip in range(free):
            fill(scheduler, f"clip {turn}.{clip}", 1, seconds=3)
        taken.update(job.split()[0] for job, _ in take(scheduler, free))

    assert taken["long"] == 10 * free // RESERVED_SHARE


def test_windows_of_different_options_are_taken_side_by_side() -> None:
    scheduler = Scheduler[Ticket]()
    for options in range(3):
        fill(scheduler, str(options), 1, options=options)

    assert len(take(scheduler, 8)) == 3


def test_long_files_share_alike_in_seconds_of_audio() -> None:
    scheduler = Scheduler[Ticket]()
    fill(scheduler, "short windows", 600, seconds=6)
    fill(scheduler, "long windows", 600, seconds=30)

    taken = Counter(job for _ in range(60) for job, _ in take(scheduler, 4))

    assert taken["short windows"] * 6 == pytest.approx(taken["long windows"] * 30, rel=0.1)


def test_a_job_alone_for_long_neither_owes_nor_is_owed() -> None:
    scheduler = Scheduler[Ticket]()
    fill(scheduler, "old", 400)
    for _ in range(20):
        take(scheduler, 8)
    fill(scheduler, "new", 200)

    taken = Counter(job for _ in range(10) for job, _ in take(scheduler, 8))

    assert abs(taken["old"] - taken["new"]) <= 4


def test_a_job_that_hands_in_its_windows_one_by_one_is_no_newcomer() -> None:
    scheduler = Scheduler[Ticket]()
    fill(scheduler, "dribble", 1)
    for index in range(1, 6):
        take(scheduler, 1)
        fill(scheduler, "dribble", 1, first=index)
    fill(scheduler, "clip", 1)

    assert take(scheduler, 1) == [("clip", 0)]


def test_jobs_long_gone_are_forgotten() -> None:
    scheduler = Scheduler[Ticket]()
    for number in range(3 * MEMORY_TURNS):
        fill(scheduler, str(number), 1)
        take(scheduler, 1)

    assert len(scheduler._backlogs) <= MEMORY_TURNS + 2


def test_drop_returns_what_still_waited() -> None:
    scheduler = Scheduler[Ticket]()
    fill(scheduler, "a", 3)
    fill(scheduler, "b", 1)
    (first,) = take(scheduler, 1)

    assert first == ("a", 0)
    assert scheduler.drop("a") == [("a", 1), ("a", 2)]
    assert scheduler.drop("a") == []
    assert drain(scheduler, 8) == [[("b", 0)]]


def test_it_knows_how_much_waits() -> None:
    scheduler = Scheduler[Ticket]()
    fill(scheduler, "a", 3, seconds=10)

    assert (len(scheduler), scheduler.waiting_s) == (3, 30.0)
    assert len(scheduler.drop_all()) == 3
    assert (len(scheduler), scheduler.waiting_s) == (0, 0.0)


jobs = st.lists(st.tuples(st.integers(1, 12), st.floats(0, 60), st.integers(0, 2)), min_size=1, max_size=8)
limits = st.integers(1, 16)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(0, 5), st.integers(0, 2), st.floats(0, 30)),
        st.tuples(st.just("take"), st.integers(1, 9)),
        st.tuples(st.just("drop"), st.integers(0, 5)),
    ),
    max_size=60,
)


@settings(deadline=None)
@given(steps)
def test_every_window_is_taken_or_dropped_once_in_order_and_no_slot_stays_empty(steps: list) -> None:
    scheduler = Scheduler[Ticket]()
    added: dict[str, int] = Counter()
    left: list[Ticket] = []
    for step in [*steps, *[("take", 5)] * 200]:
        if step[0] == "add":
            ticket = (str(step[1]), added[str(step[1])])
            added[ticket[0]] += 1
            scheduler.add(ticket[0], window(ticket[1], step[3], OPTIONS[step[2]]), ticket)
        elif step[0] == "take":
            before = len(scheduler)
            taken = take(scheduler, step[1])
            assert len(taken) == min(step[1], before)
            left.extend(taken)
        else:
            left.extend(scheduler.drop(str(step[1])))

    assert sorted(left) == sorted((job, index) for job, count in added.items() for index in range(count))
    for job in added:
        assert [index for name, index in left if name == job] == list(range(added[job]))


@settings(max_examples=60, deadline=None)
@given(jobs, limits, st.integers(0, 20), st.integers(0, 2), st.floats(0, 30))
def test_a_newcomer_is_one_of_the_next_few(
    backlog: list, free: int, turns: int, options: int, seconds: float
) -> None:
    scheduler = Scheduler[Ticket]()
    for number, (_, length, kind) in enumerate(backlog):
        fill(scheduler, str(number), (turns + 18) * free + RESERVED_SHARE, length, kind)
    served = {job for _ in range(turns + 16) for job, _ in take(scheduler, free)}
    if len(served) < len(backlog):
        return  # some of the backlog are newcomers themselves

    fill(scheduler, "newcomer", 3, seconds, options)

    assert ("newcomer", 0) in take(scheduler, RESERVED_SHARE)


@settings(deadline=None, max_examples=25)
@given(jobs, st.integers(1, 8), st.integers(1, 12))
def test_nobody_starves_under_an_endless_flood_of_clips(jobs: list, limit: int, flood: int) -> None:
    scheduler = Scheduler[Ticket]()
    for number, (_, seconds, options) in enumerate(jobs):
        fill(scheduler, str(number), 300, seconds, options)
    last: dict[str, int] = {}
    while len(last) < len(jobs):
        last |= {job: 0 for job, _ in take(scheduler, limit)}
    longest = PATIENCE_TURNS + 2 * len(jobs)

    for turn in range(1, 200):
        for clip in range(flood):
            fill(scheduler, f"clip {turn}.{clip}", 1, 2.0, clip % 3)
        last |= {job: turn for job, _ in take(scheduler, 1) if job in last}
        unserved = set(last) - {job for job, b in scheduler._backlogs.items() if not b.waiting}
        assert all(turn - last[job] <= longest for job in unserved)
