"""The constant-Q and the variable-Q transform (CQT, VQT) of one or many signals.

Conventions
-----------
* Bin b is at `f = fmin * 2 ** (b / bins_per_octave)` Hz. Its filter is `length = sample_rate /
  bandwidth` samples long, with `bandwidth = (alpha * f + gamma) / filter_scale` in Hz and `alpha =
  (r² - 1) / (r² + 1)`, r the ratio of neighbouring bins (Brown, JASA 89(1), 1991; gamma:
  Schörkhuber, Klapuri, Holighaus and Dörfler, AES 53rd Conference on Semantic Audio, 2014).
* Frame t is centred on sample `t * hop_length`. Its coefficient is the sum over m of
  `y[t * hop_length + m] w[m] exp(-2πi f m / sample_rate)`, where w is a periodic Hann window of
  `2 * (length // 2) + 1` samples that peaks at m = 1/2 and sums to `sqrt(length)` with `scale`, to
  `length` without. Frames, phases and sums are those of librosa (`tuning=0`).

Tests compare results with that sum in float64. Side lobes below -88 dB are left out, an error of
1e-4 for noise. As in Schörkhuber and Klapuri, "Constant-Q transform toolbox for music processing",
SMC 2010, each filter runs at the lowest rate `sample_rate / 4 ** s` that holds its band. Here, one
block serves many frames: its spectrum times a filter's, aliased to the rate of the frames, is the
spectrum of the coefficients. One sparse matrix does that for all filters, and the block's spectrum
also yields the signal of the next rate. FFTs have portable sizes for every hop; the time grows with
the product of the hop's prime factors above 5.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import chain, islice
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from scipy import sparse

from basilar.dsp.buffers import Allocate, allocate_rows, batches, keep_freed_memory
from basilar.dsp.framing import PadMode, pad
from basilar.dsp.kernel.tables import sine as _sine

_COLUMNS = 16  # blocks a batch: SciPy may compute left-over rows in another order
_MAX_REAL, _MAX_COMPLEX = 8192, 4096  # FFT sizes with the same bits in every supported SciPy
_SIDE_LOBES = 20.0  # x / length from its peak, Hann's spectrum is below 1 / (π x³): -88 dB
_PASS, _STOP = 0.1, 0.125  # the low-pass before decimation by 4, in cycles per sample
_TAPS = 160  # of the low-pass, on either side of its middle
_LONGEST = 2**22  # samples of a filter
_KERNEL_BYTES = 200  # for each value of a filter's spectrum while tables are made
_POINT_BYTES = 16 * _COLUMNS  # for each point of a band: before and after its inverse FFT

_Float32 = NDArray[np.float32]
_Float64 = NDArray[np.float64]
_Complex = NDArray[np.complex64]
_Function = Callable[[_Complex], NDArray[Any]]
_Blocks = list[tuple[int, int]]  # (signal, number of the block in it)


@dataclass(frozen=True)
class Cqt:
    """The bins, their widths and the hop: frequencies in Hz, `hop_length` in samples.

    `gamma`, in Hz, widens every band: 0 is the constant-Q transform, None follows the ear's
    equivalent rectangular bandwidths (24.7 / 0.108 * alpha). `filter_scale` below 1 shortens
    filters. `norm` 1 normalizes windows by their sum. Raises ValueError for numbers out of range
    and unknown names.

    >>> Cqt(hop_length=512, fmin=55.0, n_bins=25, bins_per_octave=12).frequencies()[::12]
    array([ 55., 110., 220.])
    """

    hop_length: int
    fmin: float
    n_bins: int
    bins_per_octave: int
    gamma: float | None = 0.0
    filter_scale: float = 1.0
    window: Literal["hann"] = "hann"
    norm: Literal[1] = 1
    scale: bool = True
    pad_mode: PadMode = "constant"

    def __post_init__(self) -> None:
        for name in ("hop_length", "n_bins", "bins_per_octave"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: {getattr(self, name)} must be 1 or more")
        for name in ("fmin", "filter_scale"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name}: {getattr(self, name)} must be above 0 and finite")
        if self.gamma is not None and not 0 <= self.gamma < math.inf:
            raise ValueError(f"gamma: {self.gamma} must be None or at least 0 Hz and finite")
        names = {"window": ("hann",), "norm": (1,), "pad_mode": get_args(PadMode)}
        for name, allowed in names.items():
            if getattr(self, name) not in allowed:
                listed = ", ".join(map(str, allowed))
                raise ValueError(f"{name}: {getattr(self, name)!r} is not one of {listed}")

    def frequencies(self) -> _Float64:
        """The bins' centres in Hz: float64 (n_bins,)."""
        # In whole octaves and rounded steps: C libraries differ in the last bit of a power.
        octaves, steps = np.divmod(np.arange(self.n_bins), self.bins_per_octave)
        ratios = [round(2.0 ** (k / self.bins_per_octave), 13) for k in steps.tolist()]
        return np.asarray(self.fmin * np.asarray(ratios) * 2.0**octaves)

    def lengths(self, *, sample_rate: int) -> _Float64:
        """The filters' lengths in samples, not yet rounded to odd ones: float64 (n_bins,).

        Raises ValueError if a band exceeds half the sample rate, or if a filter has fewer than 2 or
        more than 2^22 samples.
        """
        squared = round(2.0 ** (2 / self.bins_per_octave), 13)
        alpha = (squared - 1) / (squared + 1)
        gamma = 24.7 / 0.108 * alpha if self.gamma is None else self.gamma
        with np.errstate(over="ignore"):  # an infinite frequency is refused below
            frequencies = self.frequencies()
        bandwidths = (alpha * frequencies + gamma) / self.filter_scale
        lengths = np.asarray(sample_rate / bandwidths)
        end = frequencies[-1] + 0.75 * bandwidths[-1]  # half of Hann's noise bandwidth, 1.5
        if end > sample_rate / 2:
            raise ValueError(
                f"fmin, n_bins: the highest band ends at {end:.1f} Hz, above {sample_rate / 2} Hz, "
                f"half the sample rate: lower fmin or n_bins"
            )
        if lengths[-1] < 2:
            raise ValueError(f"filter_scale, gamma: a filter of {lengths[-1]:.1f} samples, below 2")
        if lengths[0] > _LONGEST:
            raise ValueError(
                f"fmin, bins_per_octave, filter_scale: a filter of {lengths[0]:.0f} samples, above "
                f"{_LONGEST}: raise fmin or lower one of the others"
            )
        return lengths

    def table_bytes(self, *, sample_rate: int) -> int:
        """The approximate memory, in bytes, of the transform's tables and one block.

        Raises ValueError where `lengths` and `cqt` do.

        >>> Cqt(512, 32.703, n_bins=84, bins_per_octave=12).table_bytes(sample_rate=22050) < 2**26
        True
        """
        lengths = self.lengths(sample_rate=sample_rate)
        needed = 0.0
        for decimation, layout, bins in _rates(self, sample_rate):
            share = np.minimum(2 * _SIDE_LOBES / lengths[bins] * decimation, 1.0).sum()
            points = layout.n_points * (bins.stop - bins.start)
            needed += _KERNEL_BYTES * layout.n_fft * share + _POINT_BYTES * points
        return math.ceil(needed)


def cqt(
    signals: Sequence[_Float32], parameters: Cqt, *, sample_rate: int, empty: Allocate = np.empty
) -> list[_Complex]:
    """CQT or VQT of each signal, float32 (samples,): complex64 (1 + samples // hop_length, n_bins).

    A full-scale sine at a bin's centre has the magnitude `sqrt(length) / 2` with `scale`, else
    `length / 2`. No signal's bits depend on the others. Results are in arrays from `empty`. Raises
    ValueError for a signal without samples, bands above half the `sample_rate` (Hz), and filters
    too short or too long to compute.

    >>> parameters = Cqt(hop_length=512, fmin=32.703, n_bins=84, bins_per_octave=12)
    >>> cqt([np.zeros(22050, np.float32)], parameters, sample_rate=22050)[0].shape
    (44, 84)
    """
    return _transform(signals, parameters, sample_rate, lambda x: x, np.complex64, empty)


def magnitude(
    signals: Sequence[_Float32], parameters: Cqt, *, sample_rate: int, empty: Allocate = np.empty
) -> list[_Float32]:
    """Magnitudes of `cqt`: float32 (1 + samples // hop_length, n_bins), 0 or more.

    Raises ValueError where `cqt` does.

    >>> parameters = Cqt(hop_length=512, fmin=32.703, n_bins=84, bins_per_octave=12)
    >>> magnitude([np.zeros(22050, np.float32)], parameters, sample_rate=22050)[0].max()
    np.float32(0.0)
    """
    return _transform(signals, parameters, sample_rate, _magnitude, np.float32, empty)


def _magnitude(x: _Complex) -> _Float32:
    """|x| of complex64 with two axes, which it overwrites.

    Real and imaginary parts are squared and added one by one, since NumPy's complex multiply and
    `abs` differ between processors.
    """
    parts = x.view(np.float32)
    np.multiply(parts, parts, out=parts)
    magnitude: _Float32 = np.sqrt(parts[:, 0::2] + parts[:, 1::2])
    return magnitude


def _is_portable(n_fft: int) -> bool:
    """Whether an FFT of `n_fft` real samples gives the same bits in every supported SciPy."""
    rest = n_fft
    for prime in (2, 3, 5):
        while rest % prime == 0:
            rest //= prime
    return rest == 1 and n_fft <= _MAX_REAL


class _Layout(NamedTuple):
    """How a signal is cut into blocks; lengths in samples at the rate of its stage."""

    n_fft: int
    lead: int  # from a block's start to its first frame
    advance: int  # from a block to the next one
    n_points: int  # evenly spaced positions of a block that an inverse FFT gives
    offsets: int  # sets of such points, each moved by `grid`, that together form the grid
    grid: int  # samples of the signal: the largest divisor of the hop that suits an FFT


class _Stage(NamedTuple):
    """The filters of one rate, `sample_rate / decimation`, and the low-pass to the next rate."""

    decimation: int
    layout: _Layout
    origin: int  # where a signal's sample 0 is
    bins: slice
    kernels: sparse.csr_array
    mirrored: int  # bins of the spectrum whose conjugates the kernels need
    lowpass: _Float32


def _transform(
    signals: Sequence[_Float32],
    cqt: Cqt,
    sample_rate: int,
    function: _Function,
    dtype: Any,
    empty: Allocate,
) -> list[NDArray[Any]]:
    """Apply `function` to each signal's transform: arrays of `dtype`, views of a single one."""
    if not all(y.size for y in signals):
        raise ValueError("a signal of 0 samples has no transform: leave it out")
    keep_freed_memory()
    stages = _stages(cqt, sample_rate)
    counts = [1 + y.size // cqt.hop_length for y in signals]
    out = allocate_rows(counts, cqt.n_bins, dtype, empty=empty)
    for some in batches(signals):
        _fill(out[some], signals[some], cqt, stages, function, empty)
    return out


def _fill(
    out: list[NDArray[Any]],
    signals: Sequence[_Float32],
    cqt: Cqt,
    stages: tuple[_Stage, ...],
    function: _Function,
    empty: Allocate,
) -> None:
    """Write `function` of the transforms of some signals to `out`."""
    levels = [pad(y, width=stages[0].origin, mode=cqt.pad_mode, empty=empty) for y in signals]
    for stage, below in zip(stages, (*stages[1:], None), strict=True):
        n_fft, lead, advance, *_ = stage.layout
        span = stage.decimation * advance
        ends = [1 + (len(x) - 1) * cqt.hop_length // span for x in out]
        blocks = _numbered([range(end) for end in ends])
        lower: list[_Float32] = []
        if below is not None:  # which needs some signal before the first and after the last frame
            padding = below.origin - _MAX_REAL
            before, after = [], []
            for i, y in enumerate(signals):
                size = -(-y.size // below.decimation)
                before.append(range(-1 - 4 * padding // advance, 0))
                after.append(range(ends[i], 1 + 4 * (size + padding) // advance))
                lower.append(empty((size + 2 * below.origin,), np.float32))
                lower[i].fill(0)
            blocks = chain(blocks, _numbered(before), _numbered(after))
        first = 0
        while batch := list(islice(blocks, _COLUMNS)):
            block_tn = np.zeros((_COLUMNS, n_fft), np.float32)
            for row, (i, j) in zip(block_tn, batch, strict=False):
                start = stage.origin + j * advance - lead
                row[:] = levels[i][start : start + n_fft]
            spectrum = scipy.fft.rfft(block_tn.T, axis=0)
            if below is not None:
                _decimate(stage, spectrum, batch, lower, below.origin)
            if first < sum(ends) and stage.kernels.nnz:
                _coefficients(stage, spectrum, batch, out, cqt.hop_length, function)
            first += _COLUMNS
        levels = lower


def _numbered(blocks: list[range]) -> Iterator[tuple[int, int]]:
    """The pairs of a signal's number and the number of a block in it."""
    return ((i, j) for i, numbers in enumerate(blocks) for j in numbers)


def _decimate(
    stage: _Stage, spectrum: _Complex, batch: _Blocks, lower: list[_Float32], origin: int
) -> None:
    """Low-pass a batch of blocks and write every fourth sample to the signals of the next stage."""
    passed = spectrum[: len(stage.lowpass)].view(np.float32) * stage.lowpass
    n_fft, lead, advance = (n // 4 for n in stage.layout[:3])
    block_tn = scipy.fft.irfft(passed.view(np.complex64).T, n=n_fft, axis=1)
    for row, (i, j) in zip(block_tn, batch, strict=False):
        start = origin + j * advance
        lower[i][start : start + advance] = row[lead : lead + advance]


def _coefficients(
    stage: _Stage, spectrum: _Complex, batch: _Blocks, out: list[Any], hop: int, function: _Function
) -> None:
    """Write the frames of a batch of blocks."""
    n_fft, lead, advance, n_points, offsets, grid = stage.layout
    head, frames = lead * n_points // n_fft, advance * n_points // n_fft
    # Of the grid's positions, every `ratio`th is a frame; of one set's, every `step`th.
    ratio = hop // grid
    common = math.gcd(ratio, offsets)
    step, every = ratio // common, offsets // common
    used = stage.kernels.shape[1] // 2 - stage.mirrored
    x = np.empty((2, used + stage.mirrored, _COLUMNS), np.complex64)  # X, its mirror; i times both
    for offset in range(0, offsets, common):
        x[0, :used] = spectrum[:used]
        if offset:  # moves the block forward in time, which is a rotation
            turns = np.arange(used) * (offset * grid / (stage.decimation * n_fft))
            cosine, sine = (_sine(turns + u).astype(np.float32)[:, None] for u in (0.25, 0.0))
            real, imag = spectrum[:used].real, spectrum[:used].imag
            x[0, :used].real = real * cosine - imag * sine
            x[0, :used].imag = real * sine + imag * cosine
        np.conjugate(x[0, : stage.mirrored], out=x[0, used:])
        np.negative(x[0].imag, out=x[1].real)
        x[1].imag = x[0].real
        flat = stage.kernels @ x.view(np.float32).reshape(-1, 2 * _COLUMNS)
        bands = flat.view(np.complex64).reshape(n_points, -1, _COLUMNS)
        points = scipy.fft.ifft(bands.transpose(2, 0, 1), axis=1)
        for block, (i, j) in zip(points, batch, strict=False):
            number = j * frames * offsets + offset  # of the block's first point on the grid
            p = next(p for p in range(step) if (number + p * offsets) % ratio == 0)
            frame = (number + p * offsets) // ratio
            if 0 <= frame < len(out[i]):
                target = out[i][frame::every, stage.bins]
                values = block[head + p : head + frames : step][: len(target)]
                target[: len(values)] = function(values)


@lru_cache(maxsize=8)
def _stages(parameters: Cqt, sample_rate: int) -> tuple[_Stage, ...]:
    """The stages of a transform with their tables, from the full rate down."""
    lengths = parameters.lengths(sample_rate=sample_rate)
    centres = parameters.frequencies() / sample_rate
    rates = _rates(parameters, sample_rate)
    # A frame needs the signal under the longest filter and the low-passes of all stages before it.
    widest = lengths[0] / 2 + _TAPS * rates[-1][0] / 3
    stages = []
    for decimation, layout, bins in rates:
        tables = _kernels(centres[bins], lengths[bins], parameters.scale, decimation, layout)
        origin = math.ceil(widest / decimation) + 2 + _MAX_REAL  # the latter keeps blocks inside
        stages.append(_Stage(decimation, layout, origin, bins, *tables, _lowpass(layout.n_fft)))
    return tuple(stages)


def _rates(parameters: Cqt, sample_rate: int) -> list[tuple[int, _Layout, slice]]:
    """The decimation, the blocks and the bins of each stage."""
    lengths = parameters.lengths(sample_rate=sample_rate)
    ends = parameters.frequencies() / sample_rate + _SIDE_LOBES / lengths
    depth = 0
    while ends[0] <= _PASS / 4**depth:
        depth += 1
    # Every bin goes to the lowest rate whose pass-band holds it.
    limits = [_PASS / 4**s for s in range(depth)]
    borders = [len(ends), *np.searchsorted(ends, limits, "right").tolist(), 0]
    rates = []
    for s in range(depth + 1):
        bins = slice(borders[s + 1], borders[s])
        reach = math.ceil(max([_TAPS, *(lengths[bins] / 2 / 4**s)])) + 1
        rates.append((4**s, _layout(parameters.hop_length, 4**s, reach), bins))
    return rates


def _layout(hop: int, decimation: int, reach: int) -> _Layout:
    """The blocks with the most new samples that fit filters of `reach` samples on each side."""
    grid = max(n for n in range(1, 2049) if hop % n == 0 and _is_portable(n))
    best, most = None, 0.0
    for n_fft in filter(_is_portable, range(16, _MAX_REAL + 1, 16)):
        offsets = 1
        while n_fft * decimation > _MAX_COMPLEX * grid * offsets:
            offsets *= 2
        spacing = Fraction(grid * offsets, decimation)
        unit = math.lcm(4, spacing.numerator)  # of blocks that begin on a point and a kept sample
        lead = -(-reach // unit) * unit
        advance = (n_fft - lead - reach) // unit * unit
        if n_fft % unit == 0 and advance / n_fft > most:
            most = advance / n_fft
            best = _Layout(n_fft, lead, advance, int(n_fft / spacing), offsets, grid)
    if best is None:
        raise ValueError(
            f"bins_per_octave, filter_scale: filters of {2 * reach} samples at a rate of 1 / "
            f"{decimation} do not fit into an FFT of {_MAX_REAL}: lower one of them"
        )
    return best


def _kernels(
    centres: _Float64, lengths: _Float64, scale: bool, decimation: int, layout: _Layout
) -> tuple[sparse.csr_array, int]:
    """The matrix from a spectrum to all its aliased bands, and the number of conjugates it needs.

    It holds the filters' spectra in closed form, without their low side lobes. Bins of the spectrum
    below 0 Hz and above half the rate are the conjugates of those they mirror.
    """
    n_fft, n_points, filters = layout.n_fft, layout.n_points, len(centres)
    half = lengths // 2
    width = np.minimum(_SIDE_LOBES / lengths * decimation, 0.5)
    first, last = ((n_fft * (centres * decimation + x)).astype(np.int64) for x in (-width, width))
    band = np.repeat(np.arange(filters), last - first)
    k = np.concatenate([np.arange(a, b) for a, b in zip(first, last, strict=True)] or [band])
    half, turns = half[band], k / (n_fft * decimation) - centres[band]
    # A Hann window is three rectangular ones, modulated; it is even about half a sample.
    period = 1 / (2 * half + 1)
    height = _dirichlet(turns, half) + 0.5 * (
        _dirichlet(turns - period, half) + _dirichlet(turns + period, half)
    )
    mirror = (k < 0) | (k > n_fft // 2)
    source = np.where(mirror, np.minimum(abs(k), n_fft - k), k)
    used = int(source.max(initial=0)) + 1
    mirrored = int(source[mirror].max(initial=-1)) + 1
    weight = np.concatenate([height * period * _sine(turns / 2 + u) for u in (0.25, 0.0)])
    kept = np.abs(weight) > 1 / (math.pi * _SIDE_LOBES**3)
    gain = (np.sqrt(lengths) if scale else lengths)[band] * (n_points / n_fft)
    value = (np.tile(gain, 2) * weight)[kept].astype(np.float32)
    row = np.tile(k % n_points * filters + band, 2)[kept]
    column = source + np.where(mirror, used, 0)
    column = np.concatenate([column, column + used + mirrored])[kept]
    shape = (n_points * filters, 2 * (used + mirrored))
    matrix = sparse.csr_array((value, (row, column)), shape=shape)
    matrix.sort_indices()
    return matrix, mirrored


def _dirichlet(turns: _Float64, half: _Float64) -> _Float64:
    """Sum of cos(2π n turns) over n = ±1/2 … ±(half - 1/2)."""
    below = _sine(turns / 2)
    return np.where(below == 0, 2 * half, _sine(half * turns) / np.where(below == 0, 1, below))


def _lowpass(n_fft: int) -> _Float32:
    """Response of the low-pass at the bins up to an eighth of the rate, by 4: float32 (bins, 1).

    A sinc times a Hann window. Bins above an eighth of the rate are cut off, so that what the
    filter leaves there affects only the seams of blocks.
    """
    cutoff, k, n = (_PASS + _STOP) / 2, np.arange(n_fft // 8 + 1), np.arange(1, _TAPS + 1)
    window = 0.5 + 0.5 * _sine(n / (2 * _TAPS + 1) + 0.25)
    response = np.full(len(k), 2 * cutoff)
    for delay, tap in zip(n, 2 * _sine(cutoff * n) / (math.pi * n) * window, strict=True):
        response += tap * _sine(delay * k / n_fft + 0.25)
    return np.asarray(response / (4 * response[0]), np.float32)[:, None]
