"""Statistics of single frames: level, zero crossings, centroid, roll-off.

Conventions
-----------
* `rms` and `zero_crossing_rate` take frames of the signal itself, not windowed, (frames, n):
  those of `dsp.framing.Framing.frames`. librosa's are centred, padded with zeros for the first and
  with the outermost samples (`pad_mode` `edge`) for the second.
* `spectral_centroid` and `spectral_rolloff` take magnitudes (bins, frames) and the bins'
  frequencies in Hz. librosa takes magnitudes, not powers, by default.
* Each returns float32 (frames,), with 0 for a silent frame; a value depends on its frame alone.
* `spectral_statistics` is the representation that puts the four side by side.

Sums are float32 additions in one order: by halves (a tree), whose error grows with the logarithm of
the number of values, or from the lowest bin upwards where every partial sum is needed.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from basilar.dsp.buffers import Allocate, allocate_rows, row_blocks
from basilar.dsp.framing import Framing
from basilar.dsp.stft import frame_counts, over_frames
from basilar.dsp.streaming import spans

_BLOCK = 64  # frames: the temporaries of one block stay in the cache
_ZERO = np.float32(1e-10)
_SMALLEST_NORMAL = np.finfo(np.float32).tiny


def rms(frames_tn: NDArray[np.float32]) -> NDArray[np.float32]:
    """Root of the mean square of each frame: float32 (frames,), in the unit of the samples.

    As librosa.feature.rms does from a signal. Raises ValueError for frames of no samples.

    >>> rms(np.array([[3, 4, 0, 0], [0, 0, 0, 0]], np.float32)).tolist()
    [2.5, 0.0]
    """

    def mean_square(block_tn: NDArray[np.float32]) -> NDArray[np.float32]:
        return _sum_of_rows((block_tn * block_tn).T) / np.float32(block_tn.shape[1])

    root: NDArray[np.float32] = np.sqrt(_by_blocks(frames_tn, mean_square))
    return root


def zero_crossing_rate(frames_tn: NDArray[np.float32]) -> NDArray[np.float32]:
    """Changes of sign within each frame per sample: float32 (frames,), in [0, 1).

    What is not below -1e-10, rounded to float32, counts as positive. As
    librosa.feature.zero_crossing_rate of 0.11; that of 1.0 does not round, so that for it the one
    value float32(-1e-10) is negative. Raises ValueError for frames of no samples.

    >>> zero_crossing_rate(np.array([[1, -1, 0, 1], [0, 0, 0, 0]], np.float32)).tolist()
    [0.5, 0.0]
    """

    def rate(block_tn: NDArray[np.float32]) -> NDArray[np.float32]:
        negative = block_tn < -_ZERO
        crossings = np.count_nonzero(negative[:, 1:] != negative[:, :-1], axis=1)
        return np.asarray(crossings / block_tn.shape[1], np.float32)

    return _by_blocks(frames_tn, rate)


def spectral_centroid(
    magnitude_ft: NDArray[np.float32], *, frequencies: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Mean frequency of each frame, weighted by magnitude: float32 (frames,), in Hz.

    `magnitude_ft` (bins, frames) is 0 or more, `frequencies` (bins,) in Hz. A frame whose sum of
    magnitudes is below the smallest normal float32 is silent: 0 Hz. As in
    librosa.feature.spectral_centroid (Klapuri and Davy, "Signal processing methods for music
    transcription", 2007, chapter 5). Raises ValueError unless each bin has a frequency.

    >>> spectral_centroid(np.array([[1, 0], [3, 0]], np.float32),
    ...                   frequencies=np.array([0.0, 100.0])).tolist()
    [75.0, 0.0]
    """
    hz = _checked(frequencies, magnitude_ft)
    total = _sum_of_rows(magnitude_ft)
    weighted = _sum_of_rows(hz[:, None] * magnitude_ft)
    silent = total < _SMALLEST_NORMAL
    return np.where(silent, np.float32(0), weighted / np.where(silent, np.float32(1), total))


def spectral_rolloff(
    magnitude_ft: NDArray[np.float32], *, frequencies: NDArray[np.float64], roll_percent: float
) -> NDArray[np.float32]:
    """Lowest frequency below which a share of each frame's magnitude lies: float32 (frames,), Hz.

    It is that of the first bin at which the sum of magnitudes from the lowest bin up reaches
    `roll_percent` of the sum of all (a share in (0, 1), despite the name, which is librosa's).
    `magnitude_ft` (bins, frames) is 0 or more, `frequencies` (bins,) in Hz and rising. A frame
    whose sum is below the smallest normal float32 is silent: 0 Hz. As in
    librosa.feature.spectral_rolloff, with the same float32 sums. Raises ValueError for a share
    outside (0, 1), or unless each bin has a frequency.

    >>> spectral_rolloff(np.array([[1, 0], [1, 0], [1, 0]], np.float32),
    ...                  frequencies=np.array([0.0, 100.0, 200.0]), roll_percent=0.5).tolist()
    [100.0, 0.0]
    """
    hz = _checked(frequencies, magnitude_ft)
    if not 0 < roll_percent < 1:
        raise ValueError(f"roll_percent: {roll_percent} must be a share between 0 and 1")
    upto_ft = magnitude_ft.copy()
    for lower, row in pairwise(upto_ft):
        row += lower
    total = upto_ft[-1]
    bins = np.count_nonzero(upto_ft < np.float32(roll_percent) * total, axis=0)
    return np.where(total < _SMALLEST_NORMAL, np.float32(0), hz[bins])


def spectral_statistics(
    signals: Sequence[NDArray[np.float32]],
    *,
    sample_rate: int,
    framing: Framing,
    roll_percent: float,
    empty: Allocate = np.empty,
) -> list[NDArray[Any]]:
    """Level and shape of each frame: float32 (frames, 4).

    Columns are RMS, zero-crossing rate, spectral centroid in Hz, and roll-off in Hz, the frequency
    below which a share `roll_percent` of the magnitude lies.

    >>> y = np.sin(2 * np.pi * 1000 * np.arange(8000) / 8000).astype(np.float32)
    >>> spectral_statistics([y], sample_rate=8000, framing=Framing(512, 128, center=False),
    ...                     roll_percent=0.85)[0][0].astype(float).round(2).tolist()
    [0.71, 0.25, 1000.0, 1015.62]
    """
    frequencies = np.arange(framing.n_bins, dtype=np.float64) * (sample_rate / framing.n_fft)

    out = allocate_rows(frame_counts(signals, framing), 4, np.float32, empty=empty)
    for y, x in zip(signals, out, strict=True):
        row = 0
        for span in spans(y, framing):
            frames_tn = framing.bare.frames(span)
            for part in row_blocks(frames_tn):
                block_tn = frames_tn[part]
                first, last = part.start * framing.hop_length, part.stop * framing.hop_length
                samples = span[first : last - framing.hop_length + framing.length]
                (magnitude_tf,) = over_frames([samples], framing.bare, output="magnitude")
                magnitude_ft = magnitude_tf.T
                into = x[row : row + len(block_tn)]
                into[:, 0], into[:, 1] = rms(block_tn), zero_crossing_rate(block_tn)
                into[:, 2] = spectral_centroid(magnitude_ft, frequencies=frequencies)
                into[:, 3] = spectral_rolloff(
                    magnitude_ft, frequencies=frequencies, roll_percent=roll_percent
                )
                row += len(block_tn)
    return out


def _checked(
    frequencies: NDArray[np.float64], magnitude_ft: NDArray[np.float32]
) -> NDArray[np.float32]:
    if frequencies.shape != magnitude_ft.shape[:1] or not len(frequencies):
        raise ValueError(
            f"frequencies: shape {frequencies.shape} must be ({len(magnitude_ft)},), "
            "one in Hz for each of 1 or more bins"
        )
    return frequencies.astype(np.float32)


def _sum_of_rows(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Sum over the first axis by halves: (columns,)."""
    while len(x) > 1:
        half = (len(x) + 1) // 2
        folded = x[:half].copy(order="K")
        folded[: len(x) - half] += x[half:]
        x = folded
    total: NDArray[np.float32] = x[0]
    return total


def _by_blocks(
    frames_tn: NDArray[np.float32], function: Callable[[NDArray[np.float32]], NDArray[np.float32]]
) -> NDArray[np.float32]:
    if frames_tn.shape[1] == 0:
        raise ValueError("frames of 0 samples have no statistics: 1 or more are needed")
    out = np.empty(len(frames_tn), np.float32)
    for start in range(0, len(frames_tn), _BLOCK):
        out[start : start + _BLOCK] = function(frames_tn[start : start + _BLOCK])
    return out
