"""The normalization of a feature set, applied to what training reads."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from basilar.dsp.normalize import normalize
from basilar.pipeline.store.dense import dense
from basilar.pipeline.store.reader import RowReader


class Normalizer:
    """Subtracts the centre of a store and divides by its scale, bin by bin, in float32."""

    def __init__(self, path: Path) -> None:
        self.centre, self.scale = (
            np.array(dense(path / "stats" / name)) for name in ("centre", "scale")
        )

    def __call__(self, x: NDArray[Any]) -> NDArray[np.float32]:
        """`x` (…, bins) normalized."""
        return normalize(x, self.centre, self.scale)

    def read_into(self, rows: RowReader, first: int, out: NDArray[np.float32]) -> None:
        """Rows from `first` on, normalized, into `out`: no array is made on the way."""
        x = rows.read(first, first + len(out))
        if x.dtype == np.float16 and out.dtype == np.float32:
            x = np.take(_halves(), x.view(np.uint16), out=out, mode="wrap")
        np.subtract(x, self.centre, out=out)
        np.divide(out, self.scale, out=out)


@cache
def _halves() -> NDArray[np.float32]:
    """All float16 values by their bits: looking them up is twice as fast as NumPy's conversion."""
    with np.errstate(invalid="ignore"):
        return np.arange(2**16, dtype=np.uint16).view(np.float16).astype(np.float32)
