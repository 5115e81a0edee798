"""Compression of dynamic range: logarithms and decibels.

Conventions
-----------
* `ln` and `log10` take the logarithm of what they are given; `db` is ten times the decimal
  logarithm of a power (equally, twenty times that of a magnitude).
* A logarithm needs a floor: `clip` takes max(x, floor), `add` takes x + floor.
* `top_db` limits a clip's range from below: nothing is more than `top_db` below the clip's maximum.
* `Log` is all of this together, as a recipe states it.

This module has its own logarithm, since NumPy's differs between processors: x = 2^e · m with m in
[√½, √2), s = (m − 1) / (m + 1) and ln m = 2 artanh s, an odd polynomial in s. Its four coefficients
interpolate 2 artanh(s) / s at the Chebyshev nodes of s² for |s| ≤ 3 − 2√2, where they are within
7e-10 of it, far below float32 rounding.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from basilar.dsp import kernel
from basilar.dsp.kernel import Logarithm
from basilar.dsp.moments import ordered_sum

LogUnit = Literal["ln", "log10", "db"]
FloorMode = Literal["clip", "add"]

_SCALE: dict[str, float] = {"ln": 1.0, "log10": 1 / np.log(10), "db": 10 / np.log(10)}

_ARTANH = (1.999999998631318, 0.666668153381504, 0.39974850517843474, 0.2992439046949046)
_SMALLEST_NORMAL = float(np.finfo(np.float32).tiny)


def log(
    x: NDArray[np.float32], *, unit: LogUnit, floor: float, floor_mode: FloorMode = "clip"
) -> NDArray[np.float32]:
    """Logarithm of non-negative values with a floor: float32, the shape of `x`.

    `unit` is `ln`, `log10` or `db` (10 log10). With `floor_mode` `clip` the value is
    log(max(x, floor)), with `add` log(x + floor); infinity and NaN stay as they are. Raises
    ValueError for a floor that is not a normal positive float32, since log(0) is not a number to
    train on.

    >>> log(np.array([0, 1, 100], np.float32), unit="db", floor=1e-10).tolist()
    [-100.0, 0.0, 20.0]
    """
    values = np.asarray(x, np.float32).reshape(-1, 1)
    made = Log(unit=unit, floor=floor, floor_mode=floor_mode).of_frame
    return kernel.over_rows(values, log=made).reshape(x.shape)


def _check(unit: str, floor: float, floor_mode: str) -> None:
    if unit not in _SCALE:
        raise ValueError(f"log: {unit!r} is not one of {', '.join(get_args(LogUnit))}")
    if floor_mode not in get_args(FloorMode):
        raise ValueError(
            f"floor_mode: {floor_mode!r} is not one of {', '.join(get_args(FloorMode))}"
        )
    if not _SMALLEST_NORMAL <= floor < np.inf:
        raise ValueError(f"floor: {floor} must be at least {_SMALLEST_NORMAL:.3g} and finite")


def _factors(unit: LogUnit) -> tuple[float, float, float, float, float]:
    """The polynomial's coefficients and 2^-23 ln 2, in `unit`."""
    c0, c1, c2, c3 = (_SCALE[unit] * c for c in _ARTANH)
    return c0, c1, c2, c3, _SCALE[unit] * (np.log(2) / 2**23)


@dataclass(frozen=True)
class Log:
    """A logarithm with all its conventions, as recipes state them.

    Each value becomes the logarithm of `gain * x` with `floor`, in `unit` (see `log`). For each
    clip, the maximum is subtracted if `reference` is `max`, else the logarithm of `reference`; with
    `top_db`, values are raised to at least the maximum less `top_db` (in dB, whatever the unit).
    Then `shift` is added and the result multiplied by `factor`; last, with `subtract_mean`, each
    bin's mean over the clip is subtracted.
    """

    unit: LogUnit = "db"
    floor: float = 1e-10
    floor_mode: FloorMode = "clip"
    gain: float = 1.0
    reference: float | Literal["max"] = 1.0
    top_db: float | None = None
    shift: float = 0.0
    factor: float = 1.0
    subtract_mean: bool = False

    @cached_property
    def by_frame(self) -> bool:
        """Whether a frame's values depend on that frame alone, and not on its clip."""
        return self.reference != "max" and self.top_db is None and not self.subtract_mean

    @cached_property
    def of_frame(self) -> Logarithm:
        """The part that acts on each value alone. Raises ValueError where `log` does."""
        _check(self.unit, self.floor, self.floor_mode)
        *series, ln2 = _factors(self.unit)
        return Logarithm(
            self.floor,
            self.floor_mode == "add",
            (series[0], series[1], series[2], series[3]),
            ln2,
            gain=self.gain,
            offset=self._offset if self.by_frame else 0.0,
            factor=self.factor if self.by_frame else 1.0,
        )

    def of_clip(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """The part that needs a whole clip (frames, bins), after `of_frame`; changes `x` in place.

        >>> x = np.array([[-100], [-10], [0]], np.float32)
        >>> Log(unit="db", top_db=80).of_clip(x)[:, 0].tolist()
        [-80.0, -10.0, 0.0]
        """
        if self.by_frame:
            return x
        if self.reference == "max":
            x -= x.max()
        if self.top_db is not None:
            limit = np.float32(self.top_db / 10 * np.log(10) * _SCALE[self.unit])
            np.maximum(x, np.full(x.shape[-1], x.max() - limit), out=x)  # a row: see `log`
        self._placed(x)
        if self.subtract_mean:
            x -= (ordered_sum(x) / len(x)).astype(np.float32)
        return x

    def of_value(self, x: float) -> float:
        """The result for one value of a clip to which no limit applies."""
        out = kernel.over_rows(np.array([[x]], np.float32), log=self.of_frame)[0]
        return float((out if self.by_frame else self._placed(out))[0])

    def _placed(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        if self._offset:
            x += np.float32(self._offset)
        if self.factor != 1.0:
            x *= np.float32(self.factor)
        return x

    @cached_property
    def _offset(self) -> float:
        """The number added after the logarithm: `shift` less the logarithm of `reference`."""
        if self.reference == "max":
            return self.shift
        return float(self.shift - np.log(self.reference) * _SCALE[self.unit])
