"""Recipes: the parameters of every stage, typed, validated and resolved.

A recipe is read from TOML. Its defaults are in the types below and nowhere else; a recipe that is
printed shows every value. An unknown key or a wrong value is refused with the file, the key, what
is allowed and the nearest guess.
"""

import difflib
import tomllib
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import numpy as np
import tomli_w
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from dsp import compress, representations
from dsp.compress import FloorMode, LogUnit
from dsp.framing import Framing, PadMode, WindowKind
from dsp.mel import FilterNorm, MelBank, MelScale
from dsp.moments import Grid
from dsp.representations import Features, Signals
from dsp.resample import Quality
from dsp.stft import is_portable

StoredFloat = Literal["float32", "float16"]
Floor = Annotated[float, Field(ge=1.2e-38, le=1e9, allow_inf_nan=False)]
TopDb = Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)]


class RecipeError(ValueError):
    """A recipe that cannot be used; the message names the file, the key and what is allowed."""


class Section(BaseModel):
    """One table of a recipe: frozen, without unknown keys, strict about types."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        validate_default=True,
        use_attribute_docstrings=True,
    )


class Decode(Section):
    """From an audio file to one channel of samples at the file's own rate."""

    channels: Literal["mean", "first"] | Annotated[int, Field(ge=0, lt=64)] = "mean"
    """`mean` of all channels, the `first`, or an index from 0."""


class Resample(Section):
    """To one sample rate."""

    sample_rate: Annotated[int, Field(ge=100, le=768_000)] = 22050
    """Hz."""
    quality: Quality = "very_high"
    """soxr's VHQ or HQ."""


class _Representation(Section):
    """What every representation has: what its numbers mean and how they are stored."""

    kind: str

    def n_bins(self) -> int:
        """Columns of the result."""
        raise NotImplementedError

    def n_frames(self, n_samples: int) -> int:
        """Rows of the result for a clip of `n_samples` samples."""
        raise NotImplementedError

    def compute(self, signals: Signals, *, sample_rate: int) -> Features:
        """The representation of each signal, before it is cast to the stored dtype."""
        raise NotImplementedError

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


class Waveform(_Representation):
    """The samples themselves: one bin, one row a sample."""

    kind: Literal["waveform"]
    dtype: StoredFloat = "float32"

    def n_bins(self) -> int:
        return 1

    def n_frames(self, n_samples: int) -> int:
        return n_samples

    def compute(self, signals: Signals, *, sample_rate: int) -> Features:
        return representations.waveform(signals)

    @property
    def grid(self) -> Grid:
        return Grid("linear", -1.0, 1.0)


class _Framed(_Representation):
    """Representations that start from windowed frames; lengths in samples."""

    n_fft: Annotated[int, Field(ge=16, le=131_072)] = 2048
    """Samples of a frame's FFT."""
    hop_length: Annotated[int, Field(ge=1, le=1_000_000)] = 512
    """Samples from one frame to the next."""
    win_length: Annotated[int, Field(ge=1, le=131_072)] | None = None
    """Samples of the window, centred in `n_fft`; left out: `n_fft`."""
    window: WindowKind = "hann"
    periodic: bool = True
    """A periodic window (for spectra) or a symmetric one."""
    center: bool = True
    """Frame t is centred on sample t * hop_length, or starts there."""
    pad_mode: PadMode = "constant"
    """How a centred signal is extended by half a frame."""

    @cached_property
    def framing(self) -> Framing:
        """The frames as `dsp` takes them."""
        return Framing(
            n_fft=self.n_fft,
            hop_length=self.hop_length,
            win_length=self.win_length,
            window=self.window,
            periodic=self.periodic,
            center=self.center,
            pad_mode=self.pad_mode,
        )

    @model_validator(mode="after")
    def _resolve_window(self) -> Self:
        if self.win_length is None:
            object.__setattr__(self, "win_length", self.n_fft)
        elif self.win_length > self.n_fft:
            raise ValueError(f"win_length = {self.win_length} must not exceed n_fft = {self.n_fft}")
        return self

    def n_bins(self) -> int:
        return self.framing.n_bins

    def n_frames(self, n_samples: int) -> int:
        return self.framing.n_frames(n_samples)

    @property
    def portable(self) -> bool:
        return is_portable(self.n_fft)


class Stft(_Framed):
    """Complex short-time Fourier transform."""

    kind: Literal["stft"]
    dtype: Literal["complex64"] = "complex64"

    def compute(self, signals: Signals, *, sample_rate: int) -> Features:
        return representations.stft(signals, framing=self.framing)


class Magnitude(_Framed):
    """|X| of the STFT."""

    kind: Literal["magnitude"]
    dtype: StoredFloat = "float32"

    def compute(self, signals: Signals, *, sample_rate: int) -> Features:
        return representations.magnitude(signals, framing=self.framing)


class LogMagnitude(_Framed):
    """Logarithm of |X|."""

    kind: Literal["log_magnitude"]
    log: Literal["ln", "log10"] = "ln"
    floor: Floor = 0.001
    floor_mode: FloorMode = "add"
    """log(|X| + floor), or log(max(|X|, floor))."""
    dtype: StoredFloat = "float32"

    def compute(self, signals: Signals, *, sample_rate: int) -> Features:
        return representations.log_magnitude(
            signals,
            framing=self.framing,
            log=self.log,
            floor=self.floor,
            floor_mode=self.floor_mode,
        )

    @property
    def pivot(self) -> float:
        return _log_of(0.0, self.log, self.floor, self.floor_mode)

    @property
    def grid(self) -> Grid:
        return Grid("linear", self.pivot, _log_of(1e4, self.log, self.floor, self.floor_mode))


class Decibel(_Framed):
    """STFT in decibels: 10 log10(max(|X|², floor))."""

    kind: Literal["decibel"]
    floor: Floor = 1e-10
    """Lowest power |X|²; 1e-10 is -100 dB."""
    top_db: TopDb | None = None
    """dB below a clip's maximum that values are raised to; left out: no limit."""
    dtype: StoredFloat = "float32"

    def compute(self, signals: Signals, *, sample_rate: int) -> Features:
        return representations.decibel(
            signals, framing=self.framing, floor=self.floor, top_db=self.top_db
        )

    @property
    def pivot(self) -> float:
        return _log_of(0.0, "db", self.floor, "clip")

    @property
    def grid(self) -> Grid:
        return Grid("linear", self.pivot, 80.0)


class _MelBands(_Framed):
    """Representations that apply mel filters to the spectrum."""

    n_mels: Annotated[int, Field(ge=1, le=4096)] = 128
    fmin: Annotated[float, Field(ge=0, le=384_000, allow_inf_nan=False)] = 0.0
    """Hz."""
    fmax: Annotated[float, Field(gt=0, le=384_000, allow_inf_nan=False)] | None = None
    """Hz; left out: half the sample rate."""
    mel_scale: MelScale = "slaney"
    filter_norm: FilterNorm = "slaney"
    """`slaney`: filters of unit area; `none`: of unit height."""
    power: Literal[1, 2] = 2
    """Filters are applied to |X| (1) or |X|² (2)."""

    @cached_property
    def bank(self) -> MelBank:
        """The filters as `dsp` takes them."""
        return MelBank(
            n_mels=self.n_mels,
            fmin=self.fmin,
            fmax=self.fmax,
            mel_scale=self.mel_scale,
            filter_norm=self.filter_norm,
        )

    def n_bins(self) -> int:
        return self.n_mels


class Mel(_MelBands):
    """Mel spectrogram."""

    kind: Literal["mel"]
    dtype: StoredFloat = "float32"

    def compute(self, signals: Signals, *, sample_rate: int) -> Features:
        return representations.mel(
            signals,
            sample_rate=sample_rate,
            framing=self.framing,
            bank=self.bank,
            power=self.power,
        )


class LogMel(_MelBands):
    """Logarithm of the mel spectrogram."""

    kind: Literal["log_mel"]
    log: LogUnit = "db"
    """Natural logarithm, log10, or db = 10 log10."""
    floor: Floor = 1e-10
    floor_mode: FloorMode = "clip"
    """log(max(x, floor)), or log(x + floor)."""
    top_db: TopDb | None = None
    """dB below a clip's maximum that values are raised to; left out: no limit."""
    dtype: StoredFloat = "float32"

    @model_validator(mode="after")
    def _top_db_needs_db(self) -> Self:
        if self.top_db is not None and self.log != "db":
            raise ValueError(f'top_db = {self.top_db} is in dB and needs log = "db"')
        return self

    def compute(self, signals: Signals, *, sample_rate: int) -> Features:
        return representations.log_mel(
            signals,
            sample_rate=sample_rate,
            framing=self.framing,
            bank=self.bank,
            power=self.power,
            log=self.log,
            floor=self.floor,
            floor_mode=self.floor_mode,
            top_db=self.top_db,
        )

    @property
    def pivot(self) -> float:
        return _log_of(0.0, self.log, self.floor, self.floor_mode)

    @property
    def grid(self) -> Grid:
        return Grid("linear", self.pivot, _log_of(1e8, self.log, self.floor, self.floor_mode))


Representation = Annotated[
    Waveform | Stft | Magnitude | LogMagnitude | Decibel | Mel | LogMel,
    Field(discriminator="kind"),
]


class Normalization(Section):
    """How training reads the features; the stored values stay as they are."""

    kind: Literal["none", "standard", "min_max", "robust"] = "none"
    """`standard`: mean and standard deviation; `min_max`: range to 0 … 1; `robust`: median and
    interquartile range, to a cell of the histogram."""
    per: Literal["bin", "global"] = "bin"
    """One centre and scale a bin, or one for all."""
    split: Annotated[str, Field(min_length=1)] = "train"
    """Fitted on the clips of this split only; `all` for all. Clips without a split are train."""


class Store(Section):
    """How features lie on disk. No hash depends on it."""

    codec: Literal["none", "compact", "archive"] = "none"
    """`none` is memory-mapped in training; `compact` is blosc lz4, `archive` blosc zstd."""
    chunk_kib: Annotated[int, Field(ge=1, le=65_536)] = 128
    """KiB of an inner chunk; rows are a power of two."""
    shard_mib: Annotated[int, Field(ge=1, le=4096)] = 32
    """MiB of a Zarr shard file; rows are a power of two."""


class Recipe(Section):
    """All parameters from an audio file to a feature set."""

    name: str = ""
    """For people; part of no hash."""
    decode: Decode = Decode()
    resample: Resample = Resample()
    representation: Representation
    normalization: Normalization = Normalization()
    store: Store = Store()

    @model_validator(mode="after")
    def _sections_agree(self) -> Self:
        part, nyquist = self.representation, self.resample.sample_rate / 2
        if isinstance(part, _MelBands):
            fmax = nyquist if part.fmax is None else part.fmax
            if not part.fmin < fmax <= nyquist:
                raise ValueError(
                    f"representation: fmin = {part.fmin} and fmax = {fmax} Hz must lie, in this "
                    f"order, within 0 to {nyquist} Hz, half of resample.sample_rate"
                )
            object.__setattr__(self, "representation", part.model_copy(update={"fmax": fmax}))
        if isinstance(part, Stft) and self.normalization.kind != "none":
            raise ValueError(
                f'normalization: kind = "{self.normalization.kind}" is not defined for complex '
                'values; use "none", or representation.kind = "magnitude"'
            )
        return self

    @classmethod
    def load(cls, path: str | Path) -> "Recipe":
        """Read a recipe from a TOML file. Raises RecipeError, or OSError if it cannot be read."""
        try:
            table = tomllib.loads(Path(path).read_text("utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise RecipeError(f"{path}: not a TOML file: {error}") from None
        return cls.from_dict(table, source=str(path))

    @classmethod
    def from_dict(cls, table: dict[str, Any], *, source: str = "recipe") -> "Recipe":
        """Validate a table of sections; `source` names it in errors. Raises RecipeError.

        >>> Recipe.from_dict({"representation": {"kind": "log_mel"}}).representation.n_bins()
        128
        >>> Recipe.from_dict({"representation": {"kind": "mel", "n_mel": 40}})
        Traceback (most recent call last):
        pipeline.recipe.RecipeError: recipe: representation.n_mel is not a key; did you mean n_mels?
        """
        try:
            return cls.model_validate(table)
        except ValidationError as error:
            lines = [_explain(line, table) for line in error.errors()]
            raise RecipeError("\n".join(f"{source}: {line}" for line in lines)) from None

    def resolved(self) -> dict[str, Any]:
        """Every value, defaults included. Only what has no value, like no `top_db`, is absent."""
        return self.model_dump(exclude_none=True)

    def to_toml(self) -> str:
        """The resolved recipe as TOML; reading it back gives an equal recipe."""
        return tomli_w.dumps(self.resolved())


def _explain(error: Any, table: dict[str, Any]) -> str:
    """One validation error as a line: the key, what is wrong, what is allowed."""
    where = [str(part) for part in error["loc"]]
    section = KINDS.get(where[1]) if where[:1] == ["representation"] and len(where) > 1 else None
    if section is not None:  # pydantic puts the chosen kind into the path
        where.pop(1)
    elif where and where[0] in Recipe.model_fields:
        annotation = Recipe.model_fields[where[0]].annotation
        section = annotation if isinstance(annotation, type) else None
    # Members of a union of types are named after the key: the key is what the user can change.
    key = ".".join(where[:2]) if len(where) > 1 else ".".join(where)
    given = error["input"]
    if error["type"] == "extra_forbidden":
        known = Recipe.model_fields if len(where) == 1 or section is None else section.model_fields
        return f"{key} is not a key; {_nearest(where[-1], list(known))}"
    if error["type"] in ("union_tag_invalid", "union_tag_not_found"):
        kind = table.get("representation", {}).get("kind", "")
        return f"{key}.kind = {kind!r} is not a kind; {_nearest(str(kind), list(KINDS))}"
    if error["type"] == "missing":
        return f"{key} is missing"
    if error["type"] == "value_error":
        text = str(error["ctx"]["error"])
        return text if not key or text.startswith(key) else f"{key}: {text}"
    allowed = error["msg"].replace("Input should be ", "it must be ")
    if error["type"] == "literal_error" and isinstance(given, str):
        names = [a.strip("' ") for a in error["ctx"]["expected"].replace(" or ", ",").split(",")]
        allowed = _nearest(given, names)
    return f"{key} = {given!r} is refused: {allowed}"


def _nearest(word: str, allowed: list[str]) -> str:
    near = difflib.get_close_matches(word, allowed, 1)
    return f"did you mean {near[0]}?" if near else f"allowed: {', '.join(allowed)}"


def _log_of(value: float, unit: LogUnit, floor: float, floor_mode: FloorMode) -> float:
    x: NDArray[np.float32] = np.array([value], np.float32)
    return float(compress.log(x, unit=unit, floor=floor, floor_mode=floor_mode)[0])


KINDS: dict[str, type[_Representation]] = {
    get_args(section.model_fields["kind"].annotation)[0]: section
    for section in get_args(get_args(Representation)[0])
}
