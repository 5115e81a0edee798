"""Pitch classes from the STFT."""

from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field

from basilar.dsp import representations
from basilar.dsp.buffers import Allocate
from basilar.dsp.chroma import ChromaNorm
from basilar.dsp.representations import Features, Signals
from basilar.pipeline.recipes.kinds.base import Power, StoredFloat
from basilar.pipeline.recipes.kinds.framed import Framed


class Chroma(Framed):
    """Energy of the pitch classes, from the STFT."""

    kind: Literal["chroma"]
    power: Power = 2
    """Filters are applied to |X| (1) or |X|² (2)."""
    n_chroma: Annotated[int, Field(ge=1, le=1024)] = 12
    """The number of pitch classes."""
    tuning: Annotated[float, Field(ge=-1, le=1, allow_inf_nan=False)] = 0.0
    """Deviation from A4 = 440 Hz, in chroma bins."""
    ctroct: Annotated[float, Field(ge=0, le=20, allow_inf_nan=False)] = 5.0
    """The octave that weighs most in the filters."""
    octwidth: Annotated[float, Field(ge=0.01, le=100, allow_inf_nan=False)] | Literal["none"] = 2.0
    """Width of that weighting in octaves; `none`: all octaves weigh the same."""
    base_c: bool = True
    """Bin 0 is C, otherwise A."""
    norm: ChromaNorm = "max"
    """A frame is divided by its maximum, by its Euclidean norm (`l2`), or not at all."""
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

    def compute(
        self, signals: Signals, *, sample_rate: int, empty: Allocate = np.empty
    ) -> Features:
        return representations.chroma(
            signals,
            sample_rate=sample_rate,
            framing=self.framing,
            power=self.power,
            norm=self.norm,
            empty=empty,
            **self.filters,
        )
