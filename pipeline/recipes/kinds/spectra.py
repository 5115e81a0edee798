"""Waveform, STFT, magnitude, power, their logarithms, and statistics of each frame."""

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from basilar.dsp import representations
from basilar.dsp.buffers import Allocate
from basilar.dsp.compress import FloorMode, LogUnit
from basilar.dsp.histogram import Grid
from basilar.dsp.representations import Features, Signals
from basilar.dsp.spectral import spectral_statistics
from basilar.pipeline.recipes.kinds.base import Floor, Representation, StoredFloat
from basilar.pipeline.recipes.kinds.framed import Framed, Logarithmic


class Waveform(Representation):
    """The samples themselves: one bin, and one row for each sample."""

    kind: Literal["waveform"]
    dtype: StoredFloat = "float32"

    def columns(self) -> int:
        return 1

    def n_frames(self, n_samples: int) -> int:
        return n_samples

    def compute(
        self, signals: Signals, *, sample_rate: int, empty: Allocate = np.empty
    ) -> Features:
        return representations.waveform(signals, empty=empty)

    @property
    def grid(self) -> Grid:
        return Grid("linear", -1.0, 1.0)


class Stft(Framed):
    """Complex short-time Fourier transform."""

    kind: Literal["stft"]
    dtype: Literal["complex64"] = "complex64"

    def compute(
        self, signals: Signals, *, sample_rate: int, empty: Allocate = np.empty
    ) -> Features:
        return representations.stft(signals, framing=self.framing, empty=empty)


class Magnitude(Framed):
    """|X| of the STFT."""

    kind: Literal["magnitude"]
    dtype: StoredFloat = "float32"

    def compute(
        self, signals: Signals, *, sample_rate: int, empty: Allocate = np.empty
    ) -> Features:
        return representations.spectrum(signals, framing=self.framing, power=1, empty=empty)


class PowerSpectrum(Framed):
    """|X|² of the STFT."""

    kind: Literal["power"]
    dtype: StoredFloat = "float32"

    def compute(
        self, signals: Signals, *, sample_rate: int, empty: Allocate = np.empty
    ) -> Features:
        return representations.spectrum(signals, framing=self.framing, power=2, empty=empty)


class LogMagnitude(Framed, Logarithmic):
    """Logarithm of |X|."""

    kind: Literal["log_magnitude"]
    log: LogUnit = "ln"
    floor: Floor = 0.001
    floor_mode: FloorMode = "add"
    dtype: StoredFloat = "float32"

    def compute(
        self, signals: Signals, *, sample_rate: int, empty: Allocate = np.empty
    ) -> Features:
        return representations.log_spectrum(
            signals, framing=self.framing, power=1, log=self.logarithm, empty=empty
        )


class Decibel(Framed, Logarithmic):
    """Logarithm of |X|², in decibels by default."""

    kind: Literal["decibel"]
    dtype: StoredFloat = "float32"

    def compute(
        self, signals: Signals, *, sample_rate: int, empty: Allocate = np.empty
    ) -> Features:
        return representations.log_spectrum(
            signals, framing=self.framing, power=2, log=self.logarithm, empty=empty
        )


class Spectral(Framed):
    """Statistics of each frame: RMS, zero-crossing rate, centroid in Hz, roll-off in Hz.

    The first two are computed from the frame's unprocessed samples, without `scale`, DC removal,
    pre-emphasis and window.
    """

    kind: Literal["spectral"]
    roll_percent: Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)] = 0.85
    """The share of the magnitude below the roll-off."""
    dtype: StoredFloat = "float32"

    def columns(self) -> int:
        return 4

    def compute(
        self, signals: Signals, *, sample_rate: int, empty: Allocate = np.empty
    ) -> Features:
        return spectral_statistics(
            signals,
            sample_rate=sample_rate,
            framing=self.framing,
            roll_percent=self.roll_percent,
            empty=empty,
        )
