"""Mel, log-mel, MFCC and PCEN."""

from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from basilar.dsp import representations
from basilar.dsp.buffers import Allocate, row_blocks
from basilar.dsp.cepstrum import DctNorm, DeltaMode, LifterConvention
from basilar.dsp.compress import log
from basilar.dsp.histogram import Grid
from basilar.dsp.mel import FilterNorm, MelBank, MelScale
from basilar.dsp.pcen import pcen
from basilar.dsp.representations import Features, Signals
from basilar.dsp.streaming import spans
from basilar.pipeline.recipes.kinds.base import (
    Floor,
    Hertz,
    NotTiny,
    Positive,
    Power,
    Share,
    StoredFloat,
)
from basilar.pipeline.recipes.kinds.framed import Framed, Logarithmic


class MelBands(Framed):
    """Fields of all kinds that apply mel filters to the spectrum."""

    n_mels: Annotated[int, Field(ge=1, le=4096)] = 128
    """The number of mel bands."""
    fmin: Hertz = 0.0
    """Lower edge of the lowest band, Hz."""
    fmax: Annotated[float, Field(gt=0, le=384_000, allow_inf_nan=False)] | None = None
    """Upper edge of the highest band, Hz; left out: half the sample rate."""
    mel_scale: MelScale = "slaney"
    """`kaldi` is the `htk` scale with triangles that are linear in mel, not in Hz."""
    filter_norm: FilterNorm = "slaney"
    """`slaney`: filters of unit area; `none`: of unit height."""
    power: Power = 2
    """Filters are applied to |X| (1) or |X|² (2)."""

    @property
    def bank(self) -> MelBank:
        """The filters as `dsp` takes them."""
        return MelBank(**{name: getattr(self, name) for name in MelBank.__dataclass_fields__})

    def resolved(self, *, sample_rate: int) -> Self:
        nyquist = sample_rate / 2
        fmax = nyquist if self.fmax is None else self.fmax
        if not self.fmin + 1 <= fmax <= nyquist:
            raise ValueError(
                f"representation: fmin = {self.fmin} and fmax = {fmax} Hz do not span any bands; "
                f"they must be, in this order and 1 Hz apart, within 0 to {nyquist} Hz, half of "
                "resample.sample_rate"
            )
        self.refuse_bank("n_mels", self.n_mels)
        return super().resolved(sample_rate=sample_rate).model_copy(update={"fmax": fmax})

    def columns(self) -> int:
        return self.n_mels

    def width(self) -> int:
        return max(self.n_fft, self.n_mels)

    def empty_bands(self, *, sample_rate: int) -> list[int]:
        """The bands that no FFT bin falls into: they are always zero."""
        filters = self.bank.filters(sample_rate=sample_rate, n_fft=self.n_fft)
        return [int(band) for band in np.flatnonzero(~filters.toarray().any(axis=1))]

    def mels(self, signals: Signals, *, sample_rate: int, empty: Allocate = np.empty) -> Features:
        """The mel spectrogram of each signal: float32 (frames, n_mels)."""
        return representations.mel(
            signals,
            sample_rate=sample_rate,
            framing=self.framing,
            bank=self.bank,
            power=self.power,
            empty=empty,
        )


class LogMelBands(MelBands, Logarithmic):
    """Fields of all kinds that take the logarithm of mel bands."""

    def log_mels(
        self, signals: Signals, *, sample_rate: int, empty: Allocate = np.empty
    ) -> Features:
        """The logarithm of the mel spectrogram of each signal: float32 (frames, n_mels)."""
        return representations.log_mel(
            signals,
            sample_rate=sample_rate,
            framing=self.framing,
            bank=self.bank,
            power=self.power,
            log=self.logarithm,
            empty=empty,
        )


class Mel(MelBands):
    """Mel spectrogram."""

    kind: Literal["mel"]
    dtype: StoredFloat = "float32"

    def compute(
        self, signals: Signals, *, sample_rate: int, empty: Allocate = np.empty
    ) -> Features:
        return self.mels(signals, sample_rate=sample_rate, empty=empty)


class LogMel(LogMelBands):
    """Logarithm of the mel spectrogram."""

    kind: Literal["log_mel"]
    dtype: StoredFloat = "float32"

    def compute(
        self, signals: Signals, *, sample_rate: int, empty: Allocate = np.empty
    ) -> Features:
        return self.log_mels(signals, sample_rate=sample_rate, empty=empty)


class Mfcc(LogMelBands):
    """Mel-frequency cepstral coefficients (MFCC), and their derivatives in time."""

    kind: Literal["mfcc"]
    n_mfcc: Annotated[int, Field(ge=1, le=4096)] = 20
    """The number of coefficients, including coefficient 0."""
    dct_norm: DctNorm = "ortho"
    """DCT-II: orthonormal, `none` (a factor of 2), or `htk` (the same factor in every row)."""
    lifter: Annotated[float, Field(ge=0, le=10_000, allow_inf_nan=False), NotTiny] = 0.0
    """Coefficients are weighted by 1 + lifter / 2 * sin(…); 0: not weighted."""
    lifter_convention: LifterConvention = "htk"
    """sin(pi n / lifter) from n = 0 (`htk`, also Kaldi), or from n = 1 (`librosa`)."""
    energy: bool = False
    """Replace coefficient 0 with the logarithm of the frame's energy, as in Kaldi."""
    energy_floor: Floor = 1.1920928955078125e-07
    """The lowest energy inside that logarithm."""
    n_deltas: Literal[0, 1, 2] = 0
    """Derivatives appended to the coefficients: none, first, or first and second."""
    delta_width: Annotated[int, Field(ge=3, le=99)] = 9
    """Frames that a derivative is fitted to; an odd number."""
    delta_mode: DeltaMode = "interp"
    """At the ends: a fit to the outermost frames, or the outermost frame repeated (`nearest`)."""
    dtype: StoredFloat = "float32"

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.n_mfcc > self.n_mels:
            raise ValueError(
                f"n_mfcc = {self.n_mfcc} must not exceed n_mels = {self.n_mels}; lower it"
            )
        if self.delta_width % 2 == 0:
            raise ValueError(f"delta_width = {self.delta_width} is even; it must be odd")
        return self

    def columns(self) -> int:
        return self.n_mfcc * (1 + self.n_deltas)

    def n_frames(self, n_samples: int) -> int:
        frames = self.framing.n_frames(n_samples)
        too_few = self.n_deltas and self.delta_mode == "interp" and frames < self.delta_width
        return 0 if too_few else frames

    @property
    def too_short_message(self) -> str:
        if self.n_deltas and self.delta_mode == "interp":
            return f"fewer than delta_width = {self.delta_width} frames (delta_mode is interp)"
        return super().too_short_message

    def compute(
        self, signals: Signals, *, sample_rate: int, empty: Allocate = np.empty
    ) -> Features:
        log_energies = None
        if self.energy:
            framing, floor = self.framing, self.energy_floor
            log_energies = []
            for y in signals:
                energies = [framing.bare.energies(span) for span in spans(y, framing)]
                log_energies.append(log(np.concatenate(energies), unit="ln", floor=floor))
        log_mels = self.log_mels(signals, sample_rate=sample_rate, empty=empty)
        return representations.mfcc(
            log_mels,
            n_mfcc=self.n_mfcc,
            dct_norm=self.dct_norm,
            lifter=self.lifter,
            lifter_convention=self.lifter_convention,
            log_energies=log_energies,
            n_deltas=self.n_deltas,
            delta_width=self.delta_width,
            delta_mode=self.delta_mode,
            empty=empty,
        )

    @property
    def is_framewise(self) -> bool:
        return super().is_framewise and not self.n_deltas

    @property
    def pivot(self) -> float:
        return 0.0

    @property
    def grid(self) -> Grid:
        return Grid("linear", -1024.0, 1024.0)


class Pcen(MelBands):
    """Mel bands after per-channel energy normalization."""

    kind: Literal["pcen"]
    scale: Positive = 2147483648.0
    """Factor of the samples: large, since the smoother starts at 1, which must be quiet."""
    power: Power = 1
    gain: Share = 0.98
    """Bands are divided by the smoothed energy to this power; 0: not divided."""
    bias: Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False), NotTiny] = 2.0
    """Added before the root; its own root is subtracted afterwards."""
    exponent: Share = 0.5
    """The exponent of the root; 0: the limit, a logarithm."""
    time_constant: Annotated[float, Field(ge=1e-6, le=1e6, allow_inf_nan=False)] = 0.4
    """Time constant of the smoother, s."""
    eps: Floor = 1e-6
    """Added to the smoothed energy."""
    dtype: StoredFloat = "float32"

    def compute(
        self, signals: Signals, *, sample_rate: int, empty: Allocate = np.empty
    ) -> Features:
        mels = self.mels(signals, sample_rate=sample_rate, empty=empty)
        for x in mels:
            state = None
            for part in row_blocks(x):
                x[part], state = pcen(
                    x[part],
                    sample_rate=sample_rate,
                    hop_length=self.hop_length,
                    gain=self.gain,
                    bias=self.bias,
                    power=self.exponent,
                    time_constant=self.time_constant,
                    eps=self.eps,
                    state=state,
                )
        return mels

    @property
    def is_framewise(self) -> bool:
        return False
