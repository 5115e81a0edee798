"""Per-channel energy normalization (PCEN): an automatic gain for each band, then a root.

Conventions
-----------
* M[t] = (1 - b) M[t-1] + b E[t] follows each band E; PCEN is (E / (eps + M)^gain + bias)^power -
  bias^power, or its limit log(1 + E / (eps + M)^gain) for `power` 0, as in librosa.
* b = 2 / (1 + √(1 + 4 T²)), where T is the time constant in frames: librosa's (√(1 + 4 T²) - 1) /
  (2 T²), without its cancellation.
* Before the first frame M is 1, as in librosa. So bands should be scaled so that 1 is quiet: for
  signals in [-1, 1], multiply magnitudes or powers by 2^31.

Powers are 2^(a log2 x) with this module's own `log2` and `exp2`, since NumPy's differ between
processors. log2 takes x = 2^e · m with m in [√½, √2) and log2 m as an odd polynomial in
s = (m - 1) / (m + 1); exp2 takes y = k + f with |f| <= ½ and 2^f - 1 as f times a polynomial. Their
coefficients interpolate log2(m) / s and (2^f - 1) / f at Chebyshev nodes, within 3e-14 and 6e-12.
All is float64 until the result is rounded, so no step adds to the rounding error of a float32.
"""

import math

import numpy as np
from numpy.typing import NDArray

_LOG2 = (
    *(2.885390081777851, 0.9617966941122649, 0.5770779426603044),
    *(0.41220922406110433, 0.31990680380701336, 0.28288502340748234),
)
_EXP2_M1 = (
    *(0.6931471805568324, 0.24022650695888503, 0.055504109063258665, 0.00961812913523614),
    *(0.0013333478473685416, 0.00015403475186530786, 1.5303700711365693e-05, 1.325080551750225e-06),
)
_LN_2 = 0.6931471805599453
_SQRT_HALF_BITS = np.float64(0.7071067811865476).view(np.int64)
_ROUND = np.float64(6755399441055744.0)  # 1.5 · 2^52: x + _ROUND - _ROUND is x in whole numbers
_SMALLEST_NORMAL = float(np.finfo(np.float32).tiny)
_BLOCK = 8192  # values: the temporaries of one block stay in the cache


def pcen(
    x_tm: NDArray[np.float32],
    *,
    sample_rate: float,
    hop_length: int,
    gain: float,
    bias: float,
    power: float,
    time_constant: float,
    eps: float,
    state: NDArray[np.float64] | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """PCEN of non-negative bands `x_tm` (frames, bands), and the state after the last frame.

    Values are float32 (frames, bands), 0 or more, within a float32 rounding of the formula. The
    state is the smoother's last value, float64 (bands,). Passed to the next call, it continues the
    signal, and any division into calls gives the same bits; None starts a signal. `sample_rate` is
    in Hz, `hop_length` in samples, `time_constant` in seconds, `eps` in the unit of the bands.

    Wang et al., "Trainable frontend for robust and far-field keyword spotting", ICASSP 2017;
    Lostanlen et al., "Per-channel energy normalization: why and how", IEEE Signal Processing
    Letters 26(1), 2019. Raises ValueError unless gain and power are within 0 to 1, bias is 0 or a
    normal positive float32, eps is one, too, rate, hop and time constant are positive, and the
    state has a value for each band.

    >>> settings = dict(sample_rate=22050, hop_length=512, gain=0.98, bias=2.0, power=0.5,
    ...                 time_constant=0.4, eps=1e-6)
    >>> values, state = pcen(np.ones((3, 1), np.float32), **settings)
    >>> values.shape, round(float(values[0, 0]), 4), state.tolist()
    ((3, 1), 0.3178, [1.0])
    """
    _check(sample_rate, hop_length, gain, bias, power, time_constant, eps)
    n_bands = x_tm.shape[1]
    if state is not None and state.shape != (n_bands,):
        raise ValueError(f"state: shape {state.shape} must be ({n_bands},), one value a band")
    n_frames = time_constant * sample_rate / hop_length
    b = 2 / (1 + math.sqrt(1 + 4 * n_frames * n_frames))
    decay, decayed = np.full(n_bands, 1 - b), np.empty(n_bands)
    smooth = np.ones(n_bands) if state is None else state
    out_tm = np.empty(x_tm.shape, np.float32)
    rows = max(1, _BLOCK // n_bands)
    for start in range(0, len(x_tm), rows):
        energy_tm = x_tm[start : start + rows].astype(np.float64)
        smooth_tm = b * energy_tm
        for row in smooth_tm:
            np.multiply(smooth, decay, out=decayed)
            row += decayed
            smooth = row
        energy_tm *= exp2(-gain * log2(smooth_tm + eps))
        out_tm[start : start + rows] = _root(energy_tm, bias, power)
    return out_tm, smooth.copy()


def log2(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Binary logarithm of positive normal values: float64, the shape of `x`.

    The relative error is within 3e-14, and powers of two are exact. Zero, subnormal and negative
    values are not checked for; their results are meaningless.

    >>> log2(np.array([1.0, 8.0, 0.125])).tolist()
    [0.0, 3.0, -3.0]
    """
    exponent, mantissa = _split(x)
    return exponent + _log2_of_one_plus(mantissa - 1.0)


def exp2(y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Two to the power of `y`, from -1022 to 1023: float64, the shape of `y`.

    The relative error is within 3e-12, and whole numbers are exact. Values outside the range are
    not checked for; their results are meaningless.

    >>> exp2(np.array([0.0, 3.0, -1.0])).tolist()
    [1.0, 8.0, 0.5]
    """
    scale, scaled = _exp2_parts(y)
    return scale + scaled


def _root(x: NDArray[np.float64], bias: float, power: float) -> NDArray[np.float64]:
    """(x + bias)^power - bias^power without cancellation; log(1 + x) for a power of 0."""
    if power == 0:
        return _LN_2 * _log2_1p(x)
    if bias == 0:
        return np.where(x > 0, exp2(power * log2(np.maximum(x, 1e-300))), 0.0)
    if power == 0.5:
        return x / (np.sqrt(x + bias) + math.sqrt(bias))
    scale, scaled = _exp2_parts(power * _log2_1p(x / bias))
    return exp2(power * log2(np.full(1, bias))) * ((scale - 1.0) + scaled)


def _log2_1p(v: NDArray[np.float64]) -> NDArray[np.float64]:
    """log2(1 + v) for v >= 0, as accurate for small v as for large."""
    exponent, mantissa = _split(v + 1.0)
    return exponent + _log2_of_one_plus(np.where(exponent == 0, v, mantissa - 1.0))


def _split(x: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Exponent and mantissa in [√½, √2) of positive normal values."""
    bits = x.view(np.int64)
    exponent = (bits - _SQRT_HALF_BITS) >> 52
    return exponent, (bits - (exponent << 52)).view(np.float64)


def _log2_of_one_plus(d: NDArray[np.float64]) -> NDArray[np.float64]:
    s = d / (d + 2.0)
    return s * _polynomial(s * s, _LOG2)


def _exp2_parts(y: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """2^k and 2^k (2^f - 1), whose sum is 2^y."""
    shifted = y + _ROUND
    f = y - (shifted - _ROUND)
    k = shifted.view(np.int64) - _ROUND.view(np.int64)
    scale = ((k + 1023) << 52).view(np.float64)
    return scale, scale * (f * _polynomial(f, _EXP2_M1))


def _polynomial(x: NDArray[np.float64], coefficients: tuple[float, ...]) -> NDArray[np.float64]:
    total = x * coefficients[-1]
    for coefficient in coefficients[-2:0:-1]:
        total += coefficient
        total *= x
    total += coefficients[0]
    return total


def _check(
    sample_rate: float,
    hop_length: int,
    gain: float,
    bias: float,
    power: float,
    time_constant: float,
    eps: float,
) -> None:
    for name, value in (("gain", gain), ("power", power)):
        if not 0 <= value <= 1:
            raise ValueError(f"{name}: {value} must be within 0 to 1")
    if bias != 0 and not _SMALLEST_NORMAL <= bias < np.inf:
        raise ValueError(f"bias: {bias} must be 0, or at least {_SMALLEST_NORMAL:.3g} and finite")
    if not _SMALLEST_NORMAL <= eps < np.inf:
        raise ValueError(f"eps: {eps} must be at least {_SMALLEST_NORMAL:.3g} and finite")
    for name, value in (
        ("sample_rate", sample_rate),
        ("hop_length", hop_length),
        ("time_constant", time_constant),
    ):
        if not 0 < value < np.inf:
            raise ValueError(f"{name}: {value} must be above 0 and finite")
