"""Mergeable statistics: moments of each bin over frames.

Conventions
-----------
* Moments of a clip are float64 (4, bins): sum and sum of squares of `x - pivot`, minimum, maximum.
  The pivot is fixed by the recipe, never by the data, so that moments can be merged exactly.
* Sums have the same order on every machine: blocks of 1,024 rows counted from the first row, added
  by halves within a block (a tree of plain additions) and in order from block to block.
* Statistics of complex values are those of their magnitudes.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

BLOCK = 1024


def ordered_sum(x: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Sum of `x` (rows, columns) over its rows, in float64 and this module's order: (columns,).

    >>> ordered_sum(np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])).tolist()
    [9.0, 12.0]
    """
    total = np.zeros(x.shape[1])
    for start in range(0, len(x), BLOCK):
        total += _sum_of_block(x[start : start + BLOCK].astype(np.float64, copy=False))
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
    for start in range(0, len(x), BLOCK):
        values = real_parts(x[start : start + BLOCK]).astype(np.float64)
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
        while n_waiting + len(part) >= BLOCK:
            missing = BLOCK - n_waiting
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


def real_parts(x: NDArray[np.generic]) -> NDArray[np.generic]:
    """`x` itself, or the magnitude (float64) of complex values, from portable operations."""
    if not np.iscomplexobj(x):
        return x
    re, im = x.real.astype(np.float64), x.imag.astype(np.float64)
    return np.sqrt(re * re + im * im)
