"""The typed parameters of each kind of representation, and what they compute.

One class a kind, in a union tagged by `kind`. Defaults are here and nowhere else. Lengths are in
samples, frequencies in Hz.
"""

from typing import Annotated, Any, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from dsp import representations
from dsp.buffers import Empty, pieces
from dsp.cepstrum import DctNorm, DeltaMode, LifterConvention
from dsp.chroma import ChromaNorm
from dsp.compress import FloorMode, Log, LogUnit, log
from dsp.cqt import Cqt, cqt
from dsp.cqt import magnitude as cqt_magnitude
from dsp.framing import Align, Framing, PadMode, WindowKind
from dsp.mel import FilterNorm, MelBank, MelScale
from dsp.moments import Grid
from dsp.pcen import pcen
from dsp.representations import Features, Signals
from dsp.stft import is_portable
from dsp.streaming import spans

StoredFloat = Annotated[Literal["float32", "float16"], Field(description="Of stored values.")]
MOST_VALUES = 2**26  # a second of audio, in frames or in what comes of them
MOST_WEIGHTS = 2**24  # of a bank of filters
MOST_BYTES = 2**30  # of the tables of a constant-Q transform


def _not_tiny(value: float) -> float:
    if 0 < value < 1e-30:
        raise ValueError(f"{value} is too small; it must be 0, or at least 1e-30")
    return value


NotTiny = AfterValidator(_not_tiny)
Positive = Annotated[float, Field(ge=1e-12, le=1e12, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False), NotTiny]
Floor = Annotated[float, Field(ge=1.2e-38, le=1e9, allow_inf_nan=False)]
Hertz = Annotated[float, Field(ge=0, le=384_000, allow_inf_nan=False)]
Power = Literal[1, 2]


class Section(BaseModel):
    """One table of a recipe: frozen, without unknown keys, strict about types."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        validate_default=True,
        use_attribute_docstrings=True,
    )


class Representation(Section):
    """What every representation has: what its numbers mean and how they are stored."""

    kind: str

    def columns(self) -> int:
        """Columns of the result."""
        raise NotImplementedError

    def n_frames(self, n_samples: int) -> int:
        """Rows of the result for a clip of `n_samples` samples."""
        raise NotImplementedError

    @property
    def too_short(self) -> str:
        """What is said of a clip that has no row."""
        return "less than one frame"

    def compute(self, signals: Signals, *, sample_rate: int, empty: Empty = np.empty) -> Features:
        """The representation of each signal, before it is cast to the stored dtype.

        `empty` makes the arrays of the results (`dsp.buffers`).
        """
        raise NotImplementedError

    def centres(self, frames: NDArray[np.float64]) -> NDArray[np.float64]:
        """The sample, from the start of the clip, that each of these frames is centred on."""
        return frames * getattr(self, "hop_length", 1)

    def resolved(self, *, sample_rate: int) -> Self:
        """The same with everything filled in that depends on the sample rate.

        Raises ValueError for what cannot be, or needs too much memory.
        """
        hop_length: int = getattr(self, "hop_length", 1)
        values = max(self.columns(), self.width()) * sample_rate / hop_length
        if values > MOST_VALUES:
            raise ValueError(
                f"representation: a second of audio makes {values:.0f} values, more than "
                f"{MOST_VALUES}; raise hop_length = {hop_length}, or take smaller frames, fewer "
                "columns or a lower resample.sample_rate"
            )
        return self

    def width(self) -> int:
        """The most values that a row is computed from."""
        return 0

    def stored_dtype(self) -> np.dtype[Any]:
        """The dtype of the stored values."""
        return np.dtype(getattr(self, "dtype", "float32"))

    @property
    def pivot(self) -> float:
        """The value of digital silence, about which squares are summed."""
        return 0.0

    @property
    def grid(self) -> Grid:
        """Where histograms count."""
        return Grid("octave")

    @property
    def portable(self) -> bool:
        """Whether its bits are promised to be the same on every processor."""
        return True

    @property
    def by_frame(self) -> bool:
        """Whether a row depends on its own samples alone, so that it can be streamed."""
        return True


class Waveform(Representation):
    """The samples themselves: one bin, one row a sample."""

    kind: Literal["waveform"]
    dtype: StoredFloat = "float32"

    def columns(self) -> int:
        return 1

    def n_frames(self, n_samples: int) -> int:
        return n_samples

    def compute(self, signals: Signals, *, sample_rate: int, empty: Empty = np.empty) -> Features:
        return representations.waveform(signals, empty=empty)

    @property
    def grid(self) -> Grid:
        return Grid("linear", -1.0, 1.0)


class Framed(Representation):
    """Representations that start from windowed frames."""

    n_fft: Annotated[int, Field(ge=16, le=131_072)] = 2048
    """Samples of a frame's FFT."""
    hop_length: Annotated[int, Field(ge=1, le=1_000_000)] = 512
    """Samples from one frame to the next."""
    win_length: Annotated[int, Field(ge=1, le=131_072)] | None = None
    """Samples of the window; left out: `n_fft`."""
    window: WindowKind = "hann"
    """`povey` is Kaldi's: a Hann window to the power of 0.85."""
    periodic: bool = True
    """A periodic window (for spectra) or a symmetric one."""
    align: Align = "center"
    """The window lies in the middle of the FFT's frame, or at its left with zeros after it."""
    center: bool = True
    """Frame t is centred on sample t * hop_length, or starts there (Kaldi's snip-edges)."""
    pad_mode: PadMode = "constant"
    """How a centred signal is extended by half a frame."""
    drop_last: bool = False
    """Leave out the last frame."""
    scale: Positive = 1.0
    """Samples are multiplied by it; 32768 for the conventions of 16-bit integers."""
    dither: Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False), NotTiny] = 0.0
    """Standard deviation of the noise added to the scaled samples; 1 for Kaldi's default."""
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

    def columns(self) -> int:
        return self.framing.n_bins

    def width(self) -> int:
        return self.n_fft

    def refuse_bank(self, name: str, filters: int) -> None:
        """Raise ValueError if a bank of so many filters is too large."""
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
    def portable(self) -> bool:
        return is_portable(self.n_fft)

    @property
    def by_frame(self) -> bool:
        return not self.dither and super().by_frame  # its noise is a function of the whole clip


class Stft(Framed):
    """Complex short-time Fourier transform."""

    kind: Literal["stft"]
    dtype: Literal["complex64"] = "complex64"

    def compute(self, signals: Signals, *, sample_rate: int, empty: Empty = np.empty) -> Features:
        return representations.stft(signals, framing=self.framing, empty=empty)


class Magnitude(Framed):
    """|X| of the STFT."""

    kind: Literal["magnitude"]
    dtype: StoredFloat = "float32"

    def compute(self, signals: Signals, *, sample_rate: int, empty: Empty = np.empty) -> Features:
        return representations.spectrum(signals, framing=self.framing, power=1, empty=empty)


class PowerSpectrum(Framed):
    """|X|² of the STFT."""

    kind: Literal["power"]
    dtype: StoredFloat = "float32"

    def compute(self, signals: Signals, *, sample_rate: int, empty: Empty = np.empty) -> Features:
        return representations.spectrum(signals, framing=self.framing, power=2, empty=empty)


class Logarithmic(Representation):
    """Representations that end in a logarithm, by the conventions of `dsp.compress.Log`."""

    log: LogUnit = "db"
    """Natural logarithm, log10, or db = 10 log10: of magnitudes, half of what decibels are."""
    gain: Positive = 1.0
    """What the logarithm is taken of is multiplied by it: log(gain * x)."""
    floor: Floor = 1e-10
    """The lowest value, or what is added, as `floor_mode` says."""
    floor_mode: FloorMode = "clip"
    """log(max(x, floor)), or log(x + floor)."""
    reference: Positive | Literal["max"] = 1.0
    """The value that becomes 0, or `max` for the maximum of the clip."""
    top_db: Annotated[float, Field(ge=0.001, le=1000, allow_inf_nan=False)] | None = None
    """dB below a clip's maximum that values are raised to; left out: no limit."""
    shift: Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False)] = 0.0
    """Added to the logarithm."""
    factor: Annotated[float, Field(ge=1e-6, le=1e6, allow_inf_nan=False)] = 1.0
    """Multiplies what results."""
    subtract_mean: bool = False
    """Subtract each bin's mean over the clip."""

    @property
    def logarithm(self) -> Log:
        """The logarithm as `dsp` takes it."""
        names = set(Log.__dataclass_fields__) - {"unit"}
        return Log(unit=self.log, **{name: getattr(self, name) for name in names})

    @property
    def by_frame(self) -> bool:
        return self.logarithm.by_frame and super().by_frame

    @property
    def pivot(self) -> float:
        return self.logarithm.of_value(0.0)

    @property
    def grid(self) -> Grid:
        """From silence to 80 dB above 1 (times the scale), which no spectrum of audio reaches."""
        highest = self.logarithm.of_value(1e8 * getattr(self, "scale", 1.0) ** 2)
        return Grid("linear", self.pivot, max(highest, self.pivot + 1.0))


class LogMagnitude(Framed, Logarithmic):
    """Logarithm of |X|."""

    kind: Literal["log_magnitude"]
    log: LogUnit = "ln"
    floor: Floor = 0.001
    floor_mode: FloorMode = "add"
    dtype: StoredFloat = "float32"

    def compute(self, signals: Signals, *, sample_rate: int, empty: Empty = np.empty) -> Features:
        return representations.log_spectrum(
            signals, framing=self.framing, power=1, log=self.logarithm, empty=empty
        )


class Decibel(Framed, Logarithmic):
    """Logarithm of |X|², in decibels unless said otherwise."""

    kind: Literal["decibel"]
    dtype: StoredFloat = "float32"

    def compute(self, signals: Signals, *, sample_rate: int, empty: Empty = np.empty) -> Features:
        return representations.log_spectrum(
            signals, framing=self.framing, power=2, log=self.logarithm, empty=empty
        )


class MelBands(Framed):
    """Representations that apply mel filters to the spectrum."""

    n_mels: Annotated[int, Field(ge=1, le=4096)] = 128
    """Bands."""
    fmin: Hertz = 0.0
    """Hz."""
    fmax: Annotated[float, Field(gt=0, le=384_000, allow_inf_nan=False)] | None = None
    """Hz; left out: half the sample rate."""
    mel_scale: MelScale = "slaney"
    """`kaldi` is the `htk` scale with triangles that are straight over mel, not over Hz."""
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
                f"representation: fmin = {self.fmin} and fmax = {fmax} Hz are no range of bands; "
                f"they must lie, in this order and 1 Hz apart, within 0 to {nyquist} Hz, half of "
                "resample.sample_rate"
            )
        self.refuse_bank("n_mels", self.n_mels)
        return super().resolved(sample_rate=sample_rate).model_copy(update={"fmax": fmax})

    def columns(self) -> int:
        return self.n_mels

    def width(self) -> int:
        return max(self.n_fft, self.n_mels)

    def empty_bands(self, *, sample_rate: int) -> list[int]:
        """The bands that no frequency of the FFT falls into, which are always zero."""
        filters = self.bank.filters(sample_rate=sample_rate, n_fft=self.n_fft)
        return [int(band) for band in np.flatnonzero(filters.sum(axis=1) == 0)]


class Mel(MelBands):
    """Mel spectrogram."""

    kind: Literal["mel"]
    dtype: StoredFloat = "float32"

    def compute(self, signals: Signals, *, sample_rate: int, empty: Empty = np.empty) -> Features:
        return representations.mel(
            signals,
            sample_rate=sample_rate,
            framing=self.framing,
            bank=self.bank,
            power=self.power,
            empty=empty,
        )


class LogMel(MelBands, Logarithmic):
    """Logarithm of the mel spectrogram."""

    kind: Literal["log_mel"]
    dtype: StoredFloat = "float32"

    def compute(self, signals: Signals, *, sample_rate: int, empty: Empty = np.empty) -> Features:
        return representations.log_mel(
            signals,
            sample_rate=sample_rate,
            framing=self.framing,
            bank=self.bank,
            power=self.power,
            log=self.logarithm,
            empty=empty,
        )


class Mfcc(MelBands, Logarithmic):
    """Mel-frequency cepstral coefficients, and their derivatives in time."""

    kind: Literal["mfcc"]
    n_mfcc: Annotated[int, Field(ge=1, le=4096)] = 20
    """Coefficients that are kept, the first included."""
    dct_norm: DctNorm = "ortho"
    """Orthonormal DCT-II, `none` (a factor of 2), or `htk` (the same factor in every row)."""
    lifter: Annotated[float, Field(ge=0, le=10_000, allow_inf_nan=False), NotTiny] = 0.0
    """Coefficients are weighted by 1 + lifter / 2 * sin(…); 0: they are not."""
    lifter_convention: LifterConvention = "htk"
    """sin(pi n / lifter) from n = 0 (HTK, Kaldi), or from n = 1 (librosa)."""
    energy: bool = False
    """Coefficient 0 is the logarithm of the frame's energy, as Kaldi has it."""
    energy_floor: Floor = 1.1920928955078125e-07
    """The lowest energy, with `energy`."""
    n_deltas: Literal[0, 1, 2] = 0
    """Derivatives that follow the coefficients: none, first, first and second."""
    delta_width: Annotated[int, Field(ge=3, le=99)] = 9
    """Frames that a derivative looks at, odd."""
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
    def too_short(self) -> str:
        if self.n_deltas and self.delta_mode == "interp":
            return f"fewer than delta_width = {self.delta_width} frames (delta_mode is interp)"
        return super().too_short

    def compute(self, signals: Signals, *, sample_rate: int, empty: Empty = np.empty) -> Features:
        log_energies = None
        if self.energy:
            framing, floor = self.framing, self.energy_floor
            log_energies = []
            for y in signals:
                energies = [framing.bare.energies(span) for span in spans(y, framing)]
                log_energies.append(log(np.concatenate(energies), unit="ln", floor=floor))
        log_mels = representations.log_mel(
            signals,
            sample_rate=sample_rate,
            framing=self.framing,
            bank=self.bank,
            power=self.power,
            log=self.logarithm,
            empty=empty,
        )
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
    def by_frame(self) -> bool:
        return super().by_frame and not self.n_deltas

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
    """Samples are multiplied by it: the smoother starts at 1, which must be quiet."""
    power: Power = 1
    gain: Share = 0.98
    """The power of the smoothed energy that a band is divided by; 0: it is not."""
    bias: Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False), NotTiny] = 2.0
    """Added before the root, whose value at 0 is subtracted again."""
    exponent: Share = 0.5
    """The root at the end; 0 for its limit, a logarithm."""
    time_constant: Annotated[float, Field(ge=1e-6, le=1e6, allow_inf_nan=False)] = 0.4
    """Of the smoother, s."""
    eps: Floor = 1e-6
    """Added to the smoothed energy."""
    dtype: StoredFloat = "float32"

    def compute(self, signals: Signals, *, sample_rate: int, empty: Empty = np.empty) -> Features:
        mels = representations.mel(
            signals,
            sample_rate=sample_rate,
            framing=self.framing,
            bank=self.bank,
            power=self.power,
            empty=empty,
        )
        for x in mels:
            state = None
            for part in pieces(x):
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
    def by_frame(self) -> bool:
        return False


class Chroma(Framed):
    """Energy of the pitch classes, from the STFT."""

    kind: Literal["chroma"]
    power: Power = 2
    """Filters are applied to |X| (1) or |X|² (2)."""
    n_chroma: Annotated[int, Field(ge=1, le=1024)] = 12
    """Pitch classes."""
    tuning: Annotated[float, Field(ge=-1, le=1, allow_inf_nan=False)] = 0.0
    """Deviation from A4 = 440 Hz, in chroma bins."""
    ctroct: Annotated[float, Field(ge=0, le=20, allow_inf_nan=False)] = 5.0
    """The octave in the middle of the filters' weight."""
    octwidth: Annotated[float, Field(ge=0.01, le=100, allow_inf_nan=False)] | Literal["none"] = 2.0
    """Octaves of that weight's width; `none`: all octaves weigh the same."""
    base_c: bool = True
    """Bin 0 is C, or A."""
    norm: ChromaNorm = "max"
    """A frame is divided by its maximum, its length (`l2`), or not at all."""
    dtype: StoredFloat = "float32"

    @property
    def filters(self) -> dict[str, Any]:
        """The filters' parameters as `dsp` takes them."""
        names = ("n_chroma", "tuning", "ctroct", "base_c")
        octwidth = None if self.octwidth == "none" else self.octwidth
        return {"octwidth": octwidth, **{name: getattr(self, name) for name in names}}

    def columns(self) -> int:
        return self.n_chroma

    def resolved(self, *, sample_rate: int) -> Self:
        self.refuse_bank("n_chroma", self.n_chroma)
        return super().resolved(sample_rate=sample_rate)

    def compute(self, signals: Signals, *, sample_rate: int, empty: Empty = np.empty) -> Features:
        return representations.chroma(
            signals,
            sample_rate=sample_rate,
            framing=self.framing,
            power=self.power,
            norm=self.norm,
            empty=empty,
            **self.filters,
        )


class Spectral(Framed):
    """Statistics of each frame: RMS, zero-crossing rate, centroid in Hz, roll-off in Hz.

    The first two are of the frame's samples as they are, without scale, DC removal, pre-emphasis
    and window.
    """

    kind: Literal["spectral"]
    roll_percent: Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)] = 0.85
    """The share of the magnitude below the roll-off."""
    dtype: StoredFloat = "float32"

    def columns(self) -> int:
        return 4

    def compute(self, signals: Signals, *, sample_rate: int, empty: Empty = np.empty) -> Features:
        return representations.spectral_statistics(
            signals,
            sample_rate=sample_rate,
            framing=self.framing,
            roll_percent=self.roll_percent,
            empty=empty,
        )


class ConstantQ(Representation):
    """Representations from the constant-Q or variable-Q transform; frames are centred."""

    hop_length: Annotated[int, Field(ge=1, le=1_000_000)] = 512
    """Samples from one frame to the next."""
    fmin: Annotated[float, Field(ge=0.001, le=384_000, allow_inf_nan=False)] = 32.70319566257483
    """Hz of the lowest bin; C1 unless said otherwise."""
    n_bins: Annotated[int, Field(ge=1, le=4096)] = 84
    """Bands."""
    bins_per_octave: Annotated[int, Field(ge=1, le=1200)] = 12
    """Bands an octave."""
    gamma: (
        Annotated[float, Field(ge=0, le=10_000, allow_inf_nan=False), NotTiny] | Literal["erb"]
    ) = 0.0
    """Hz by which every band is wider (VQT); 0: CQT; `erb`: as the ear's bands."""
    filter_scale: Annotated[float, Field(ge=0.001, le=100, allow_inf_nan=False)] = 1.0
    """Below 1: shorter filters."""
    scale: bool = True
    """Coefficients are divided by the root of the filter's length, as in librosa."""
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
                "that is divisible by powers of 2"
            )
        return super().resolved(sample_rate=sample_rate)

    def columns(self) -> int:
        return self.n_bins

    def width(self) -> int:
        return self.n_bins

    def n_frames(self, n_samples: int) -> int:
        return 1 + n_samples // self.hop_length if n_samples else 0

    @property
    def by_frame(self) -> bool:
        return False


class ComplexCqt(ConstantQ):
    """Complex constant-Q transform."""

    kind: Literal["cqt"]
    dtype: Literal["complex64"] = "complex64"

    def compute(self, signals: Signals, *, sample_rate: int, empty: Empty = np.empty) -> Features:
        return list(cqt(signals, self.parameters, sample_rate=sample_rate, empty=empty))


class CqtMagnitude(ConstantQ):
    """Magnitude of the constant-Q transform."""

    kind: Literal["cqt_magnitude"]
    dtype: StoredFloat = "float32"

    def compute(self, signals: Signals, *, sample_rate: int, empty: Empty = np.empty) -> Features:
        return list(cqt_magnitude(signals, self.parameters, sample_rate=sample_rate, empty=empty))


class LogCqt(ConstantQ, Logarithmic):
    """Logarithm of the power of the constant-Q transform, in decibels unless said otherwise."""

    kind: Literal["log_cqt"]
    dtype: StoredFloat = "float32"

    def compute(self, signals: Signals, *, sample_rate: int, empty: Empty = np.empty) -> Features:
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
    """Pitch classes."""
    base_c: bool = True
    """Bin 0 is C, or A."""
    norm: ChromaNorm = "max"
    """A frame is divided by its maximum, its length (`l2`), or not at all."""
    dtype: StoredFloat = "float32"

    @model_validator(mode="after")
    def _merge(self) -> Self:
        if self.bins_per_octave % self.n_chroma:
            raise ValueError(
                f"bins_per_octave = {self.bins_per_octave} is no multiple of n_chroma = "
                f"{self.n_chroma}; it must be one"
            )
        return self

    def columns(self) -> int:
        return self.n_chroma

    def compute(self, signals: Signals, *, sample_rate: int, empty: Empty = np.empty) -> Features:
        return representations.chroma_cqt(
            signals,
            sample_rate=sample_rate,
            parameters=self.parameters,
            n_chroma=self.n_chroma,
            base_c=self.base_c,
            norm=self.norm,
            empty=empty,
        )


AnyRepresentation = Annotated[
    Waveform
    | Stft
    | Magnitude
    | PowerSpectrum
    | LogMagnitude
    | Decibel
    | Mel
    | LogMel
    | Mfcc
    | Pcen
    | Chroma
    | Spectral
    | ComplexCqt
    | CqtMagnitude
    | LogCqt
    | ChromaCqt,
    Field(discriminator="kind"),
]
KINDS: dict[str, type[Representation]] = {
    get_args(section.model_fields["kind"].annotation)[0]: section
    for section in get_args(get_args(AnyRepresentation)[0])
}
