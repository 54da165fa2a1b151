"""Work that gives way to the rest of the process."""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from worker.aside import NICENESS, aside


def niceness() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


def test_all_values_come_in_order() -> None:
    with aside(iter(range(100))) as values:
        assert list(values) == list(range(100))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux knows the niceness of a thread")
def test_they_are_made_at_a_lower_priority_and_nothing_else_is() -> None:
    before = niceness()

    with aside(niceness() for _ in range(3)) as values:
        found = set(values)

    assert found == {min(19, before + NICENESS)}
    assert niceness() == before


def test_one_is_made_ahead_and_no_more() -> None:
    made: list[int] = []

    def make() -> Iterator[int]:
        for number in range(10):
            made.append(number)
            yield number

    with aside(make()) as values:
        assert [next(values), next(values)] == [0, 1]

    assert made == [0, 1, 2]


def test_a_failure_is_raised_where_it_would_have_come() -> None:
    def fail() -> Iterator[int]:
        yield 1
        raise LookupError("the second")

    with aside(fail()) as values:
        assert next(values) == 1
        with pytest.raises(LookupError, match="the second"):
            next(values)


def test_no_thread_is_left_whoever_leaves() -> None:
    before = threading.active_count()

    with suppress(KeyError), aside(iter(range(10))) as values:
        raise KeyError(next(values))

    assert threading.active_count() == before
