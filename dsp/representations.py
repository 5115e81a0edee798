"""The representations: from waveforms to the features that are stored and trained on.

Conventions
-----------
* Each function takes many signals, float32 (samples,), and returns one array (frames, bins) per
  signal. Many short signals cost as much as one long one; no signal's values depend on the others.
* Every convention is an argument without a default; the defaults are the recipe's. Results are in
  arrays from `empty` (`dsp.buffers`), and nothing else is as long as the signals. Lengths are in
  samples, frequencies and `sample_rate` in Hz. A signal without a whole frame, or parameters that
  the modules below refuse, raise ValueError.
* `VERSIONS` counts the changes of each representation's numbers. It is part of every hash and is
  raised whenever the numbers of a kind change, however little; the canary tests enforce this.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from basilar.dsp import kernel
from basilar.dsp.buffers import Allocate, allocate_rows, row_blocks
from basilar.dsp.cepstrum import DctNorm, DeltaMode, LifterConvention, dct_matrix, deltas
from basilar.dsp.cepstrum import lifter as lifter_weights
from basilar.dsp.chroma import ChromaNorm, cqt_to_chroma, normalize, stft_to_chroma
from basilar.dsp.compress import Log
from basilar.dsp.cqt import Cqt
from basilar.dsp.cqt import magnitude as cqt_magnitude
from basilar.dsp.cqt import power as cqt_power
from basilar.dsp.framing import Framing
from basilar.dsp.kernel import Output
from basilar.dsp.mel import MelBank
from basilar.dsp.stft import over_frames
from basilar.dsp.stft import stft as complex_stft

VERSIONS: dict[str, int] = {
    "waveform": 1,
    "stft": 3,
    "magnitude": 3,
    "power": 3,
    "log_magnitude": 3,
    "decibel": 3,
    "mel": 3,
    "log_mel": 3,
    "mfcc": 4,
    "pcen": 3,
    "chroma": 3,
    "spectral": 3,
    "cqt": 2,
    "cqt_magnitude": 2,
    "log_cqt": 2,
    "chroma_cqt": 2,
}

_OUTPUT: dict[int, Output] = {1: "magnitude", 2: "power"}

Signals = Sequence[NDArray[np.float32]]
Features = list[NDArray[Any]]


def waveform(signals: Signals, *, empty: Allocate = np.empty) -> Features:
    """The samples themselves, copied: float32 (samples, 1).

    >>> waveform([np.zeros(3, np.float32)])[0].shape
    (3, 1)
    """
    out = allocate_rows([y.size for y in signals], 1, np.float32, empty=empty)
    for x, y in zip(out, signals, strict=True):
        x[:, 0] = y
    return out


def stft(signals: Signals, *, framing: Framing, empty: Allocate = np.empty) -> Features:
    """Complex STFT: complex64 (frames, n_fft // 2 + 1), unscaled.

    >>> stft([np.zeros(110250, np.float32)], framing=Framing(n_fft=512, hop_length=128))[0].shape
    (862, 257)
    """
    return list(complex_stft(signals, framing, empty=empty))


def spectrum(
    signals: Signals, *, framing: Framing, power: Literal[1, 2], empty: Allocate = np.empty
) -> Features:
    """Magnitude |X| (`power` 1) or power |X|² (2) of the STFT: float32 (frames, n_fft // 2 + 1).

    >>> spectrum([np.ones(64, np.float32)], power=1,
    ...          framing=Framing(n_fft=4, hop_length=4, center=False))[0][0].tolist()
    [2.0, 1.0, 0.0]
    """
    return list(over_frames(signals, framing, output=_OUTPUT[power], empty=empty))


def log_spectrum(
    signals: Signals,
    *,
    framing: Framing,
    power: Literal[1, 2],
    log: Log,
    empty: Allocate = np.empty,
) -> Features:
    """Logarithm of |X| (`power` 1) or |X|² (2): float32 (frames, n_fft // 2 + 1).

    >>> log_spectrum([np.zeros(512, np.float32)], framing=Framing(n_fft=512, hop_length=128),
    ...              power=2, log=Log(unit="db", floor=1e-10))[0][0, 0]
    np.float32(-100.0)
    """
    frames = over_frames(signals, framing, output=_OUTPUT[power], log=log.of_frame, empty=empty)
    return [log.of_clip(x) for x in frames]


def mel(
    signals: Signals,
    *,
    sample_rate: int,
    framing: Framing,
    bank: MelBank,
    power: Literal[1, 2],
    empty: Allocate = np.empty,
) -> Features:
    """Mel spectrogram: float32 (frames, n_mels), filters applied to |X| ** power.

    >>> mel([np.zeros(110250, np.float32)], sample_rate=22050, power=2,
    ...     framing=Framing(n_fft=512, hop_length=128), bank=MelBank(n_mels=128))[0].shape
    (862, 128)
    """
    filters = bank.filters(sample_rate=sample_rate, n_fft=framing.n_fft)
    return list(over_frames(signals, framing, output=_OUTPUT[power], bank=filters, empty=empty))


def log_mel(
    signals: Signals,
    *,
    sample_rate: int,
    framing: Framing,
    bank: MelBank,
    power: Literal[1, 2],
    log: Log,
    empty: Allocate = np.empty,
) -> Features:
    """Logarithm of the mel spectrogram: float32 (frames, n_mels).

    >>> log_mel([np.zeros(22050, np.float32)], sample_rate=22050, power=2,
    ...         framing=Framing(n_fft=2048, hop_length=512), bank=MelBank(n_mels=40),
    ...         log=Log(unit="db", floor=1e-10))[0][0, 0]
    np.float32(-100.0)
    """
    filters = bank.filters(sample_rate=sample_rate, n_fft=framing.n_fft)
    frames = over_frames(
        *(signals, framing), output=_OUTPUT[power], bank=filters, log=log.of_frame, empty=empty
    )
    return [log.of_clip(x) for x in frames]


def mfcc(
    log_mels: Features,
    *,
    n_mfcc: int,
    dct_norm: DctNorm,
    lifter: float,
    lifter_convention: LifterConvention,
    log_energies: Signals | None,
    n_deltas: Literal[0, 1, 2],
    delta_width: int,
    delta_mode: DeltaMode,
    empty: Allocate = np.empty,
) -> Features:
    """MFCC of log-mel features (frames, n_mels): float32 (frames, n_mfcc * (1 + n_deltas)).

    `log_energies`, float32 (frames,) per clip, replace coefficient 0, as in Kaldi. With `n_deltas`
    1 or 2 the first, or the first and second, derivatives follow as further columns.

    >>> mfcc([np.full((5, 40), -20, np.float32)], n_mfcc=13, dct_norm="ortho", lifter=22.0,
    ...      lifter_convention="htk", log_energies=None, n_deltas=1, delta_width=5,
    ...      delta_mode="nearest")[0].shape
    (5, 26)
    """
    counts = [len(x_tm) for x_tm in log_mels]
    out = allocate_rows(counts, n_mfcc * (1 + n_deltas), np.float32, empty=empty)
    for i, (x_tm, x) in enumerate(zip(log_mels, out, strict=True)):
        filters = dct_matrix(n_mfcc, x_tm.shape[1], norm=dct_norm)
        coefficients = x[:, :n_mfcc]
        for part in row_blocks(x_tm):
            coefficients[part] = kernel.over_rows(x_tm[part], bank=filters)
        if lifter:
            coefficients *= lifter_weights(n_mfcc, lifter, convention=lifter_convention)
        if log_energies is not None:
            x[:, 0] = log_energies[i]
        for order in range(1, n_deltas + 1):
            derivatives = x[:, order * n_mfcc : (order + 1) * n_mfcc]
            deltas(coefficients, width=delta_width, order=order, mode=delta_mode, out=derivatives)
    return out


def chroma(
    signals: Signals,
    *,
    sample_rate: int,
    framing: Framing,
    power: Literal[1, 2],
    n_chroma: int,
    tuning: float,
    ctroct: float,
    octwidth: float | None,
    base_c: bool,
    norm: ChromaNorm,
    empty: Allocate = np.empty,
) -> Features:
    """Chroma: the energy of each pitch class, from the STFT: float32 (frames, n_chroma).

    >>> y = np.sin(2 * np.pi * 440 * np.arange(22050) / 22050).astype(np.float32)
    >>> x = chroma([y], sample_rate=22050, framing=Framing(2048, 512), power=2, n_chroma=12,
    ...            tuning=0.0, ctroct=5.0, octwidth=2.0, base_c=True, norm="max")[0]
    >>> x.shape, int(x[20].argmax())
    ((44, 12), 9)
    """
    filters = stft_to_chroma(
        sample_rate=sample_rate,
        n_fft=framing.n_fft,
        n_chroma=n_chroma,
        tuning=tuning,
        ctroct=ctroct,
        octwidth=octwidth,
        base_c=base_c,
    )
    out = over_frames(signals, framing, output=_OUTPUT[power], bank=filters, empty=empty)
    for x_tc in out:
        for part in row_blocks(x_tc):
            x_tc[part] = normalize(x_tc[part].T, norm=norm).T
    return list(out)


def log_cqt(
    signals: Signals, *, sample_rate: int, parameters: Cqt, log: Log, empty: Allocate = np.empty
) -> Features:
    """Logarithm of the power |C|² of the CQT: float32 (1 + samples // hop_length, n_bins).

    >>> log_cqt([np.zeros(8000, np.float32)], sample_rate=8000, log=Log(floor=1e-10),
    ...         parameters=Cqt(hop_length=400, fmin=110.0, n_bins=24, bins_per_octave=12))[0][0, 0]
    np.float32(-100.0)
    """
    out = cqt_power(signals, parameters, sample_rate=sample_rate, empty=empty)
    for x_tb in out:
        for part in row_blocks(x_tb):
            x_tb[part] = kernel.over_rows(x_tb[part], log=log.of_frame)
        log.of_clip(x_tb)
    return list(out)


def chroma_cqt(
    signals: Signals,
    *,
    sample_rate: int,
    parameters: Cqt,
    n_chroma: int,
    base_c: bool,
    norm: ChromaNorm,
    empty: Allocate = np.empty,
) -> Features:
    """Chroma: the magnitude of each pitch class, from the CQT: float32 (frames, n_chroma).

    >>> y = np.sin(2 * np.pi * 440 * np.arange(22050) / 22050).astype(np.float32)
    >>> x = chroma_cqt([y], sample_rate=22050, n_chroma=12, base_c=True, norm="max",
    ...                parameters=Cqt(512, 32.70319566257483, 84, 12))[0]
    >>> x.shape, int(x[20].argmax())
    ((44, 12), 9)
    """
    filters = cqt_to_chroma(
        parameters.n_bins,
        bins_per_octave=parameters.bins_per_octave,
        n_chroma=n_chroma,
        fmin=parameters.fmin,
        base_c=base_c,
    )
    magnitudes = cqt_magnitude(signals, parameters, sample_rate=sample_rate, empty=empty)
    out = allocate_rows([len(x_tb) for x_tb in magnitudes], n_chroma, np.float32, empty=empty)
    for magnitude_tb, chroma_tc in zip(magnitudes, out, strict=True):
        for part in row_blocks(magnitude_tb):
            chroma_tc[part] = kernel.over_rows(magnitude_tb[part], bank=filters)
            chroma_tc[part] = normalize(chroma_tc[part].T, norm=norm).T
    return out
