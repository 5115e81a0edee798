"""The base of all representations, and the types of their fields.

Lengths are in samples, frequencies in Hz. Defaults of recipes are in the classes of their sections
and nowhere else.
"""

from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from basilar.dsp.buffers import Allocate
from basilar.dsp.histogram import Grid
from basilar.dsp.representations import Features, Signals

StoredFloat = Annotated[Literal["float32", "float16"], Field(description="Of stored values.")]
MOST_VALUES = 2**26  # per second of audio, in frames or in results
MOST_WEIGHTS = 2**24  # of a filter bank
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


class AddedLater:
    """Marks a field that came when recipes were in use: `field: Annotated[bool, AddedLater()]`.

    While it has its default it enters no hash, so that no key moves.
    """


class Section(BaseModel):
    """One table of a recipe: frozen, without unknown keys, strict about types."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        validate_default=True,
        use_attribute_docstrings=True,
    )

    def hashed(self) -> dict[str, Any]:
        """The values that enter a hash."""
        later = {
            name: field.default
            for name, field in type(self).model_fields.items()
            if any(isinstance(mark, AddedLater) for mark in field.metadata)
        }
        values = self.model_dump()
        return {n: v for n, v in values.items() if n not in later or v != later[n]}


class Representation(Section):
    """The base of representations: what their numbers mean, and how they are stored."""

    kind: str

    def columns(self) -> int:
        """The number of columns of the result."""
        raise NotImplementedError

    def n_frames(self, n_samples: int) -> int:
        """The number of rows of the result for a clip of `n_samples` samples."""
        raise NotImplementedError

    @property
    def too_short_message(self) -> str:
        """How the message about a clip too short for a row describes its length."""
        return "less than one frame"

    def prepare(self, signals: Signals, *, empty: Allocate = np.empty) -> Signals:
        """What `compute` is given of whole clips: a kind may change their samples first."""
        return signals

    def compute(
        self, signals: Signals, *, sample_rate: int, empty: Allocate = np.empty
    ) -> Features:
        """The representation of each signal, before it is cast to the stored dtype.

        `empty` allocates the arrays of the results (`dsp.buffers`).
        """
        raise NotImplementedError

    def centres(self, frames: NDArray[np.float64]) -> NDArray[np.float64]:
        """The sample, counted from the start of the clip, that each frame is centred on."""
        return frames * getattr(self, "hop_length", 1)

    def resolved(self, *, sample_rate: int) -> Self:
        """The section with every value filled in that depends on the sample rate.

        Raises ValueError for values that are impossible or need too much memory.
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
        """The largest number of values that a row is computed from."""
        return 0

    def stored_dtype(self) -> np.dtype[Any]:
        """The dtype of the stored values."""
        return np.dtype(getattr(self, "dtype", "float32"))

    @property
    def pivot(self) -> float:
        """The value of digital silence; sums of squares are taken about it."""
        return 0.0

    @property
    def grid(self) -> Grid:
        """The cells of histograms."""
        return Grid("octave")

    @property
    def is_framewise(self) -> bool:
        """Whether a row depends only on its own samples, so that features can be streamed."""
        return True
