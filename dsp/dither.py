"""Dither: faint noise that keeps digital silence from being exactly zero.

Conventions
-----------
* The noise has the distribution of Kaldi's: normal, with standard deviation `amplitude` in the unit
  of the samples, independent from sample to sample. Kaldi draws it again for every frame and run.
  Here it is added to the signal once, and is a function of the signal: training and deployment
  dither the same signal in the same way.
* Normal values are sums of twelve 16-bit integers from a counter-based generator (SplitMix64:
  Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014): integer
  arithmetic, the same on every processor. They lie within ±6 standard deviations.
"""

import hashlib

import numpy as np
from numpy.typing import NDArray

from basilar.dsp.buffers import row_blocks

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FACTORS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


def dither(
    y: NDArray[np.float32], *, amplitude: float, out: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """`y` plus noise of standard deviation `amplitude`: float32 (samples,) like `y`.

    The result is written to `out` if it is given. Raises ValueError for an amplitude that is
    negative or not finite.

    >>> y = np.zeros(100_000, np.float32)
    >>> bool(0.49 < dither(y, amplitude=0.5).std() < 0.51)
    True
    """
    if not 0 <= amplitude < np.inf:
        raise ValueError(f"amplitude: {amplitude} must be 0 or more and finite")
    digest = hashlib.sha256(np.ascontiguousarray(y, "<f4").data).digest()
    seed = int.from_bytes(digest[:8])
    dithered = np.empty(y.shape, np.float32) if out is None else out
    for part in row_blocks(y):
        noise = normal(part.stop - part.start, seed=seed, first=part.start)
        dithered[part] = y[part] + noise * np.float32(amplitude)
    return dithered


def normal(count: int, *, seed: int, first: int = 0) -> NDArray[np.float32]:
    """`count` values of mean 0 and variance 1 from a 64-bit seed: float32 (count,).

    They are the values of the seed's sequence from number `first` on.

    >>> normal(3, seed=1)[1:].tolist() == normal(2, seed=1, first=1).tolist()
    True
    """
    total = np.zeros(count, np.int64)
    for draw in range(3):
        with np.errstate(over="ignore"):  # arithmetic modulo 2^64
            word = np.arange(3 * first + draw, 3 * (first + count), 3, dtype=np.uint64)
            word = np.uint64(seed) + (word + np.uint64(1)) * _GOLDEN
            word = (word ^ (word >> np.uint64(30))) * _FACTORS[0]
            word = (word ^ (word >> np.uint64(27))) * _FACTORS[1]
            word ^= word >> np.uint64(31)
        for shift in (0, 16, 32, 48):
            total += ((word >> np.uint64(shift)) & np.uint64(0xFFFF)).astype(np.int64)
    # Twelve uniform values on 0 … 65535 have the mean 12 * 32767.5 and the variance 65536².
    return (total - 393_210).astype(np.float32) * np.float32(1 / 65536)
