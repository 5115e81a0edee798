"""Histograms on a fixed grid, which can be added up, and their quantiles.

A histogram counts values on a grid that is fixed by the recipe: integer counts, merged by adding.
Values outside the grid are counted in its first and last cell.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from basilar.dsp.moments import BLOCK, real_parts

N_CELLS = 256


@dataclass(frozen=True)
class Grid:
    """The 256 cells of a histogram.

    `linear`: equal cells from `low` to `high`. `octave`: four cells per octave, 2^-40 to 2^24,
    split at 1, 1.25, 1.5 and 1.75 times the power of two, for values that are never negative.
    """

    kind: str
    low: float = 0.0
    high: float = 0.0

    def edges(self) -> NDArray[np.float64]:
        """The borders of the cells, in the values' unit: float64 (257,).

        >>> Grid("octave").edges()[160:165].tolist()
        [1.0, 1.25, 1.5, 1.75, 2.0]
        """
        cells = np.arange(N_CELLS + 1)
        if self.kind == "octave":
            return np.asarray(np.ldexp(1.0 + cells % 4 / 4, cells // 4 - 40), np.float64)
        return np.asarray(self.low + cells * ((self.high - self.low) / N_CELLS), np.float64)

    def cells(self, x: NDArray[np.generic]) -> NDArray[np.int64]:
        """The cell that each value of `x` falls in, 0 to 255: int64, the shape of `x`."""
        values = real_parts(x).astype(np.float64)
        if self.kind == "octave":
            mantissa, exponent = np.frexp(values)
            cells = (exponent + 39) * np.int64(4) + (mantissa * 8 - 4).astype(np.int64)
            cells[values <= 0] = 0
        else:
            values -= self.low
            values *= N_CELLS / (self.high - self.low)
            cells = np.clip(values, 0, N_CELLS - 1, out=values).astype(np.int64)
        return np.clip(cells, 0, N_CELLS - 1, out=cells)


def histogram(x: NDArray[np.generic], *, grid: Grid) -> NDArray[np.int64]:
    """The number of values of each bin of `x` (frames, bins) in each cell: int64 (bins, 256).

    >>> histogram(np.array([[0.0], [0.1], [0.9]]), grid=Grid("linear", 0.0, 1.0))[0, [0, 25, 230]]
    array([1, 1, 1])
    """
    n_bins = x.shape[1]
    counts = np.zeros(n_bins * N_CELLS, np.int64)
    for start in range(0, len(x), BLOCK):  # a block and its cells stay in the processor's cache
        flat = grid.cells(x[start : start + BLOCK])
        flat += np.arange(n_bins) * N_CELLS
        counts += np.bincount(flat.reshape(-1), minlength=counts.size)
    return counts.reshape(n_bins, N_CELLS)


def quantile(counts: NDArray[np.int64], q: float, *, grid: Grid) -> NDArray[np.float64]:
    """The `q`-quantile, q within 0 to 1, of each bin from counts (bins, 256): float64 (bins,).

    Values are assumed to spread evenly within a cell, so the result is exact to a cell's width.

    >>> counts = np.full((1, 256), 10)
    >>> quantile(counts, 0.5, grid=Grid("linear", 0.0, 1.0)).tolist()
    [0.5]
    """
    edges = grid.edges()
    upto = np.cumsum(counts, axis=1)
    target = np.maximum(q * upto[:, -1], 1e-9)  # the lowest value is in a cell that holds one
    cell = np.minimum((upto < target[:, None]).sum(axis=1), N_CELLS - 1)
    rows = np.arange(len(counts))
    here = counts[rows, cell]
    before = upto[rows, cell] - here
    share = np.where(here > 0, (target - before) / np.maximum(here, 1), 0.0)
    return np.asarray(edges[cell] + share * (edges[cell + 1] - edges[cell]), np.float64)
