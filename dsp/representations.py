"""The representations: from waveforms to what is stored and trained on.

Conventions
-----------
* Each function takes many signals, float32 (samples,), and returns one array (frames, bins) a
  signal. Many short signals cost what one long one does; no signal's values depend on the others'.
* Every convention is an argument without a default; the defaults are the recipe's.
* `VERSIONS` counts the changes of each representation's numbers. It enters every hash, so it is
  raised whenever the numbers of a kind change, by however little; the canary tests insist.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dsp.compress import Log
from dsp.framing import Framing
from dsp.mel import MelBank
from dsp.stft import over_frames, power_spectrum

VERSIONS: dict[str, int] = {
    "waveform": 1,
    "stft": 1,
    "magnitude": 1,
    "power": 1,
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


def spectrum(signals: Signals, *, framing: Framing, power: Literal[1, 2]) -> Features:
    """Magnitude |X| (`power` 1) or power |X|² (2) of the STFT: float32 (frames, n_fft // 2 + 1).

    >>> spectrum([np.ones(64, np.float32)], power=1,
    ...          framing=Framing(n_fft=4, hop_length=4, center=False))[0][0].tolist()
    [2.0, 1.0, 0.0]
    """
    return over_frames(signals, framing, _spectral(power), n_bins=framing.n_bins)


def log_spectrum(signals: Signals, *, framing: Framing, power: Literal[1, 2], log: Log) -> Features:
    """Logarithm of |X| (`power` 1) or |X|² (2): float32 (frames, n_fft // 2 + 1).

    >>> log_spectrum([np.zeros(512, np.float32)], framing=Framing(n_fft=512, hop_length=128),
    ...              power=2, log=Log(unit="db", floor=1e-10))[0][0, 0]
    np.float32(-100.0)
    """
    spectral = _spectral(power)
    frames = over_frames(
        signals, framing, lambda x: log.of_frames(spectral(x)), n_bins=framing.n_bins
    )
    return [log.of_clip(x) for x in frames]


def mel(
    signals: Signals, *, sample_rate: int, framing: Framing, bank: MelBank, power: Literal[1, 2]
) -> Features:
    """Mel spectrogram: float32 (frames, n_mels), filters applied to |X| ** power.

    >>> mel([np.zeros(110250, np.float32)], sample_rate=22050, power=2,
    ...     framing=Framing(n_fft=512, hop_length=128), bank=MelBank(n_mels=128))[0].shape
    (862, 128)
    """
    filters = bank.filters(sample_rate=sample_rate, n_fft=framing.n_fft)
    spectral = _spectral(power)
    return over_frames(signals, framing, lambda x: filters @ spectral(x), n_bins=bank.n_mels)


def log_mel(
    signals: Signals,
    *,
    sample_rate: int,
    framing: Framing,
    bank: MelBank,
    power: Literal[1, 2],
    log: Log,
) -> Features:
    """Logarithm of the mel spectrogram: float32 (frames, n_mels).

    >>> log_mel([np.zeros(22050, np.float32)], sample_rate=22050, power=2,
    ...         framing=Framing(n_fft=2048, hop_length=512), bank=MelBank(n_mels=40),
    ...         log=Log(unit="db", floor=1e-10))[0][0, 0]
    np.float32(-100.0)
    """
    filters = bank.filters(sample_rate=sample_rate, n_fft=framing.n_fft)
    spectral = _spectral(power)
    frames = over_frames(
        signals, framing, lambda x: log.of_frames(filters @ spectral(x)), n_bins=bank.n_mels
    )
    return [log.of_clip(x) for x in frames]


def _spectral(
    power: Literal[1, 2],
) -> Callable[[NDArray[np.complex64]], NDArray[np.float32]]:
    return power_spectrum if power == 2 else _magnitude


def _magnitude(spectrum: NDArray[np.complex64]) -> NDArray[np.float32]:
    power_ft = power_spectrum(spectrum)
    return np.sqrt(power_ft, out=power_ft)
