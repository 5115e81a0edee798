"""Cepstral coefficients: the cosine transform of log-mel bands, liftering, deltas.

Conventions
-----------
* Coefficient 0 is the (scaled) sum of the bands. `dct_matrix` makes MFCCs of log-mels, row by row.
* Three scalings of the DCT-II are in use. `ortho`: rows of unit length, √(1/N) for coefficient 0
  and √(2/N) for the others (librosa, Kaldi, torchaudio's "ortho"). `none`: 2 everywhere (SciPy's
  and torchaudio's `None`). `htk`: √(2/N) everywhere (HTK).
* A lifter multiplies coefficient n by 1 + L/2 · sin(π n / L) in HTK and Kaldi, and by
  1 + L/2 · sin(π (n + 1) / L) in librosa.
* Deltas of order p over `width` frames are the p-th derivative, per frame, of the polynomial of
  degree p fitted to them by least squares. HTK's and Kaldi's window Θ is a `width` of 2Θ + 1.
  Their accelerations are deltas of deltas, unlike librosa's order 2. At a clip's ends, HTK repeats
  the outer deltas, while Kaldi's second deltas see the outer coefficients repeated. To reproduce
  Kaldi, repeat the outer frames `width // 2` times, take deltas twice, and drop the added frames.
"""

import math
from functools import lru_cache
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from basilar.dsp.buffers import row_blocks
from basilar.dsp.kernel import Bank

DctNorm = Literal["ortho", "none", "htk"]
LifterConvention = Literal["htk", "librosa"]
DeltaMode = Literal["nearest", "interp"]


@lru_cache(maxsize=32)
def dct_matrix(n_mfcc: int, n_mels: int, *, norm: DctNorm) -> Bank:
    """The first `n_mfcc` rows of a DCT-II, as filters over bands: (n_mfcc, n_mels), float32.

    Row k holds cos(π k (m + ½) / n_mels) for bands m, scaled as `norm` says (Davis and Mermelstein,
    "Comparison of parametric representations for monosyllabic word recognition", IEEE Trans. ASSP
    28(4), 1980). Computed in float64 and rounded; a cosine below 1e-12 is a rounding error and set
    to zero. Raises ValueError unless 1 <= n_mfcc <= n_mels, or for an unknown norm.

    >>> dct_matrix(2, 4, norm="ortho").toarray().round(3).tolist()[0]
    [0.5, 0.5, 0.5, 0.5]
    """
    if norm not in get_args(DctNorm):
        raise ValueError(f"norm: {norm!r} is not one of {', '.join(get_args(DctNorm))}")
    if not 1 <= n_mfcc <= n_mels:
        raise ValueError(f"n_mfcc: {n_mfcc} must be within 1 to n_mels = {n_mels}")
    k, m = np.arange(n_mfcc)[:, None], np.arange(n_mels)
    values = np.cos(np.pi / (2 * n_mels) * (k * (2 * m + 1)))
    values[np.abs(values) < 1e-12] = 0.0
    values *= 2.0 if norm == "none" else math.sqrt(2 / n_mels)
    if norm == "ortho":
        values[0] = math.sqrt(1 / n_mels)
    return Bank.of(values.astype(np.float32))


@lru_cache(maxsize=32)
def lifter(
    n_mfcc: int, lifter_coefficient: float, *, convention: LifterConvention
) -> NDArray[np.float32]:
    """Weights that raise the higher coefficients: float32 (n_mfcc,), read-only.

    With L = `lifter_coefficient`, in coefficients, weights are 1 + L/2 · sin(π n / L) (`htk`: HTK
    Book 3.4, section 5.6; also Kaldi's), or with n + 1 for n (`librosa`). They fall below 0 where n
    is well above L. L = 0 means no lifter: all weights are 1. Computed in float64 and rounded.
    Raises ValueError for a negative or infinite coefficient or an unknown convention.

    >>> lifter(3, 2, convention="htk").tolist(), lifter(3, 0, convention="htk").tolist()
    ([1.0, 2.0, 1.0], [1.0, 1.0, 1.0])
    """
    if convention not in get_args(LifterConvention):
        raise ValueError(
            f"convention: {convention!r} is not one of {', '.join(get_args(LifterConvention))}"
        )
    if not 0 <= lifter_coefficient < np.inf:
        raise ValueError(f"lifter_coefficient: {lifter_coefficient} must be 0 or more and finite")
    weights = np.ones(n_mfcc)
    if lifter_coefficient > 0:
        n = np.arange(n_mfcc) + (1 if convention == "librosa" else 0)
        weights += lifter_coefficient / 2 * np.sin(np.pi * n / lifter_coefficient)
    table = weights.astype(np.float32)
    table.setflags(write=False)
    return table


def deltas(
    x_tf: NDArray[np.float32],
    *,
    width: int,
    order: int,
    mode: DeltaMode,
    out: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Derivatives over time, per frame^order: float32 (frames, coefficients) like `x_tf`.

    `width` is the window in frames, odd. Beyond the ends, `nearest` repeats the first and the last
    frame (HTK, Kaldi). `interp` (librosa's default) gives the outer `width // 2` frames the
    derivative of the polynomial fitted to the first or last `width` frames; for a polynomial of
    degree `order`, that is the delta of the first or last whole window. Constant coefficients have
    deltas of exactly 0. The deltas are written to `out` if it is given.

    HTK Book 3.4, section 5.9, for order 1; Savitzky and Golay, "Smoothing and differentiation of
    data by simplified least squares procedures", Analytical Chemistry 36(8), 1964, for any order.
    Raises ValueError for an even width, an order outside 1 to width - 1, an unknown mode, or fewer
    frames than `nearest` (1) or `interp` (`width`) need.

    >>> ramp_tf = np.arange(5, dtype=np.float32)[:, None] * 2
    >>> deltas(ramp_tf, width=3, order=1, mode="nearest")[:, 0].tolist()
    [1.0, 2.0, 2.0, 2.0, 1.0]
    >>> deltas(ramp_tf, width=3, order=1, mode="interp")[:, 0].tolist()
    [2.0, 2.0, 2.0, 2.0, 2.0]
    """
    if mode not in get_args(DeltaMode):
        raise ValueError(f"mode: {mode!r} is not one of {', '.join(get_args(DeltaMode))}")
    if width < 3 or width % 2 == 0:
        raise ValueError(f"width: {width} must be an odd number of frames, 3 or more")
    if not 1 <= order < width:
        raise ValueError(f"order: {order} must be within 1 to width - 1 = {width - 1}")
    needed = width if mode == "interp" else 1
    if len(x_tf) < needed:
        raise ValueError(f"deltas: {len(x_tf)} frames are fewer than the {needed} of mode {mode!r}")
    out_tf = np.empty(x_tf.shape, np.float32) if out is None else out
    last, half = len(x_tf) - 1, width // 2
    for part in row_blocks(x_tf):
        if mode == "nearest":
            seen = np.clip(np.arange(part.start - half, part.stop + half), 0, last)
            out_tf[part] = _whole_windows(x_tf[seen], width, order)
        else:
            middles = np.clip(np.arange(part.start, part.stop), half, last - half)
            seen_tf = x_tf[middles[0] - half : middles[-1] + half + 1]
            out_tf[part] = _whole_windows(seen_tf, width, order)[middles - middles[0]]
    return out_tf


def _whole_windows(x_tf: NDArray[np.float32], width: int, order: int) -> NDArray[np.float32]:
    """Deltas where a whole window fits: (frames - width + 1, coefficients).

    Weights sum to zero, so differences replace values: between frames t + j and t - j for odd
    orders, whose weights change sign with j; between each of them and frame t for even orders.
    """
    half = width // 2
    count = len(x_tf) - 2 * half
    middle = x_tf[half : half + count]
    total = np.zeros(middle.shape, np.float32)
    for j, weight in enumerate(_weights(width, order), start=1):
        before, after = x_tf[half - j :][:count], x_tf[half + j :][:count]
        difference = after - before if order % 2 else (after - middle) + (before - middle)
        total += weight * difference
    return total


@lru_cache(maxsize=32)
def _weights(width: int, order: int) -> NDArray[np.float32]:
    """Weights of the frames after the middle one, by orthogonal (Gram) polynomials.

    The leading coefficient of the fit is <x, P> / <P, P>, where P is the monic polynomial of degree
    `order` orthogonal to all lower ones on the window's frames.
    """
    n = np.arange(1.0, width // 2 + 1)
    before, polynomial, square = np.zeros_like(n), np.ones_like(n), float(width)
    beta = 0.0
    for k in range(1, order + 1):
        before, polynomial = polynomial, n * polynomial - beta * before
        beta = k * k * (width * width - k * k) / (4 * (4 * k * k - 1))
        square *= beta
    return (math.factorial(order) / square * polynomial).astype(np.float32)
