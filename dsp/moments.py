"""Mergeable statistics: moments and histograms of each bin over frames.

Conventions
-----------
* Moments of a clip are float64 (4, bins): sum and sum of squares of `x - pivot`, minimum, maximum.
  The pivot is fixed by the recipe, never by the data, so that moments can be merged exactly.
* Sums have the same order on every machine: blocks of 1,024 rows counted from the first row, added
  by halves within a block (a tree of plain additions) and in order from block to block.
* A histogram counts values on a grid that is fixed by the recipe: integer counts, merged by adding.
  Values outside the grid are counted in its first and last cell.
* Statistics of complex values are those of their magnitudes.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

_BLOCK = 1024

N_CELLS = 256


def ordered_sum(x: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Sum of `x` (rows, columns) over its rows, in float64 and this module's order: (columns,).

    >>> ordered_sum(np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])).tolist()
    [9.0, 12.0]
    """
    total = np.zeros(x.shape[1])
    for start in range(0, len(x), _BLOCK):
        total += _sum_of_block(x[start : start + _BLOCK].astype(np.float64, copy=False))
    return total


def _sum_of_block(part: NDArray[np.float64]) -> NDArray[np.float64]:
    while len(part) > 1:
        half = (len(part) + 1) // 2
        folded = part[:half].copy()
        folded[: len(part) - half] += part[half:]
        part = folded
    total: NDArray[np.float64] = part[0]
    return total


def moments(x: NDArray[np.generic], *, pivot: float) -> NDArray[np.float64]:
    """Moments of one clip `x` (frames, bins), at least one frame: float64 (4, bins).

    Rows are the sum of `x - pivot`, the sum of its squares, the minimum and the maximum of `x`.

    >>> moments(np.array([[1.0], [3.0]]), pivot=1.0).tolist()
    [[2.0], [4.0], [1.0], [3.0]]
    """
    total, squares = np.zeros(x.shape[1]), np.zeros(x.shape[1])
    low, high = np.full(x.shape[1], np.inf), np.full(x.shape[1], -np.inf)
    for start in range(0, len(x), _BLOCK):
        values = _real(x[start : start + _BLOCK]).astype(np.float64)
        np.minimum(low, values.min(axis=0), out=low)
        np.maximum(high, values.max(axis=0), out=high)
        values -= pivot
        total += ordered_sum(values)
        np.multiply(values, values, out=values)
        squares += ordered_sum(values)
    return np.stack([total, squares, low, high])


@dataclass(frozen=True)
class Summary:
    """Per-bin statistics of many frames; arrays are float64 (bins,), `std` with divisor `count`."""

    count: int
    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    min: NDArray[np.float64]
    max: NDArray[np.float64]


def merge(
    parts: Iterable[tuple[NDArray[np.float64], NDArray[np.int64]]], *, pivot: float
) -> Summary:
    """Merge the moments of clips, in their order; how they are divided into parts does not matter.

    A part is the moments (clips, 4, bins) of some clips and their numbers of frames (clips,).
    Raises ValueError if there is no clip.

    >>> a, b = np.array([[1.0], [3.0]]), np.array([[5.0]])
    >>> parts = [(moments(x, pivot=0.0)[None], np.array([len(x)])) for x in (a, b)]
    >>> merge(parts, pivot=0.0).mean.tolist()
    [3.0]
    """
    count, total = 0, np.zeros(0)
    low = high = np.zeros(0)

    def described() -> Iterator[NDArray[np.float64]]:
        nonlocal count, low, high
        for per_clip, n_frames in parts:
            if len(per_clip):
                lows, highs = per_clip[:, 2].min(axis=0), per_clip[:, 3].max(axis=0)
                low = np.minimum(low, lows) if count else lows
                high = np.maximum(high, highs) if count else highs
                count += int(n_frames.sum())
                yield per_clip[:, :2]

    for block in _in_blocks(described()):
        part = _sum_of_block(block.reshape(len(block), -1))
        total = total + part if total.size else 0.0 + part
    if not count:
        raise ValueError("there is no clip to compute statistics of")
    offset, squares = total.reshape(2, -1) / count
    variance = squares - offset * offset
    # Rounding may leave the variance of a constant a hair off zero, on either side.
    std = np.where(low == high, 0.0, np.sqrt(np.maximum(variance, 0.0)))
    return Summary(count=count, mean=pivot + offset, std=std, min=low, max=high)


def _in_blocks(parts: Iterable[NDArray[np.float64]]) -> Iterator[NDArray[np.float64]]:
    """The rows of all parts in blocks of 1,024, the last one shorter."""
    waiting: list[NDArray[np.float64]] = []
    n_waiting = 0
    for part in parts:
        while n_waiting + len(part) >= _BLOCK:
            missing = _BLOCK - n_waiting
            yield np.concatenate([*waiting, part[:missing]])
            part = part[missing:]
            waiting, n_waiting = [], 0
        waiting.append(part)
        n_waiting += len(part)
    if n_waiting:
        yield np.concatenate(waiting)


def of_clips(
    per_clip: NDArray[np.float64], n_frames: NDArray[np.int64], *, pivot: float
) -> dict[str, NDArray[np.float64]]:
    """The mean, std, min and max of each clip by name, float64 (clips, bins), from its moments.

    `per_clip` is (clips, 4, bins), `n_frames` (clips,).

    >>> clips = moments(np.array([[1.0], [3.0]]), pivot=0.0)[None]
    >>> of_clips(clips, np.array([2]), pivot=0.0)["std"].tolist()
    [[1.0]]
    """
    total, squares, low, high = per_clip.transpose(1, 0, 2)
    offset = total / n_frames[:, None]
    variance = squares / n_frames[:, None] - offset * offset
    std = np.where(low == high, 0.0, np.sqrt(np.maximum(variance, 0.0)))
    return {"mean": pivot + offset, "std": std, "min": low, "max": high}


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
        values = _real(x).astype(np.float64)
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
    for start in range(0, len(x), _BLOCK):  # a block and its cells stay in the processor's cache
        flat = grid.cells(x[start : start + _BLOCK])
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


def normalize(
    x: NDArray[Any], centre: NDArray[np.float32], scale: NDArray[np.float32]
) -> NDArray[np.float32]:
    """`(x - centre) / scale` per bin: float32, of the shape of `x` (…, bins).

    >>> normalize(np.array([[1.0, 2.0]], np.float16), np.float32([1, 1]), np.float32([2, 2]))
    array([[0. , 0.5]], dtype=float32)
    """
    centred = np.asarray(x, np.float32) - centre
    normalized: NDArray[np.float32] = np.divide(centred, scale, out=centred)
    return normalized


def centre_and_scale(
    summary: Summary,
    counts: NDArray[np.int64],
    *,
    kind: Literal["none", "standard", "min_max", "robust"],
    per: Literal["bin", "global"],
    grid: Grid,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The centre that normalization subtracts and the scale it divides by: two float32 (bins,).

    `standard`: mean and standard deviation; `min_max`: minimum and range; `robust`: median and
    interquartile range, from `counts` (bins, 256) on `grid`; `none`: 0 and 1. A scale of zero, that
    of a constant bin, becomes 1. With `per` `global` all bins share one centre and scale.

    >>> summary = Summary(2, *(np.array([v]) for v in (3.0, 2.0, 1.0, 5.0)))
    >>> counts = np.zeros((1, 256), np.int64)
    >>> centre, scale = centre_and_scale(summary, counts, kind="standard", per="bin",
    ...                                  grid=Grid("octave"))
    >>> centre.tolist(), scale.tolist()
    ([3.0], [2.0])
    """
    n_bins = len(summary.mean)
    if per == "global":
        mean = ordered_sum(summary.mean[:, None]) / n_bins
        squares = summary.std * summary.std + (summary.mean - mean) * (summary.mean - mean)
        std = np.sqrt(ordered_sum(squares[:, None]) / n_bins)
        low, high = summary.min.min(keepdims=True), summary.max.max(keepdims=True)
        summary = Summary(summary.count * n_bins, mean, std, low, high)
        counts = counts.sum(axis=0, keepdims=True)
    if kind == "standard":
        centre, scale = summary.mean, summary.std
    elif kind == "min_max":
        centre, scale = summary.min, summary.max - summary.min
    elif kind == "robust":
        low, centre, high = (quantile(counts, q, grid=grid) for q in (0.25, 0.5, 0.75))
        scale = high - low
    else:
        centre, scale = np.zeros(1), np.ones(1)
    scale = np.where(scale > 0, scale, 1.0)
    whole = np.broadcast_to(np.stack([centre, scale]).astype(np.float32), (2, n_bins))
    return whole[0], whole[1]


def _real(x: NDArray[np.generic]) -> NDArray[np.generic]:
    """`x` itself, or the magnitude (float64) of complex values, from portable operations."""
    if not np.iscomplexobj(x):
        return x
    re, im = x.real.astype(np.float64), x.imag.astype(np.float64)
    return np.sqrt(re * re + im * im)
