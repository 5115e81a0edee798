"""Features centred and scaled."""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from basilar.dsp.histogram import Grid, quantile
from basilar.dsp.moments import Summary, ordered_sum


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
