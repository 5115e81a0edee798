"""The kernel in NumPy: the same operations in the same order, and so the same bits.

Arrays have frames along their last axis, as the lanes of C. README.md states the order.
"""

from collections.abc import Iterator

import numpy as np

from basilar.dsp.buffers import keep_freed_memory
from basilar.dsp.kernel.tables import Bands, Bank, Logarithm, Program, fft, half_turns
from basilar.dsp.kernel.twin_fft import Complex, Real, complex_fft, spectrum

_VALUES = 1 << 18  # of a block of frames: NumPy's calls cost little beside their work


def _decimated(z: Complex, bands: Bands) -> Real:
    """The kept samples of the lower rate, of spectra (bins, frames): (n_low, frames)."""
    assert bands.lowpass is not None
    half = len(bands.lowpass) - 1
    passed = z.re[: half + 1] * bands.lowpass[:, None], z.im[: half + 1] * bands.lowpass[:, None]
    a, b = Complex(*passed).at(np.s_[:half]), Complex(passed[0][:0:-1], -passed[1][:0:-1])
    b.im[0] = 0.0  # of half the lower rate only the real part counts
    total, odd = a.add(b), a.sub(b).times(half_turns(8 * half)[:, None])
    swapped = Complex((total.im + odd.re)[None], (total.re - odd.im)[None])  # an inverse transform
    y = complex_fft(swapped, fft(half))
    samples = np.stack([y.im[0], y.re[0]], axis=1).reshape(2 * half, -1)
    return samples[bands.low_lead : bands.low_lead + bands.n_low]


def _band_rows(z: Complex, n_fft: int, bands: Bands, output: str) -> Real:
    """The kept outputs of all filters, of spectra (bins, frames): (n_rows * values, frames)."""
    points, frames = bands.n_points, z.re.shape[1]
    turned = z.times(bands.turns[:, None])
    parts = 2 if output == "complex" else 1
    out = np.empty((bands.n_rows, len(bands.start), parts, frames), np.float32)
    for m, (first, weights) in enumerate(zip(bands.start.tolist(), bands.weights, strict=True)):
        k = np.arange(first, first + len(weights))
        mirrored = (k < 0) | (2 * k > n_fft)
        bins = np.where(k < 0, -k, np.where(mirrored, n_fft - k, k))
        im = np.where(mirrored[:, None], -turned.im[bins], turned.im[bins])
        products = Complex(im * weights[:, None], turned.re[bins] * weights[:, None])  # swapped
        sums = Complex(*np.zeros((2, 1, points, frames), np.float32))
        for i in range(-(first % points), len(k), points):  # no point twice at once
            some = products.at(np.s_[max(0, i) : i + points])
            at = max(0, -i)
            sums.re[0, at : at + len(some.re)] += some.re
            sums.im[0, at : at + len(some.im)] += some.im
        y = complex_fft(sums, fft(points)).at(np.s_[0, bands.head : bands.head + bands.n_rows])
        y = Complex(y.im, y.re)
        if output == "complex":
            y = y.times(bands.phases[m])
            out[:, m, 0], out[:, m, 1] = y
        else:
            power = y.re * y.re + y.im * y.im
            out[:, m, 0] = np.sqrt(power) if output == "magnitude" else power
    return out.reshape(-1, frames)


def _conditioned(x: Real, program: Program) -> Real:
    """Frames (length, frames), pre-emphasised and less their means."""
    if program.remove_dc:
        x = x - x[0]  # of small differences of large samples more digits stay
    y = x.copy()
    if program.preemphasis:
        y[0] = x[0] * program.kept
        y[1:] = (x[1:] - x[:-1]) + x[:-1] * program.kept
    if program.remove_dc:
        sums = x
        while len(sums) > 1:
            half = (len(sums) + 1) // 2
            folded = sums[:half].copy()
            folded[: len(sums) - half] += sums[half:]
            sums = folded
        y -= sums[0] * program.mean_weight
    return y


def _filtered(x: Real, bank: Bank) -> Real:
    """The sums of filters over bins (bins, frames), each in four parts: (filters, frames)."""
    order = sorted(range(len(bank.weights)), key=lambda m: -len(bank.weights[m]))
    start = bank.start[order]
    lengths = np.array([len(bank.weights[m]) for m in order])
    sums = np.zeros((4, len(order), x.shape[1]), np.float32)
    for i in range(lengths.max(initial=0)):
        n = int(np.count_nonzero(lengths > i))
        weights = np.array([bank.weights[m][i] for m in order[:n]], np.float32)
        sums[i % 4, :n] += x[start[:n] + i] * weights[:, None]
    out = np.empty((len(order), x.shape[1]), np.float32)
    out[order] = (sums[0] + sums[1]) + (sums[2] + sums[3])
    return out


def _logarithm(x: Real, log: Logarithm) -> Real:
    c = [np.float32(value) for value in log.series]
    given = x * np.float32(log.gain)
    floor = np.float32(log.floor)
    v = given + floor if log.add else np.where(given < floor, floor, given)
    bits = v.view(np.uint32)
    exponent = (bits - np.uint32(0x3F3504F3)) & np.uint32(0xFF800000)
    m = (bits - exponent).view(np.float32)
    s = (m - np.float32(1)) / (m + np.float32(1))
    z = s * s
    y = z * c[3]
    y = (y + c[2]) * z
    y = (y + c[1]) * z
    y = (y + c[0]) * s
    y += exponent.view(np.int32).astype(np.float32) * np.float32(log.ln2)
    y = np.where(v < np.float32(np.inf), y, given)
    return np.asarray((y + np.float32(log.offset)) * np.float32(log.factor))


class Plan:
    """A program, ready to run: `native.Plan` in NumPy."""

    def __init__(self, program: Program) -> None:
        self._program = program

    def run(self, signals: tuple[Real, ...], out: Real | None, lower: Real | None = None) -> int:
        """Write the rows of all frames of the signals to `out`, float32 (frames, width).

        `signals` are float32 (samples,), contiguous. With bands, `lower`, float32 (frames, n_low),
        takes the samples of the lower rate, and either may be None. Returns the number of frames.
        Raises ValueError or TypeError for other arrays.
        """
        keep_freed_memory()
        program = self._program
        counts = [program.n_frames(y.size) for y in signals]
        count = sum(counts)
        n_low = program.bands.n_low if program.bands else 0
        if out is None and program.bands is None:
            raise TypeError("out: it must be an array")
        if lower is not None and not n_low:
            raise ValueError("lower: the plan has no lower rate")
        for name, array, width in (("out", out, program.width), ("lower", lower, n_low)):
            if array is not None and (array.dtype != np.float32 or array.shape != (count, width)):
                raise ValueError(f"{name}: it must be float32 ({count}, {width})")
        if any(y.dtype != np.float32 for y in signals):
            raise TypeError("signals: they must be of float32")
        row = 0
        for frames_nt in self._blocks(signals, counts):
            some = slice(row, row + frames_nt.shape[1])
            self._rows(
                frames_nt,
                None if out is None else out[some],
                None if lower is None else lower[some],
            )
            row = some.stop
        return count

    def _blocks(self, signals: tuple[Real, ...], counts: list[int]) -> Iterator[Real]:
        """The frames of all signals in blocks (length, frames), which are overwritten."""
        program = self._program
        block = min(max(1, _VALUES // program.n_fft), sum(counts))
        frames_nt = np.empty((program.length, block), np.float32)
        filled = 0
        for y, count in zip(signals, counts, strict=True):
            strides = (4, 4 * program.hop_length)
            view = np.ndarray((program.length, count), np.float32, y, 0, strides)
            first = 0
            while first < count:
                some = min(block - filled, count - first)
                frames_nt[:, filled : filled + some] = view[:, first : first + some]
                first, filled = first + some, filled + some
                if filled == block:
                    yield frames_nt
                    filled = 0
        if filled:
            yield frames_nt[:, :filled]

    def _rows(self, frames_nt: Real, out: Real | None, lower: Real | None) -> None:
        """Write what becomes of frames (length, frames)."""
        program, bands = self._program, self._program.bands
        x = np.zeros((program.n_fft, frames_nt.shape[1]), np.float32)
        conditioned = program.preemphasis or program.remove_dc
        x[: program.length] = _conditioned(frames_nt, program) if conditioned else frames_nt
        x *= program.window[:, None]
        if bands is not None:
            z = spectrum(x)
            if lower is not None:
                _put(lower, _decimated(z, bands))
            if out is not None:
                _put(out, _band_rows(z, program.n_fft, bands, program.output))
            return
        assert out is not None
        values = x if program.output == "samples" else self._bins(x)
        if program.bank is not None:
            values = _filtered(values, program.bank)
        _put(out, values if program.log is None else _logarithm(values, program.log))

    def _bins(self, x: Real) -> Real:
        """The output of the spectra of windowed frames (n_fft, frames): (values, frames)."""
        z = spectrum(x)
        if self._program.output == "complex":
            return np.stack(z, axis=1).reshape(self._program.width, -1)
        power = z.re * z.re + z.im * z.im
        return np.sqrt(power) if self._program.output == "magnitude" else power


def _put(out: Real, values: Real) -> None:
    """Write values (width, frames) to rows. Processors differ in what NaN they make."""
    out[:] = values.T
    out[np.isnan(out)] = np.nan
