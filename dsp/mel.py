"""Mel scales and filter banks.

Conventions
-----------
* `htk`: mel = 2595 log10(1 + f / 700) (O'Shaughnessy, "Speech Communication", 1987; HTK book).
* `slaney`: linear below 1 kHz (200/3 Hz a mel), above it 27 mels for each factor of 6.4
  (Slaney, "Auditory Toolbox", Interval Technical Report 1998-010).
* `kaldi`: the `htk` scale, and triangles that are straight over mel (Kaldi, HTK, VGGish).
* Otherwise filters are triangles over frequency in Hz. They lie between neighbouring points, which
  are equally spaced in mel from `fmin` to `fmax`. With `filter_norm` `slaney` each has unit area
  (2 / its width in Hz), with `none` unit height.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from basilar.dsp.kernel import Bank

MelScale = Literal["slaney", "htk", "kaldi"]
FilterNorm = Literal["slaney", "none"]

_HZ_PER_MEL = 200 / 3
_BREAK_HZ = 1000.0
_BREAK_MEL = _BREAK_HZ / _HZ_PER_MEL
_LOG_STEP = np.log(6.4) / 27


def hz_to_mel(hz: ArrayLike, *, mel_scale: MelScale) -> NDArray[np.float64]:
    """Frequency in Hz to mel, float64, the shape of `hz`. Raises ValueError for an unknown scale.

    >>> hz_to_mel([0, 1000, 6400], mel_scale="slaney").round(9).tolist()
    [0.0, 15.0, 42.0]
    """
    f = np.asarray(hz, np.float64)
    if _checked(mel_scale) != "slaney":
        return np.asarray(2595.0 * np.log10(1.0 + f / 700.0))
    above = _BREAK_MEL + np.log(np.maximum(f, _BREAK_HZ) / _BREAK_HZ) / _LOG_STEP
    return np.where(f < _BREAK_HZ, f / _HZ_PER_MEL, above)


def mel_to_hz(mel: ArrayLike, *, mel_scale: MelScale) -> NDArray[np.float64]:
    """Mel to frequency in Hz, float64, the shape of `mel`: the inverse of `hz_to_mel`.

    >>> mel_to_hz([0, 15], mel_scale="slaney").round(9).tolist()
    [0.0, 1000.0]
    """
    m = np.asarray(mel, np.float64)
    if _checked(mel_scale) != "slaney":
        return np.asarray(700.0 * (10.0 ** (m / 2595.0) - 1.0))
    above = _BREAK_HZ * np.exp(_LOG_STEP * (np.maximum(m, _BREAK_MEL) - _BREAK_MEL))
    return np.where(m < _BREAK_MEL, m * _HZ_PER_MEL, above)


@dataclass(frozen=True)
class MelBank:
    """A bank of triangular filters over a spectrum; frequencies in Hz.

    `fmax` None means half the sample rate.
    """

    n_mels: int
    fmin: float = 0.0
    fmax: float | None = None
    mel_scale: MelScale = "slaney"
    filter_norm: FilterNorm = "slaney"

    def filters(self, *, sample_rate: int, n_fft: int) -> Bank:
        """The filters, (n_mels, n_fft // 2 + 1), float32.

        Computed in float64 and rounded. Weights below 1e-12 of a triangle's height are rounding
        errors where it touches zero, and set to zero. A filter between two bins (many mels, small
        n_fft) is all zeros. Raises ValueError unless 0 <= fmin < fmax <= sample_rate / 2, or for an
        unknown scale or norm.

        >>> MelBank(n_mels=128).filters(sample_rate=22050, n_fft=2048).shape
        (128, 1025)
        """
        return _filters(self, sample_rate, n_fft)


@lru_cache(maxsize=32)
def _filters(bank: MelBank, sample_rate: int, n_fft: int) -> Bank:
    nyquist = sample_rate / 2
    fmax = nyquist if bank.fmax is None else bank.fmax
    if not 0 <= bank.fmin < fmax <= nyquist:
        raise ValueError(
            f"fmin, fmax: {bank.fmin} to {fmax} Hz must lie within 0 to {nyquist} Hz, "
            f"half the sample rate of {sample_rate} Hz"
        )
    if bank.filter_norm not in get_args(FilterNorm):
        raise ValueError(
            f"filter_norm: {bank.filter_norm!r} is not one of {', '.join(get_args(FilterNorm))}"
        )
    lowest, highest = hz_to_mel([bank.fmin, fmax], mel_scale=bank.mel_scale)
    mels = np.linspace(lowest, highest, bank.n_mels + 2)
    hz = mel_to_hz(mels, mel_scale=bank.mel_scale)
    bins = np.arange(n_fft // 2 + 1) * (sample_rate / n_fft)
    points = mels if bank.mel_scale == "kaldi" else hz
    if bank.mel_scale == "kaldi":
        bins = hz_to_mel(bins, mel_scale="kaldi")
    left, centre, right = points[:-2, None], points[1:-1, None], points[2:, None]
    weights = np.minimum((bins - left) / (centre - left), (right - bins) / (right - centre))
    weights[weights < 1e-12] = 0.0
    if bank.filter_norm == "slaney":
        weights *= 2.0 / (hz[2:, None] - hz[:-2, None])
    return Bank.of(weights.astype(np.float32))


def _checked(mel_scale: MelScale) -> MelScale:
    if mel_scale not in get_args(MelScale):
        raise ValueError(f"mel_scale: {mel_scale!r} is not one of {', '.join(get_args(MelScale))}")
    return mel_scale
