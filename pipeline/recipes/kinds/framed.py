"""Fields shared by kinds that use windowed frames, and by kinds that end in a logarithm."""

from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from basilar.dsp.buffers import Allocate, allocate_rows
from basilar.dsp.compress import FloorMode, Log, LogUnit
from basilar.dsp.dither import dither
from basilar.dsp.framing import Align, Framing, PadMode, WindowKind
from basilar.dsp.histogram import Grid
from basilar.dsp.representations import Signals
from basilar.pipeline.recipes.kinds.base import (
    MOST_WEIGHTS,
    Floor,
    NotTiny,
    Positive,
    Representation,
)


class Framed(Representation):
    """Fields of all kinds that start from windowed frames."""

    n_fft: Annotated[int, Field(ge=16, le=131_072)] = 2048
    """Samples of a frame's FFT."""
    hop_length: Annotated[int, Field(ge=1, le=1_000_000)] = 512
    """Samples from one frame to the next."""
    win_length: Annotated[int, Field(ge=1, le=131_072)] | None = None
    """Samples of the window; left out: `n_fft`."""
    window: WindowKind = "hann"
    """`povey` is Kaldi's: a Hann window to the power of 0.85."""
    periodic: bool = True
    """A periodic window (for spectra), otherwise a symmetric one."""
    align: Align = "center"
    """The window is in the middle of the FFT's frame, or at its left with zeros after it."""
    center: bool = True
    """Frame t is centred on sample t * hop_length, otherwise starts there (Kaldi's snip-edges)."""
    pad_mode: PadMode = "constant"
    """How the ends of the signal are extended by half a frame, with `center`."""
    drop_last: bool = False
    """Leave out the last frame."""
    scale: Positive = 1.0
    """Factor of the samples; 32768 for the conventions of 16-bit integers."""
    dither: Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False), NotTiny] = 0.0
    """Standard deviation of noise added to the scaled samples; Kaldi's default is 1."""
    remove_dc: bool = False
    """Subtract each frame's mean."""
    preemphasis: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False), NotTiny] = 0.0
    """y[n] - preemphasis * y[n-1] within each frame."""

    @property
    def framing(self) -> Framing:
        """The frames as `dsp` takes them."""
        return Framing(**{name: getattr(self, name) for name in Framing.__dataclass_fields__})

    @model_validator(mode="after")
    def _resolve_window(self) -> Self:
        if self.win_length is None:
            object.__setattr__(self, "win_length", self.n_fft)
        elif self.win_length > self.n_fft:
            raise ValueError(
                f"win_length = {self.win_length} must not exceed n_fft = {self.n_fft}; lower it"
            )
        return self

    def prepare(self, signals: Signals, *, empty: Allocate = np.empty) -> Signals:
        """The signals with the noise of `dither`."""
        if not self.dither:
            return signals
        dithered = allocate_rows([y.size for y in signals], 1, np.float32, empty=empty)
        amplitude = self.dither / self.scale
        return [
            dither(y, amplitude=amplitude, out=x[:, 0])
            for y, x in zip(signals, dithered, strict=True)
        ]

    def columns(self) -> int:
        return self.framing.n_bins

    def width(self) -> int:
        return self.n_fft

    def refuse_bank(self, name: str, filters: int) -> None:
        """Raise ValueError if a bank of this many filters is too large."""
        if filters * self.framing.n_bins > MOST_WEIGHTS:
            raise ValueError(
                f"representation: {name} = {filters} and n_fft = {self.n_fft} need a bank of "
                f"{filters * self.framing.n_bins} weights, more than {MOST_WEIGHTS}; lower one"
            )

    def n_frames(self, n_samples: int) -> int:
        return self.framing.n_frames(n_samples)

    def centres(self, frames: NDArray[np.float64]) -> NDArray[np.float64]:
        return frames * self.hop_length + (0.0 if self.center else self.framing.length / 2)

    @property
    def is_framewise(self) -> bool:
        return not self.dither and super().is_framewise  # the noise depends on the whole clip


class Logarithmic(Representation):
    """Fields of all kinds that end in a logarithm, by the conventions of `dsp.compress.Log`."""

    log: LogUnit = "db"
    """Natural logarithm, log10, or db = 10 log10, which for magnitudes is half the decibels."""
    gain: Positive = 1.0
    """Factor inside the logarithm: log(gain * x)."""
    floor: Floor = 1e-10
    """The lowest value inside the logarithm, or the value added there (see `floor_mode`)."""
    floor_mode: FloorMode = "clip"
    """`clip`: log(max(x, floor)); `add`: log(x + floor)."""
    reference: Positive | Literal["max"] = 1.0
    """The value that becomes 0; `max`: the maximum of the clip."""
    top_db: Annotated[float, Field(ge=0.001, le=1000, allow_inf_nan=False)] | None = None
    """Values lower than this many dB below the clip's maximum are raised; left out: no limit."""
    shift: Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False)] = 0.0
    """Added to the logarithm."""
    factor: Annotated[float, Field(ge=1e-6, le=1e6, allow_inf_nan=False)] = 1.0
    """Multiplies the logarithm after `shift`."""
    subtract_mean: bool = False
    """Subtract each bin's mean over the clip."""

    @property
    def logarithm(self) -> Log:
        """The logarithm as `dsp` takes it."""
        names = set(Log.__dataclass_fields__) - {"unit"}
        return Log(unit=self.log, **{name: getattr(self, name) for name in names})

    @property
    def is_framewise(self) -> bool:
        return self.logarithm.by_frame and super().is_framewise

    @property
    def pivot(self) -> float:
        return self.logarithm.of_value(0.0)

    @property
    def grid(self) -> Grid:
        """Cells from silence to 80 dB above 1 (times the scale), beyond any spectrum of audio."""
        highest = self.logarithm.of_value(1e8 * getattr(self, "scale", 1.0) ** 2)
        return Grid("linear", self.pivot, max(highest, self.pivot + 1.0))
