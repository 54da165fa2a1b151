"""Work that gives way: what a long recording's windows are cut from is worked through with what everybody
else leaves of the processor. When the model waits for it, that is all there is."""

import os
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from itertools import islice
from typing import TypeVar

NICENESS = 10
"""On top of the process's own: a tenth of the share that its other threads have."""

T = TypeVar("T")


@contextmanager
def aside(values: Iterator[T]) -> Iterator[Iterator[T]]:
    """`values`, made in a thread of their own that gives way, one ahead of who walks them. What making one
    raises is raised where it would have come. Leaving the block waits until the one under way is made."""
    # A thread that has lowered itself may not rise again, so it ends with the work.
    with ThreadPoolExecutor(1, "aside", _give_way) as pool:
        yield _walk(pool, values)


def _walk(pool: ThreadPoolExecutor, values: Iterator[T]) -> Iterator[T]:
    context = copy_context()
    coming = pool.submit(context.run, _next_of, values)
    while found := coming.result():
        coming = pool.submit(context.run, _next_of, values)
        yield from found


def _next_of(values: Iterator[T]) -> list[T]:
    """Empty at the end."""
    return list(islice(values, 1))


def _give_way() -> None:
    """Linux counts niceness by thread, and what threads it makes for its sums inherit it; elsewhere it would
    be the whole process."""
    if sys.platform == "linux":
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + NICENESS)
