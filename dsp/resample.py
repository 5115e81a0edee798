"""Change of sample rate, by soxr.

Conventions
-----------
* The output has `round(samples * target / source)` samples and no delay: sample 0 stays sample 0.
* `very_high` is soxr's VHQ (pass-band to 0.913 of the lower Nyquist frequency, 28-bit precision),
  `high` its HQ (20 bit). Both keep the phase linear and give the same bits on every processor.
* Equal rates return the signal as it is.
"""

from typing import Literal, get_args

import numpy as np
import soxr
from numpy.typing import NDArray

VERSION = 1

Quality = Literal["very_high", "high"]

_SOXR: dict[str, str] = {"very_high": "VHQ", "high": "HQ"}


def resample(
    y: NDArray[np.float32], *, source_rate: int, sample_rate: int, quality: Quality = "very_high"
) -> NDArray[np.float32]:
    """Resample `y` (samples,) float32 from `source_rate` to `sample_rate`, both in Hz.

    Raises ValueError for a rate that is not positive or an unknown quality.

    >>> resample(np.zeros(44100, np.float32), source_rate=44100, sample_rate=22050).shape
    (22050,)
    """
    if quality not in _SOXR:
        raise ValueError(f"quality: {quality!r} is not one of {', '.join(get_args(Quality))}")
    if source_rate <= 0 or sample_rate <= 0:
        raise ValueError(f"sample_rate: {source_rate} Hz to {sample_rate} Hz is not possible")
    if source_rate == sample_rate:
        return y
    out: NDArray[np.float32] = soxr.resample(y, source_rate, sample_rate, quality=_SOXR[quality])
    return out


class ResampleStream:
    """`resample` of a signal that arrives in pieces: the same bits, however it is cut.

    >>> stream = ResampleStream(source_rate=8000, sample_rate=16000, quality="high")
    >>> y = np.ones(1000, np.float32)
    >>> pieces = [stream.push(y[:300]), stream.push(y[300:]), stream.finish()]
    >>> whole = resample(y, source_rate=8000, sample_rate=16000, quality="high")
    >>> np.concatenate(pieces).tobytes() == whole.tobytes()
    True
    """

    def __init__(self, *, source_rate: int, sample_rate: int, quality: Quality) -> None:
        self._stream = None
        if source_rate != sample_rate:
            self._stream = soxr.ResampleStream(
                source_rate, sample_rate, 1, dtype="float32", quality=_SOXR[quality]
            )

    def push(self, y: NDArray[np.float32]) -> NDArray[np.float32]:
        """Take the next samples (samples,) and return those that are ready."""
        return y if self._stream is None else self._stream.resample_chunk(y, last=False)

    def finish(self) -> NDArray[np.float32]:
        """End the signal and return the rest."""
        rest = np.empty(0, np.float32)
        return rest if self._stream is None else self._stream.resample_chunk(rest, last=True)
