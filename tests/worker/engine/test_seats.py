"""Where a window stands on its way through the model."""

from collections.abc import Callable

import numpy as np
import pytest

from worker.engine.seats import Seat
from worker.engine.values import SAMPLE_RATE, DecodingOptions, Window

START = 7
PROMPT = (START, 8, 9)


def seat() -> Seat:
    made = Seat(0, Window(0, 0.0, np.zeros(SAMPLE_RATE, np.int16), 1.0, DecodingOptions()))
    made.listen(START)
    return made


@pytest.mark.parametrize(
    "turn",
    [lambda one: one.listen(START), lambda one: one.read_on(PROMPT, known=1), lambda one: one.start_again()],
)
def test_who_goes_on_elsewhere_is_on_another_course(turn: Callable[[Seat], None]) -> None:
    """A step that was begun before must count no more, nor what had been written."""
    one = seat()
    one.read_on(PROMPT, known=1)
    one.go_on(0)
    one.note(5, -0.5)
    before = one.course

    turn(one)

    assert one.course != before
    assert one.written.tokens == one.written.logprobs == ()


def test_who_goes_straight_on_stays_on_its_course() -> None:
    one = seat()
    one.read_on(PROMPT, known=1)
    before = one.course

    one.go_on(0)
    one.note(5, -0.5)
    one.go_on(5)

    assert one.course == before
    assert (one.token, one.position) == (5, 3)
    assert one.written.tokens == (5,)
