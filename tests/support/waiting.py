"""Waiting for a condition instead of sleeping for a while."""

import time
from collections.abc import Callable

PAUSE_S = 0.02


def wait_until(condition: Callable[[], object], timeout_s: float = 60.0, pause_s: float = PAUSE_S) -> None:
    """Raises TimeoutError when the condition has not come true within `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not true within {timeout_s:g} s")
        time.sleep(pause_s)
