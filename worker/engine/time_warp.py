"""The cheapest way through a matrix of costs, from its first cell to its last: dynamic time warping, as word
times need it. No torch, no audio."""

import numpy as np
from numpy.typing import NDArray


def cheapest_path(costs: NDArray[np.float64]) -> NDArray[np.intp]:
    """[cells, 2], first cell first; each next one lies one step further on one axis or on both. Of equally
    cheap steps, one on both axes goes first, then one on the second axis."""
    totals = _totals(costs)
    row, column = costs.shape[0] - 1, costs.shape[1] - 1
    path = [(row, column)]
    while row or column:
        diagonal = row + column
        both, second, first = totals[diagonal, row], totals[diagonal + 1, row + 1], totals[diagonal + 1, row]
        if both <= second and both <= first:
            row, column = row - 1, column - 1
        elif second <= first:
            column -= 1
        else:
            row -= 1
        path.append((row, column))
    return np.array(path[::-1])


def _totals(costs: NDArray[np.float64]) -> NDArray[np.float64]:
    """[diagonals + 2, rows + 1]: what the cheapest way to a cell costs, at [row + column + 2, row + 1].

    Cells of a diagonal know nothing of each other, so each diagonal is worked out at once.
    """
    rows, columns = costs.shape
    row, column = np.indices(costs.shape)
    by_diagonal = np.full((rows + columns - 1, rows), np.inf)
    by_diagonal[row + column, row] = costs
    totals = np.full((rows + columns + 1, rows + 1), np.inf)
    totals[0, 0] = 0.0
    for diagonal, cost in enumerate(by_diagonal):
        before = totals[diagonal + 1]
        way = np.minimum(before[1:], before[:-1])
        np.minimum(way, totals[diagonal, :-1], out=way)
        np.add(way, cost, out=totals[diagonal + 2, 1:])
    return totals
