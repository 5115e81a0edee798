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
spectrum of the coefficients, and the block's spectrum also yields the signal of the next rate.
`dsp.kernel` does that for many blocks at once (`Bands`). The time grows with the prime factors of
the hop above 5.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from basilar.dsp import kernel
from basilar.dsp.buffers import Allocate, allocate_rows, batches, keep_freed_memory
from basilar.dsp.framing import PadMode, pad
from basilar.dsp.kernel import Bands, Output, Program
from basilar.dsp.kernel.tables import roots, sine

_SIDE_LOBES = 20.0  # x / length from its peak, Hann's spectrum is below 1 / (π x³): -88 dB
_PASS, _STOP = 0.1, 0.125  # the low-pass before decimation by 4, in cycles per sample
_TAPS = 160  # of the low-pass, on either side of its middle
_LONGEST = 2**22  # samples of a filter
_LARGEST = 2**17  # points of an FFT
_WEIGHT_BYTES = 100  # for each value of a filter's spectrum while tables are made
_LANE_BYTES = 64  # of 16 values, one of each block that is computed at once
_MOST = 8192  # points of an FFT, unless filters need more
_VALUES = 1 << 20  # that the kernel writes at once, or those of 16 blocks

_Float32 = NDArray[np.float32]
_Float64 = NDArray[np.float64]
_Complex = NDArray[np.complex64]


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
            points = 6 * max(layout.n_points, layout.n_fft // 8) + 8 * layout.n_rows
            needed += _WEIGHT_BYTES * layout.n_fft * share
            needed += _LANE_BYTES * (7 * layout.n_fft + points)
            needed += max(4 * _VALUES, _LANE_BYTES * 2 * layout.n_rows * (bins.stop - bins.start))
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
    return _transform(signals, parameters, sample_rate, "complex", empty)


def magnitude(
    signals: Sequence[_Float32], parameters: Cqt, *, sample_rate: int, empty: Allocate = np.empty
) -> list[_Float32]:
    """Magnitudes of `cqt`: float32 (1 + samples // hop_length, n_bins), 0 or more.

    Raises ValueError where `cqt` does.

    >>> parameters = Cqt(hop_length=512, fmin=32.703, n_bins=84, bins_per_octave=12)
    >>> magnitude([np.zeros(22050, np.float32)], parameters, sample_rate=22050)[0].max()
    np.float32(0.0)
    """
    return _transform(signals, parameters, sample_rate, "magnitude", empty)


def power(
    signals: Sequence[_Float32], parameters: Cqt, *, sample_rate: int, empty: Allocate = np.empty
) -> list[_Float32]:
    """Squares of the magnitudes of `cqt`: float32 (1 + samples // hop_length, n_bins).

    Raises ValueError where `cqt` does.

    >>> parameters = Cqt(hop_length=512, fmin=32.703, n_bins=84, bins_per_octave=12)
    >>> power([np.zeros(22050, np.float32)], parameters, sample_rate=22050)[0].shape
    (44, 84)
    """
    return _transform(signals, parameters, sample_rate, "power", empty)


class _Layout(NamedTuple):
    """How a signal is cut into blocks; lengths in samples at the rate of its stage."""

    n_fft: int
    lead: int  # from a block's start to its first frame
    advance: int  # from a block to the next one
    n_points: int  # frames that fit into a block, with those that its ends spoil

    @property
    def n_rows(self) -> int:
        """The frames of a block."""
        return self.advance * self.n_points // self.n_fft

    @property
    def head(self) -> int:
        """The points before its first frame."""
        return self.lead * self.n_points // self.n_fft


class _Stage(NamedTuple):
    """The filters of one rate, `sample_rate / decimation`, and the low-pass to the next rate."""

    decimation: int
    layout: _Layout
    origin: int  # where a signal's sample 0 is
    padding: int  # samples before sample 0 and after the last one that its frames need
    bins: slice
    bands: Bands


class _Blocks(NamedTuple):
    """Consecutive blocks of a signal: `frames` says whether there are frames in them."""

    signal: int
    first: int
    n: int
    frames: bool


def _transform(
    signals: Sequence[_Float32],
    cqt: Cqt,
    sample_rate: int,
    output: Output,
    empty: Allocate,
) -> list[NDArray[Any]]:
    """The transform of each signal: arrays of complex64 or float32, views of a single one."""
    if not all(y.size for y in signals):
        raise ValueError("a signal of 0 samples has no transform: leave it out")
    keep_freed_memory()
    stages = _stages(cqt, sample_rate)
    counts = [1 + y.size // cqt.hop_length for y in signals]
    dtype = np.complex64 if output == "complex" else np.float32
    out = allocate_rows(counts, cqt.n_bins, dtype, empty=empty)
    for some in batches(signals):
        _fill(out[some], signals[some], cqt, stages, output, empty)
    return out


def _fill(
    out: list[NDArray[Any]],
    signals: Sequence[_Float32],
    cqt: Cqt,
    stages: tuple[_Stage, ...],
    output: Output,
    empty: Allocate,
) -> None:
    """Write the transforms of some signals to `out`."""
    levels = [pad(y, width=stages[0].origin, mode=cqt.pad_mode, empty=empty) for y in signals]
    for stage, below in zip(stages, (*stages[1:], None), strict=True):
        n_fft, lead, advance, _ = stage.layout
        program = _program(n_fft, advance, output, stage.bands)
        lower: list[_Float32] = []
        if below is not None:
            for y in signals:
                size = -(-y.size // below.decimation) + 2 * below.origin
                lower.append(empty((size,), np.float32))
                lower[-1].fill(0)
        most = max(16, _VALUES // max(1, program.width, stage.bands.n_low))
        for some in _batches(_blocks(stage, below, signals, out), most):
            spans = []
            for i, first, count, _ in some:
                start = stage.origin + first * advance - lead
                spans.append(levels[i][start : start + (count - 1) * advance + n_fft])
            total = sum(blocks.n for blocks in some)
            n_low = stage.bands.n_low
            rows = np.empty((total, program.width), np.float32) if some[0].frames else None
            low = np.empty((total, n_low), np.float32) if below is not None else None
            kernel.plan(program).run(tuple(spans), rows, low)
            at = 0
            for i, first, count, _ in some:
                if rows is not None:
                    made = rows[at : at + count].view(out[i].dtype)
                    begin = first * stage.layout.n_rows
                    target = out[i][begin : begin + count * stage.layout.n_rows, stage.bins]
                    target[:] = made.reshape(-1, target.shape[1])[: len(target)]
                if low is not None and below is not None:
                    begin = below.origin + first * n_low
                    lower[i][begin : begin + count * n_low] = low[at : at + count].reshape(-1)
                at += count
        levels = lower


def _blocks(
    stage: _Stage, below: _Stage | None, signals: Sequence[_Float32], out: list[NDArray[Any]]
) -> Iterator[_Blocks]:
    """The blocks of all signals that the stage's frames are in, then those for the next rate only.

    Its frames need some signal before the first and after the last frame.
    """
    _, _, advance, _ = stage.layout
    ends = [-(-len(x) // stage.layout.n_rows) for x in out]
    if stage.bands.start.size:
        yield from (_Blocks(i, 0, end, True) for i, end in enumerate(ends))
    if below is not None:
        before = 1 + 4 * below.padding // advance
        for i, y in enumerate(signals):
            size = -(-y.size // below.decimation)
            end = 1 + 4 * (size + below.padding) // advance
            yield _Blocks(i, -before, before, False)
            start = ends[i] if stage.bands.start.size else 0
            if end > start:
                yield _Blocks(i, start, end - start, False)


def _batches(blocks: Iterator[_Blocks], most: int) -> Iterator[list[_Blocks]]:
    """Blocks with frames together, and those without, at most `most` at once."""
    some: list[_Blocks] = []
    room = most
    for i, first, count, frames in blocks:
        done = 0
        while done < count:
            if some and (not room or some[0].frames != frames):
                yield some
                some, room = [], most
            now = min(room, count - done)
            some.append(_Blocks(i, first + done, now, frames))
            done, room = done + now, room - now
    if some:
        yield some


@lru_cache(maxsize=64)
def _program(n_fft: int, advance: int, output: Output, bands: Bands) -> Program:
    return Program(np.ones(n_fft, np.float32), advance, n_fft, output=output, bands=bands)


@lru_cache(maxsize=8)
def _stages(parameters: Cqt, sample_rate: int) -> tuple[_Stage, ...]:
    """The stages of a transform with their tables, from the full rate down."""
    lengths = parameters.lengths(sample_rate=sample_rate)
    centres = parameters.frequencies() / sample_rate
    rates = _rates(parameters, sample_rate)
    # A frame needs the signal under the longest filter and the low-passes of all stages before it.
    widest = lengths[0] / 2 + _TAPS * rates[-1][0] / 3
    longest = max(layout.n_fft for _, layout, _ in rates)
    stages = []
    for decimation, layout, bins in rates:
        padding = math.ceil(widest / decimation) + 2
        last = decimation == rates[-1][0]
        bands = _bands(
            centres[bins], lengths[bins], parameters.scale, decimation, layout, last=last
        )
        origin = padding + longest  # so that all blocks lie inside
        stages.append(_Stage(decimation, layout, origin, padding, bins, bands))
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
        layout = _layout(parameters.hop_length, 4**s, reach, bins.stop - bins.start)
        rates.append((4**s, layout, bins))
    return rates


def _layout(hop: int, decimation: int, reach: int, n_filters: int) -> _Layout:
    """The blocks that take the fewest operations a sample, for filters of `reach` on each side."""
    spacing = Fraction(hop, decimation)
    unit = math.lcm(4, spacing.numerator)  # of blocks that begin on a frame and a kept sample
    lead = -(-reach // unit) * unit
    best, least = None, math.inf
    step = math.lcm(8, unit)
    most = max(_MOST, 8 * (lead + reach + unit))
    for n_fft in range(step, min(most, _LARGEST) + 1, step):
        advance = (n_fft - lead - reach) // unit * unit
        if advance > 0:
            n_points = int(n_fft / spacing)
            cost = _cost(n_fft) / 2 + n_filters * _cost(n_points) + _cost(n_fft // 8)
            if cost / advance < least:
                least = cost / advance
                best = _Layout(n_fft, lead, advance, n_points)
    if best is None:
        raise ValueError(
            f"hop_length, bins_per_octave, filter_scale: filters of {2 * reach} samples at a rate "
            f"of 1 / {decimation} do not fit into an FFT of {_LARGEST}: lower one of them"
        )
    return best


@lru_cache(maxsize=4096)
def _cost(points: int) -> float:
    """The approximate operations of a complex FFT."""
    total, rest, factor = 0, points, 2
    while rest > 1:
        if factor * factor > rest:
            factor = rest
        while rest % factor == 0:
            total += {2: 5, 3: 9, 5: 16}.get(factor, 4 * factor)
            rest //= factor
        factor += 1
    return float(points * (total + 8))


def _bands(
    centres: _Float64,
    lengths: _Float64,
    scale: bool,
    decimation: int,
    layout: _Layout,
    *,
    last: bool,
) -> Bands:
    """The filters' spectra in closed form, without their low side lobes, and the low-pass.

    A window is even about half a sample. Its spectrum is real but for that shift, which is a turn
    of each bin and, for the filter's centre, of its outputs.
    """
    n_fft, half = layout.n_fft, lengths // 2
    width = np.minimum(_SIDE_LOBES / lengths * decimation, 0.5)
    first, end = (
        np.floor(n_fft * (centres * decimation + x)).astype(np.int64) for x in (-width, width)
    )
    gain = (np.sqrt(lengths) if scale else lengths) / n_fft
    period = 1 / (2 * half + 1)
    weights = []
    for m in range(len(centres)):
        k = np.arange(first[m], end[m])
        turns = k / (n_fft * decimation) - centres[m]
        # A Hann window is three rectangular ones, modulated.
        height = _dirichlet(turns, half[m]) + 0.5 * (
            _dirichlet(turns - period[m], half[m]) + _dirichlet(turns + period[m], half[m])
        )
        height *= np.where(2 * k > n_fft, -1.0, 1.0)  # half a sample turns their mirrored bins back
        weights.append((height * (period[m] * gain[m])).astype(np.float32))
    bins = np.arange(n_fft // 2 + 1)
    return Bands(
        *(layout.n_points, layout.head, layout.n_rows),
        start=first.astype(np.int32),
        weights=tuple(weights),
        turns=roots(-bins, 2 * n_fft * decimation),
        phases=np.stack([sine(0.25 - centres / 2), sine(-centres / 2)], axis=-1).astype(np.float32),
        lowpass=None if last else _lowpass(n_fft),
        low_lead=0 if last else layout.lead // 4,
        n_low=0 if last else layout.advance // 4,
    )


def _dirichlet(turns: _Float64, half: _Float64) -> _Float64:
    """Sum of cos(2π n turns) over n = ±1/2 … ±(half - 1/2)."""
    below = sine(turns / 2)
    return np.where(below == 0, 2 * half, sine(half * turns) / np.where(below == 0, 1, below))


def _lowpass(n_fft: int) -> _Float32:
    """Response of the low-pass at the bins up to an eighth of the rate, for `Bands`.

    A sinc times a Hann window. Bins above an eighth of the rate are cut off, so that what the
    filter leaves there affects only the seams of blocks.
    """
    cutoff, k, n = (_PASS + _STOP) / 2, np.arange(n_fft // 8 + 1), np.arange(1, _TAPS + 1)
    window = 0.5 + 0.5 * sine(n / (2 * _TAPS + 1) + 0.25)
    response = np.full(len(k), 2 * cutoff)
    for delay, tap in zip(n, 2 * sine(cutoff * n) / (math.pi * n) * window, strict=True):
        response += tap * sine(delay * k / n_fft + 0.25)
    return np.asarray(response / (n_fft * response[0]), np.float32)
