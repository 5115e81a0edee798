"""The numbers that a transform is made of, the same for C and for its twin.

All are computed in float64 from `+ - * /` and rounded to float32, so that they have the same bits
everywhere.
"""

from dataclasses import dataclass
from functools import lru_cache
from math import gcd, pi
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Output = Literal["complex", "power", "magnitude", "samples"]
FloatTable = NDArray[np.float32]
IntTable = NDArray[np.int32]

# Bins 0 to a - 1 of the first pass, one of each pair k and a - k, in the order of its results.
_COLUMNS = {
    2: (0, 1),
    4: (0, 2, 1),
    8: (0, 4, 1, 2, 3),
    16: (0, 8, 4, 1, 9, 2, 10, 3, 11),
    32: (0, 16, 8, 4, 12, 1, 9, 17, 25, 2, 10, 18, 26, 3, 11, 19, 27),
}


def sine(turns: NDArray[Any]) -> NDArray[np.float64]:
    """sin(2π turns) to 1e-15, from + - * / alone: float64, the shape of `turns`.

    >>> sine(np.array([0.25, -1 / 12, 1.5])).round(15).tolist()
    [1.0, -0.5, 0.0]
    """
    x = turns - np.rint(turns)
    x = np.where(np.abs(x) > 0.25, np.copysign(0.5, x) - x, x) * (2 * pi)
    series = np.ones_like(x)
    for n in range(22, 0, -2):
        series = 1 - x * x / (n * (n + 1)) * series
    return np.asarray(x * series)


def roots(k: NDArray[np.int64], n: int) -> FloatTable:
    """exp(-2πi k / n) for integers `k`: float32, the shape of `k` and (real, imaginary).

    >>> roots(np.array([0, 1, 2]), 4).tolist()
    [[1.0, 0.0], [0.0, -1.0], [-1.0, 0.0]]
    """
    turns = k % n / n
    parts = [sine(turns + 0.25), -sine(turns)]
    return np.asarray(np.stack(parts, axis=-1) + 0.0, np.float32)  # no -0


def half_turns(n_fft: int) -> FloatTable:
    """exp(2πi k / (n_fft / 4)) for k < n_fft / 8: float32 (n_fft // 8, 2)."""
    return roots(-np.arange(n_fft // 8), n_fft // 4)


def _circle(n: int) -> FloatTable:
    """Cosines, then sines, of 0 to n - 1 nth parts of a turn: (2, n)."""
    turns = np.arange(n) / n
    return np.stack([sine(turns + 0.25), sine(turns)]).astype(np.float32)


class Fft(NamedTuple):
    """The tables of a complex FFT, in stages."""

    points: int
    radices: IntTable
    turns: tuple[FloatTable, ...]  # a stage: (m, radix - 1, 2)
    circles: tuple[FloatTable, ...]  # a stage of an odd radix


@lru_cache(maxsize=64)
def fft(points: int) -> Fft:
    """The stages of a complex FFT, and their tables.

    >>> fft(640).radices.tolist()
    [8, 8, 2, 5]
    """
    radices = _factors(points) if points > 1 else []
    turns, left = [], points
    for radix in radices:
        m = left // radix
        turns.append(roots(np.arange(m)[:, None] * np.arange(1, radix), left))
        left = m
    circles = tuple(_circle(radix) for radix in radices if radix % 2)
    return Fft(points, np.array(radices, np.int32), tuple(turns), circles)


class Transform(NamedTuple):
    """The tables of a real FFT: `a` real points at a time, then complex ones."""

    a: int
    column: IntTable  # bins of the first pass
    turns: FloatTable  # (b - 1, len(column) - 1, 2): w_n^(t k) of its results
    circle: FloatTable  # for its sums, where `a` is odd
    roots: FloatTable  # (32, 2): the turns inside the passes of 16 and 32 points
    second: Fft  # of b points


@lru_cache(maxsize=32)
def transform(n_fft: int) -> Transform:
    """How an FFT of `n_fft` real samples is divided, and its tables.

    >>> transform(2048).a, transform(2048).second.radices.tolist()
    (32, [8, 8])
    >>> transform(1102).a, transform(1102).second.radices.tolist()
    (2, [19, 29])
    """
    a = gcd(n_fft, 32) if n_fft % 2 == 0 else _factors(n_fft)[0]
    b = n_fft // a
    column = np.array(_COLUMNS.get(a, range(a // 2 + 1)), np.int32)
    t = np.arange(1, b)[:, None] * column[1:].astype(np.int64)
    return Transform(
        a,
        column,
        roots(t, n_fft),
        _circle(a) if a % 2 else np.empty((2, 0), np.float32),
        roots(np.arange(32), 32),
        fft(b),
    )


def _factors(n: int) -> list[int]:
    """The radices of an FFT of `n` points: 8, then 4 or 2, then primes from the smallest up."""
    factors = []
    for radix in (8, 4, 2):
        while n % radix == 0:
            factors.append(radix)
            n //= radix
    prime = 3
    while n > 1:
        if prime * prime > n:
            prime = n
        while n % prime == 0:
            factors.append(prime)
            n //= prime
        prime += 2
    return factors or [1]


@dataclass(frozen=True, eq=False)
class Bank:
    """Filters over bins: filter m is `weights[m]`, float32, from bin `start[m]` on."""

    n_bins: int
    start: IntTable
    weights: tuple[FloatTable, ...]

    @classmethod
    def of(cls, filters: FloatTable) -> "Bank":
        """From a dense matrix (filters, bins), float32, less the zeros at the ends of each row.

        >>> bank = Bank.of(np.array([[0, 1, 0, 2, 0], [0, 0, 0, 0, 0]], np.float32))
        >>> bank.start.tolist(), [w.tolist() for w in bank.weights]
        ([1, 0], [[1.0, 0.0, 2.0], []])
        """
        return cls.cut(filters.shape[1], np.zeros(len(filters), np.int64), filters)

    @classmethod
    def cut(cls, n_bins: int, start: NDArray[np.int64], filters: FloatTable) -> "Bank":
        """From rows of weights (filters, weights), float32; that of filter m is at bin `start[m]`.

        The zeros at the ends of each row are left out.

        >>> Bank.cut(5, np.array([2]), np.array([[0, 1, 2, 0]], np.float32)).toarray().tolist()
        [[0.0, 0.0, 0.0, 1.0, 2.0]]
        """
        ends = [np.flatnonzero(row)[[0, -1]].tolist() if row.any() else (0, -1) for row in filters]
        weights = tuple(
            row[first : last + 1].copy() for row, (first, last) in zip(filters, ends, strict=True)
        )
        for row in weights:
            row.flags.writeable = False
        begins = [
            at + first if len(row) else 0
            for at, (first, _), row in zip(start.tolist(), ends, weights, strict=True)
        ]
        return cls(n_bins, np.array(begins, np.int32), weights)

    @property
    def shape(self) -> tuple[int, int]:
        """The number of filters and of bins."""
        return len(self.start), self.n_bins

    def toarray(self) -> FloatTable:
        """The dense matrix: float32 (filters, bins)."""
        out = np.zeros(self.shape, np.float32)
        for row, first, weights in zip(out, self.start.tolist(), self.weights, strict=True):
            row[first : first + len(weights)] = weights
        return out


@dataclass(frozen=True, eq=False)
class Bands:
    """Filters in frequency whose outputs come at a low rate, as those of a CQT.

    Filter m adds `weights[m]` times the bins from `start[m]` on, those below 0 and above n_fft / 2
    being conjugates, bin k at point k modulo `n_points`. Before that, bin k is multiplied by
    `turns[k]`, float32 (n_fft // 2 + 1, 2). The inverse FFT of the points, unscaled and times
    `phases[m]`, are the filter's outputs, of which `n_rows` from `head` on are kept.

    With `lowpass`, float32 (n_fft // 8 + 1,), there is also a signal of a quarter of the rate: the
    inverse real FFT, unscaled, of the lower bins times `lowpass`; of its n_fft // 4 samples `n_low`
    from `low_lead` on are kept.
    """

    n_points: int
    head: int
    n_rows: int
    start: IntTable
    weights: tuple[FloatTable, ...]
    turns: FloatTable
    phases: FloatTable
    lowpass: FloatTable | None = None
    low_lead: int = 0
    n_low: int = 0

    @property
    def lowest(self) -> int:
        """The lowest bin of all filters."""
        return int(self.start.min(initial=0))

    @property
    def highest(self) -> int:
        """The bin above the highest of all filters."""
        lengths = np.array([len(w) for w in self.weights], np.int64)
        return int((self.start + lengths).max(initial=self.lowest))


@dataclass(frozen=True)
class Logarithm:
    """`(log(gain x) + offset) factor` with a floor, as `dsp.compress` computes it, step by step.

    `series` and `ln2` are its coefficients in the unit of the result. With `add` the floor is
    added, else it is the least value.
    """

    floor: float
    add: bool
    series: tuple[float, float, float, float]
    ln2: float
    gain: float = 1.0
    offset: float = 0.0
    factor: float = 1.0


@dataclass(frozen=True, eq=False)
class Program:
    """What is computed of each frame: its spectrum's `output`, then filters, then a logarithm.

    `window` is float32 (n_fft,). A frame has `length` samples and then zeros, up to `n_fft`.
    `preemphasis` and `remove_dc` are those of `dsp.framing`. With `samples` the values are those of
    the windowed frame itself. Complex output is real and imaginary parts by turns, and has no
    filters and no logarithm. With `bands` the output is that of their rows, one after the other.
    Raises ValueError for filters over another number of values, and for what cannot be combined.
    """

    window: FloatTable
    hop_length: int
    length: int
    preemphasis: float = 0.0
    remove_dc: bool = False
    output: Output = "power"
    bank: Bank | None = None
    log: Logarithm | None = None
    bands: Bands | None = None

    def __post_init__(self) -> None:
        if self.bank is not None and self.bank.n_bins != self.n_values:
            raise ValueError(f"filters: {self.bank.n_bins} bins must be {self.n_values}")
        if self.output == "complex" and (self.bank is not None or self.log is not None):
            raise ValueError("output: complex values have no filters and no logarithm")
        if self.bands is not None and (self.bank or self.log or self.output == "samples"):
            raise ValueError("bands: they are of spectra, without filters and a logarithm")

    @property
    def n_fft(self) -> int:
        """The points of the FFT."""
        return len(self.window)

    @property
    def width(self) -> int:
        """The number of float32 values in a row."""
        if self.bands is not None:
            return (
                self.bands.n_rows * len(self.bands.start) * (2 if self.output == "complex" else 1)
            )
        return self.n_values if self.bank is None else self.bank.shape[0]

    @property
    def n_values(self) -> int:
        """The number of float32 values that filters are over."""
        if self.output == "samples":
            return self.n_fft
        return (self.n_fft // 2 + 1) * (2 if self.output == "complex" else 1)

    @property
    def kept(self) -> np.float32:
        """What pre-emphasis leaves of a constant."""
        return np.float32(1 - self.preemphasis)

    @property
    def mean_weight(self) -> np.float32:
        """What a frame's sum is multiplied by to be subtracted, after pre-emphasis."""
        return np.float32((1 - self.preemphasis) / self.length)

    def n_frames(self, n_samples: int) -> int:
        """The frames that a signal of `n_samples` has."""
        return max(0, 1 + (n_samples - self.length) // self.hop_length)
