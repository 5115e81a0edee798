"""The representations: from waveforms to what is stored and trained on.

Conventions
-----------
* Each function takes many signals, float32 (samples,), and returns one array (frames, bins) a
  signal. Many short signals cost what one long one does; no signal's values depend on the others'.
* Every convention is an argument without a default; the defaults are the recipe's.
* `VERSIONS` counts the changes of each representation's numbers. It enters every hash, so it is
  raised whenever the numbers of a kind change, by however little; the canary tests insist.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dsp import compress
from dsp.compress import FloorMode, LogUnit
from dsp.framing import Framing
from dsp.mel import MelBank
from dsp.stft import over_frames, power_spectrum

VERSIONS: dict[str, int] = {
    "waveform": 1,
    "stft": 1,
    "magnitude": 1,
    "log_magnitude": 1,
    "decibel": 1,
    "mel": 1,
    "log_mel": 1,
}

Signals = Sequence[NDArray[np.float32]]
Features = list[NDArray[Any]]


def waveform(signals: Signals) -> Features:
    """The samples themselves: float32 (samples, 1).

    >>> waveform([np.zeros(3, np.float32)])[0].shape
    (3, 1)
    """
    return [y[:, None] for y in signals]


def stft(signals: Signals, *, framing: Framing) -> Features:
    """Complex STFT: complex64 (frames, n_fft // 2 + 1), unscaled.

    >>> stft([np.zeros(110250, np.float32)], framing=Framing(n_fft=512, hop_length=128))[0].shape
    (862, 257)
    """
    return over_frames(signals, framing, lambda x: x, n_bins=framing.n_bins, dtype=np.complex64)


def magnitude(signals: Signals, *, framing: Framing) -> Features:
    """Magnitude |X| of the STFT: float32 (frames, n_fft // 2 + 1), in [0, sum(window)].

    >>> magnitude([np.ones(64, np.float32)],
    ...           framing=Framing(n_fft=4, hop_length=4, center=False))[0][0].tolist()
    [2.0, 1.0, 0.0]
    """
    return over_frames(signals, framing, _magnitude, n_bins=framing.n_bins)


def log_magnitude(
    signals: Signals,
    *,
    framing: Framing,
    log: Literal["ln", "log10"],
    floor: float,
    floor_mode: FloorMode,
) -> Features:
    """Logarithm of the magnitude: float32 (frames, n_fft // 2 + 1), silence is log(floor).

    >>> log_magnitude([np.zeros(512, np.float32)], framing=Framing(n_fft=512, hop_length=128),
    ...               log="log10", floor=1.0, floor_mode="add")[0][0, 0]
    np.float32(0.0)
    """

    def function(spectrum: NDArray[np.complex64]) -> NDArray[np.float32]:
        return compress.log(_magnitude(spectrum), unit=log, floor=floor, floor_mode=floor_mode)

    return over_frames(signals, framing, function, n_bins=framing.n_bins)


def decibel(signals: Signals, *, framing: Framing, floor: float, top_db: float | None) -> Features:
    """STFT in decibels, 10 log10(max(|X|², floor)): float32 (frames, n_fft // 2 + 1).

    0 dB is |X| = 1, `floor` a power. With `top_db` a clip's values are raised to at least its
    maximum less `top_db`.

    >>> decibel([np.zeros(512, np.float32)], framing=Framing(n_fft=512, hop_length=128),
    ...         floor=1e-10, top_db=None)[0][0, 0]
    np.float32(-100.0)
    """

    def function(spectrum: NDArray[np.complex64]) -> NDArray[np.float32]:
        return compress.log(power_spectrum(spectrum), unit="db", floor=floor, floor_mode="clip")

    return _limited(over_frames(signals, framing, function, n_bins=framing.n_bins), top_db)


def mel(
    signals: Signals, *, sample_rate: int, framing: Framing, bank: MelBank, power: Literal[1, 2]
) -> Features:
    """Mel spectrogram: float32 (frames, n_mels), filters applied to |X| ** power.

    >>> mel([np.zeros(110250, np.float32)], sample_rate=22050, power=2,
    ...     framing=Framing(n_fft=512, hop_length=128), bank=MelBank(n_mels=128))[0].shape
    (862, 128)
    """
    filters = bank.filters(sample_rate=sample_rate, n_fft=framing.n_fft)
    spectral = power_spectrum if power == 2 else _magnitude
    return over_frames(signals, framing, lambda x: filters @ spectral(x), n_bins=bank.n_mels)


def log_mel(
    signals: Signals,
    *,
    sample_rate: int,
    framing: Framing,
    bank: MelBank,
    power: Literal[1, 2],
    log: LogUnit,
    floor: float,
    floor_mode: FloorMode,
    top_db: float | None,
) -> Features:
    """Logarithm of the mel spectrogram: float32 (frames, n_mels).

    `db` is 10 log10 of the mel value, whatever the power. With `top_db` a clip's values are
    raised to at least its maximum less `top_db`.

    >>> log_mel([np.zeros(22050, np.float32)], sample_rate=22050, power=2, log="db",
    ...         floor=1e-10, floor_mode="clip", top_db=None, bank=MelBank(n_mels=40),
    ...         framing=Framing(n_fft=2048, hop_length=512))[0][0, 0]
    np.float32(-100.0)
    """
    filters = bank.filters(sample_rate=sample_rate, n_fft=framing.n_fft)
    spectral = power_spectrum if power == 2 else _magnitude

    def function(spectrum: NDArray[np.complex64]) -> NDArray[np.float32]:
        mel_mt = filters @ spectral(spectrum)
        return compress.log(mel_mt, unit=log, floor=floor, floor_mode=floor_mode)

    return _limited(over_frames(signals, framing, function, n_bins=bank.n_mels), top_db)


def _magnitude(spectrum: NDArray[np.complex64]) -> NDArray[np.float32]:
    power_ft = power_spectrum(spectrum)
    return np.sqrt(power_ft, out=power_ft)


def _limited(features: Features, top_db: float | None) -> Features:
    if top_db is None:
        return features
    return [compress.limit_range(x, top_db=top_db) for x in features]
