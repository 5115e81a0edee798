"""Constant-Q and variable-Q transforms, and representations computed from them."""

from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from basilar.dsp import representations
from basilar.dsp.buffers import Allocate
from basilar.dsp.chroma import ChromaNorm
from basilar.dsp.cqt import Cqt, cqt
from basilar.dsp.cqt import magnitude as cqt_magnitude
from basilar.dsp.framing import PadMode
from basilar.dsp.representations import Features, Signals
from basilar.pipeline.recipes.kinds.base import MOST_BYTES, NotTiny, Representation, StoredFloat
from basilar.pipeline.recipes.kinds.framed import Logarithmic


class ConstantQ(Representation):
    """Fields of all constant-Q and variable-Q kinds; their frames are centred."""

    hop_length: Annotated[int, Field(ge=1, le=1_000_000)] = 512
    """Samples from one frame to the next."""
    fmin: Annotated[float, Field(ge=0.001, le=384_000, allow_inf_nan=False)] = 32.70319566257483
    """Frequency of the lowest bin, Hz; the default is C1."""
    n_bins: Annotated[int, Field(ge=1, le=4096)] = 84
    """The number of bands."""
    bins_per_octave: Annotated[int, Field(ge=1, le=1200)] = 12
    """Bands per octave."""
    gamma: (
        Annotated[float, Field(ge=0, le=10_000, allow_inf_nan=False), NotTiny] | Literal["erb"]
    ) = 0.0
    """Hz added to the bandwidth (VQT); 0: CQT; `erb`: bandwidths that follow the ear's (ERB)."""
    filter_scale: Annotated[float, Field(ge=0.001, le=100, allow_inf_nan=False)] = 1.0
    """Scales the length of filters: below 1, they are shorter."""
    scale: bool = True
    """Divide coefficients by the square root of the filter's length, as in librosa."""
    pad_mode: PadMode = "constant"
    """How the signal is extended at both ends."""

    @property
    def parameters(self) -> Cqt:
        """The bins as `dsp` takes them."""
        return Cqt(
            hop_length=self.hop_length,
            fmin=self.fmin,
            n_bins=self.n_bins,
            bins_per_octave=self.bins_per_octave,
            gamma=None if self.gamma == "erb" else self.gamma,
            filter_scale=self.filter_scale,
            scale=self.scale,
            pad_mode=self.pad_mode,
        )

    def resolved(self, *, sample_rate: int) -> Self:
        needed = self.parameters.table_bytes(sample_rate=sample_rate)
        if needed > MOST_BYTES:
            raise ValueError(
                f"representation: its tables need {needed / 1e9:.1f} GB, more than "
                f"{MOST_BYTES / 1e9:.1f}; lower n_bins, raise filter_scale, or take a hop_length "
                "that powers of 2 divide"
            )
        return super().resolved(sample_rate=sample_rate)

    def columns(self) -> int:
        return self.n_bins

    def width(self) -> int:
        return self.n_bins

    def n_frames(self, n_samples: int) -> int:
        return 1 + n_samples // self.hop_length if n_samples else 0

    @property
    def is_framewise(self) -> bool:
        return False


class ComplexCqt(ConstantQ):
    """Complex constant-Q transform."""

    kind: Literal["cqt"]
    dtype: Literal["complex64"] = "complex64"

    def compute(
        self, signals: Signals, *, sample_rate: int, empty: Allocate = np.empty
    ) -> Features:
        return list(cqt(signals, self.parameters, sample_rate=sample_rate, empty=empty))


class CqtMagnitude(ConstantQ):
    """Magnitude of the constant-Q transform."""

    kind: Literal["cqt_magnitude"]
    dtype: StoredFloat = "float32"

    def compute(
        self, signals: Signals, *, sample_rate: int, empty: Allocate = np.empty
    ) -> Features:
        return list(cqt_magnitude(signals, self.parameters, sample_rate=sample_rate, empty=empty))


class LogCqt(ConstantQ, Logarithmic):
    """Logarithm of the power of the constant-Q transform, in decibels by default."""

    kind: Literal["log_cqt"]
    dtype: StoredFloat = "float32"

    def compute(
        self, signals: Signals, *, sample_rate: int, empty: Allocate = np.empty
    ) -> Features:
        return representations.log_cqt(
            signals,
            sample_rate=sample_rate,
            parameters=self.parameters,
            log=self.logarithm,
            empty=empty,
        )


class ChromaCqt(ConstantQ):
    """Magnitude of the pitch classes, from the constant-Q transform."""

    kind: Literal["chroma_cqt"]
    n_chroma: Annotated[int, Field(ge=1, le=1024)] = 12
    """The number of pitch classes."""
    base_c: bool = True
    """Bin 0 is C, otherwise A."""
    norm: ChromaNorm = "max"
    """A frame is divided by its maximum, by its Euclidean norm (`l2`), or not at all."""
    dtype: StoredFloat = "float32"

    @model_validator(mode="after")
    def _merge(self) -> Self:
        if self.bins_per_octave % self.n_chroma:
            raise ValueError(
                f"bins_per_octave = {self.bins_per_octave} is not a multiple of n_chroma = "
                f"{self.n_chroma}; it must be one"
            )
        return self

    def columns(self) -> int:
        return self.n_chroma

    def compute(
        self, signals: Signals, *, sample_rate: int, empty: Allocate = np.empty
    ) -> Features:
        return representations.chroma_cqt(
            signals,
            sample_rate=sample_rate,
            parameters=self.parameters,
            n_chroma=self.n_chroma,
            base_c=self.base_c,
            norm=self.norm,
            empty=empty,
        )
