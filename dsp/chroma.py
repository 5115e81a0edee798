"""Chroma: energy by pitch class, from the bins of an STFT or a CQT.

Conventions
-----------
* Filters are librosa's: those of `stft_to_chroma` are for power, those of `cqt_to_chroma` for
  magnitudes. Row 0 is C, or A if `base_c` is false.
* Pitch is in octaves above 27.5 Hz (A0), with A4 = 440 Hz · 2^(tuning / n_chroma).
* `normalize` divides each frame by its largest value (`max`, librosa's default) or by its length
  (`l2`). A frame of silence stays 0.
"""

from functools import lru_cache
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from basilar.dsp.kernel import Bank

ChromaNorm = Literal["max", "l2", "none"]

_SMALLEST_NORMAL = np.finfo(np.float32).tiny


@lru_cache(maxsize=32)
def stft_to_chroma(
    *,
    sample_rate: int,
    n_fft: int,
    n_chroma: int,
    tuning: float,
    ctroct: float,
    octwidth: float | None,
    base_c: bool,
) -> Bank:
    """Filters from STFT bins: (n_chroma, n_fft // 2 + 1), float32.

    The weight of a bin in a class is a Gaussian of their distance in pitch. Its standard deviation
    is half a class, or half a bin where bins are wider; the weights of a bin have unit length. The
    0 Hz bin gets a pitch 1.5 octaves below bin 1. Then bins are weighted by a Gaussian around
    `ctroct` with standard deviation `octwidth`, both in octaves; None weights them equally.
    `tuning` is a fraction of a class, `sample_rate` in Hz. Computed in float64 and rounded; weights
    below 1e-12, 120 dB below the others, are set to zero.

    Ellis, "Chroma feature analysis and synthesis", 2007, as librosa.filters.chroma computes it.
    Raises ValueError unless n_chroma >= 1, n_fft >= 3, and sample_rate and octwidth are above 0.

    >>> filters = stft_to_chroma(sample_rate=22050, n_fft=2048, n_chroma=12, tuning=0.0,
    ...                          ctroct=5.0, octwidth=2.0, base_c=True)
    >>> filters.shape, int(filters.toarray()[:, 41].argmax())  # 41 · 22050 / 2048 Hz is near A4
    ((12, 1025), 9)
    """
    if n_chroma < 1 or n_fft < 3 or not sample_rate > 0:
        raise ValueError(
            f"n_chroma, n_fft, sample_rate: {n_chroma}, {n_fft}, {sample_rate} must be "
            "at least 1, at least 3 and above 0 Hz"
        )
    if octwidth is not None and not octwidth > 0:
        raise ValueError(f"octwidth: {octwidth} must be above 0 octaves, or None for no weighting")
    a0 = 27.5 * 2.0 ** (tuning / n_chroma)
    # One bin more than is kept: a bin's width reaches to its right neighbour.
    octaves = np.log2(np.arange(1, n_fft // 2 + 2) * (sample_rate / n_fft) / a0)
    octaves = np.concatenate([[octaves[0] - 1.5], octaves])
    widths = np.maximum(np.diff(octaves) * n_chroma, 1.0)
    octaves = octaves[:-1]
    half = round(n_chroma / 2)
    classes = np.arange(n_chroma)[:, None]
    distance = (octaves * n_chroma - classes + half) % n_chroma - half
    weights = np.exp(-2 * (distance / widths) ** 2)
    weights /= np.sqrt((weights * weights).sum(axis=0))
    if octwidth is not None:
        weights *= np.exp(-0.5 * ((octaves - ctroct) / octwidth) ** 2)
    weights[weights < 1e-12] = 0.0
    rows_up = 3 * (n_chroma // 12) if base_c else 0
    return Bank.of(np.roll(weights, -rows_up, axis=0).astype(np.float32))


@lru_cache(maxsize=32)
def cqt_to_chroma(
    n_bins: int, *, bins_per_octave: int, n_chroma: int, fmin: float, base_c: bool
) -> Bank:
    """Filters from CQT bins: (n_chroma, n_bins), float32.

    Bins start at `fmin` Hz, which belongs to the nearest class for A4 = 440 Hz. Each bin is added
    with weight 1 to one class: that of the nearest multiple of 1 / n_chroma octave above `fmin`, or
    of the upper one if it is halfway between two. As in librosa.filters.cq_to_chroma. Raises
    ValueError unless bins_per_octave is a multiple of n_chroma, and n_bins and fmin are above 0.

    >>> cqt_to_chroma(4, bins_per_octave=24, n_chroma=12, fmin=32.7, base_c=True).toarray().argmax(
    ...     axis=0).tolist()
    [0, 1, 1, 2]
    """
    if n_chroma < 1 or bins_per_octave < 1 or bins_per_octave % n_chroma:
        raise ValueError(
            f"bins_per_octave: {bins_per_octave} must be a multiple of n_chroma = {n_chroma}"
        )
    if n_bins < 1 or not 0 < fmin < np.inf:
        raise ValueError(f"n_bins, fmin: {n_bins}, {fmin} Hz must be 1 or more and above 0 Hz")
    merged = bins_per_octave // n_chroma
    semitones_above_c = (12 * np.log2(fmin / 440) + 69) % 12
    first = round((semitones_above_c - (0 if base_c else 9)) * n_chroma / 12)
    bins = np.arange(n_bins)
    rows = ((bins + merged // 2) // merged + first) % n_chroma
    return Bank.of((rows == np.arange(n_chroma)[:, None]).astype(np.float32))


def normalize(chroma_ct: NDArray[np.float32], *, norm: ChromaNorm) -> NDArray[np.float32]:
    """Each frame divided by its largest value (`max`) or its Euclidean length (`l2`).

    `chroma_ct`, float32 (n_chroma, frames), must be 0 or more; the result is a new array like it,
    in [0, 1], or a copy for `none`. A frame whose norm is below the smallest normal float32 stays
    as it is: silence is 0. As in librosa.util.normalize. Raises ValueError for an unknown norm.

    >>> normalize(np.array([[3, 0], [4, 0]], np.float32), norm="l2").tolist()
    [[0.6000000238418579, 0.0], [0.800000011920929, 0.0]]
    """
    if norm not in get_args(ChromaNorm):
        raise ValueError(f"norm: {norm!r} is not one of {', '.join(get_args(ChromaNorm))}")
    if norm == "none":
        return chroma_ct.copy()
    values = chroma_ct.astype(np.float64)  # squares of float32 neither overflow nor vanish
    length = np.zeros(values.shape[1])
    for row in values:
        length = np.maximum(length, row) if norm == "max" else length + row * row
    if norm == "l2":
        length = np.sqrt(length)
    return (values / np.where(length < _SMALLEST_NORMAL, 1.0, length)).astype(np.float32)
