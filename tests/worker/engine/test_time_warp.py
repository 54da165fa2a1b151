"""The cheapest path through a matrix of costs, against librosa's and against all there are."""

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from librosa.sequence import dtw

from worker.engine.time_warp import cheapest_path

SHAPES = [(1, 1), (1, 7), (7, 1), (5, 40), (40, 5), (30, 700)]


@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_librosa_s(shape: tuple[int, int]) -> None:
    costs = np.random.default_rng(3).normal(size=shape)

    _, theirs = dtw(C=costs)

    assert np.array_equal(cheapest_path(costs), theirs[::-1])


@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_no_path_is_cheaper(rows: int, columns: int, seed: int) -> None:
    costs = np.random.default_rng(seed).integers(-5, 5, (rows, columns)).astype(float)

    path = [(int(row), int(column)) for row, column in cheapest_path(costs)]

    assert path in list(paths(rows, columns))
    assert sum(costs[cell] for cell in path) == min(
        sum(costs[cell] for cell in other) for other in paths(rows, columns)
    )


def paths(rows: int, columns: int, at: tuple[int, int] = (0, 0)) -> Iterator[list[tuple[int, int]]]:
    """Every way from the first cell to the last."""
    row, column = at
    if at == (rows - 1, columns - 1):
        yield [at]
    for further in ((row + 1, column + 1), (row, column + 1), (row + 1, column)):
        if further[0] < rows and further[1] < columns:
            for rest in paths(rows, columns, further):
                yield [at, *rest]
