"""The kernel in NumPy: the same operations in the same order, and so the same bits.

Arrays have frames along their last axis, as the lanes of C. README.md states the order.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from basilar.dsp.buffers import keep_freed_memory
from basilar.dsp.kernel.tables import (
    Bands,
    Bank,
    Fft,
    Logarithm,
    Program,
    fft,
    half_turns,
    transform,
)

Real = NDArray[np.float32]

_ROOT_HALF = np.float32(0.7071067811865476)
_VALUES = 1 << 18  # of a block of frames: NumPy's calls cost little beside their work


class _Z(NamedTuple):
    """Complex values: real and imaginary parts, float32 of one shape."""

    re: Real
    im: Real

    def add(self, b: "_Z") -> "_Z":
        return _Z(self.re + b.re, self.im + b.im)

    def sub(self, b: "_Z") -> "_Z":
        return _Z(self.re - b.re, self.im - b.im)

    def times(self, roots: Real) -> "_Z":
        """Times complex roots (…, 2), which are broadcast."""
        re, im = roots[..., 0], roots[..., 1]
        return _Z(self.re * re - self.im * im, self.re * im + self.im * re)

    def at(self, key: Any) -> "_Z":
        return _Z(self.re[key], self.im[key])


def _turned(a: Real, roots: Real) -> _Z:
    return _Z(a * roots[..., 0], a * roots[..., 1])


def _real(a: Real) -> _Z:
    return _Z(a, np.zeros_like(a))


def _dft2(x: Sequence[_Z]) -> list[_Z]:
    return [x[0].add(x[1]), x[0].sub(x[1])]


def _dft4(x: Sequence[_Z]) -> list[_Z]:
    a, b, c, d = x[0].add(x[2]), x[0].sub(x[2]), x[1].add(x[3]), x[1].sub(x[3])
    return [a.add(c), _Z(b.re + d.im, b.im - d.re), a.sub(c), _Z(b.re - d.im, b.im + d.re)]


def _dft8(x: Sequence[_Z]) -> list[_Z]:
    even = _dft4([x[j].add(x[j + 4]) for j in range(4)])
    b = [x[j].sub(x[j + 4]) for j in range(4)]
    one = _Z((b[1].re + b[1].im) * _ROOT_HALF, (b[1].im - b[1].re) * _ROOT_HALF)
    u, v = (b[3].im - b[3].re) * _ROOT_HALF, (b[3].re + b[3].im) * _ROOT_HALF
    p = _Z(b[0].re + b[2].im, b[0].im - b[2].re)
    q = _Z(b[0].re - b[2].im, b[0].im + b[2].re)
    c, d = _Z(one.re + u, one.im - v), _Z(one.re - u, one.im + v)
    odd = [p.add(c), _Z(q.re + d.im, q.im - d.re), p.sub(c), _Z(q.re - d.im, q.im + d.re)]
    return [y for pair in zip(even, odd, strict=True) for y in pair]


def _odd(x: Sequence[_Z], circle: Real) -> list[_Z]:
    """Of an odd number of points, by plain sums over pairs."""
    n = len(x)
    half = n // 2
    cosine, sine = circle
    sums = [x[j].add(x[n - j]) for j in range(1, half + 1)]
    differences = [x[n - j].sub(x[j]) for j in range(1, half + 1)]
    total = x[0]
    for pair in sums:
        total = total.add(pair)
    out = [total] * n
    for k in range(1, half + 1):
        are, aim = x[0].re + sums[0].re * cosine[k], x[0].im + sums[0].im * cosine[k]
        bre, bim = differences[0].re * sine[k], differences[0].im * sine[k]
        for j in range(2, half + 1):
            turn, s, d = j * k % n, sums[j - 1], differences[j - 1]
            are, aim = are + s.re * cosine[turn], aim + s.im * cosine[turn]
            bre, bim = bre + d.re * sine[turn], bim + d.im * sine[turn]
        out[k], out[n - k] = _Z(are - bim, aim + bre), _Z(are + bim, aim - bre)
    return out


def _real4(x: Sequence[Real]) -> tuple[list[Real], list[_Z]]:
    s, t = x[0] + x[2], x[1] + x[3]
    return [s + t, s - t], [_Z(x[0] - x[2], x[3] - x[1])]


def _real8(x: Sequence[Real]) -> tuple[list[Real], list[_Z]]:
    a, b, c, d = x[0] + x[4], x[0] - x[4], x[1] + x[5], x[1] - x[5]
    e, f, g, h = x[2] + x[6], x[6] - x[2], x[3] + x[7], x[7] - x[3]
    s, t, m, n = a + e, c + g, (d + h) * _ROOT_HALF, (h - d) * _ROOT_HALF
    return [s + t, s - t], [_Z(b + m, f + n), _Z(a - e, g - c), _Z(b - m, n - f)]


def _real16(x: Sequence[Real], roots: Real) -> tuple[list[Real], list[_Z]]:
    (ends0, z0), (ends1, z1) = _real8(x[0::2]), _real8(x[1::2])
    out = [_real(ends0[1]).add(_turned(ends1[1], roots[8]))]
    for k in range(1, 4):
        out += _dft2([z0[k - 1], z1[k - 1].times(roots[2 * k])])
    return [ends0[0] + ends1[0], ends0[0] - ends1[0]], out


def _real32(x: Sequence[Real], roots: Real) -> tuple[list[Real], list[_Z]]:
    parts = [_real8(x[t::4]) for t in range(4)]
    real, out = _real4([ends[0] for ends, _ in parts])
    last = [_real(parts[0][0][1])]
    last += [_turned(parts[t][0][1], roots[4 * t]) for t in range(1, 4)]
    out += _dft4(last)[:2]
    for k in range(1, 4):
        four = [parts[0][1][k - 1]]
        four += [parts[t][1][k - 1].times(roots[k * t]) for t in range(1, 4)]
        out += _dft4(four)
    return real, out


def _real_odd(x: Sequence[Real], circle: Real) -> tuple[list[Real], list[_Z]]:
    n = len(x)
    half = n // 2
    cosine, sine = circle
    sums = [x[j] + x[n - j] for j in range(1, half + 1)]
    differences = [x[n - j] - x[j] for j in range(1, half + 1)]
    total = x[0]
    for pair in sums:
        total = total + pair
    out = []
    for k in range(1, half + 1):
        re, im = x[0] + sums[0] * cosine[k], differences[0] * sine[k]
        for j in range(2, half + 1):
            turn = j * k % n
            re, im = re + sums[j - 1] * cosine[turn], im + differences[j - 1] * sine[turn]
        out.append(_Z(re, im))
    return [total], out


def spectrum(x: Real) -> _Z:
    """The spectra of windowed frames (n_fft, frames): (n_fft // 2 + 1, frames)."""
    n, frames = x.shape
    tables = transform(n)
    a, b, column = tables.a, tables.second.points, tables.column
    points = list(x.reshape(a, b, frames))
    if a == 32:
        reals, others = _real32(points, tables.roots)
    elif a == 16:
        reals, others = _real16(points, tables.roots)
    elif a == 8:
        reals, others = _real8(points)
    elif a == 4:
        reals, others = _real4(points)
    elif a == 2:
        reals, others = [points[0] + points[1], points[0] - points[1]], []
    elif a == 1:
        reals, others = [points[0]], []
    else:
        reals, others = _real_odd(points, tables.circle)
    columns = [_real(real) for real in reals] + others
    first = _Z(*(np.stack([getattr(z, part) for z in columns]) for part in ("re", "im")))
    turns = tables.turns.transpose(1, 0, 2)[:, :, None]  # (columns - 1, b - 1, 1, 2)
    rest = first.at(np.s_[1:, 1:])
    if len(reals) == 2:  # a real value takes one multiplication for each part
        whole = _turned(first.re[1, 1:], turns[0])
        turned = rest.at(np.s_[1:]).times(turns[1:])
        first.re[1, 1:], first.im[1, 1:] = whole
        first.re[2:, 1:], first.im[2:, 1:] = turned
    else:
        first.re[1:, 1:], first.im[1:, 1:] = rest.times(turns)
    second = _fft(first, tables.second)
    out = _Z(*np.empty((2, n // 2 + 1, frames), np.float32))
    for c, k1 in enumerate(column.tolist()):
        k = k1 + a * np.arange(b)
        below = 2 * k <= n
        out.re[k[below]], out.im[k[below]] = second.at((c, below))
        if c >= len(reals):
            out.re[n - k[~below]] = second.re[c, ~below]
            out.im[n - k[~below]] = -second.im[c, ~below]
    out.im[0] = 0.0
    if n % 2 == 0:
        out.im[n // 2] = 0.0
    return out


def _fft(x: _Z, tables: Fft) -> _Z:
    """Stockham's transform along the second axis of (columns, points, frames)."""
    columns, points, frames = x.re.shape
    stride, odd = 1, iter(tables.circles)
    for radix, roots in zip(tables.radices.tolist(), tables.turns, strict=True):
        m = points // radix
        shape = (columns, radix, m, stride, frames)
        x = _Z(x.re.reshape(shape), x.im.reshape(shape))
        inputs = [x.at(np.s_[:, j]) for j in range(radix)]
        simple = {2: _dft2, 4: _dft4, 8: _dft8}.get(radix)
        outputs = simple(inputs) if simple else _odd(inputs, next(odd))
        y = _Z(*np.empty((2, columns, m, radix, stride, frames), np.float32))
        for k, z in enumerate(outputs):
            y.re[:, :, k], y.im[:, :, k] = z
            if k:
                turned = z.at(np.s_[:, 1:]).times(roots[1:, k - 1, None, None])
                y.re[:, 1:, k], y.im[:, 1:, k] = turned
        x, points, stride = y, m, stride * radix
    return _Z(*(part.reshape(columns, stride, frames) for part in x))


def _decimated(z: _Z, bands: Bands) -> Real:
    """The kept samples of the lower rate, of spectra (bins, frames): (n_low, frames)."""
    assert bands.lowpass is not None
    half = len(bands.lowpass) - 1
    passed = z.re[: half + 1] * bands.lowpass[:, None], z.im[: half + 1] * bands.lowpass[:, None]
    a, b = _Z(*passed).at(np.s_[:half]), _Z(passed[0][:0:-1], -passed[1][:0:-1])
    total, odd = a.add(b), a.sub(b).times(half_turns(8 * half)[:, None])
    swapped = _Z((total.im + odd.re)[None], (total.re - odd.im)[None])  # an inverse transform
    y = _fft(swapped, fft(half))
    samples = np.stack([y.im[0], y.re[0]], axis=1).reshape(2 * half, -1)
    return samples[bands.low_lead : bands.low_lead + bands.n_low]


def _band_rows(z: _Z, n_fft: int, bands: Bands, output: str) -> Real:
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
        products = _Z(im * weights[:, None], turned.re[bins] * weights[:, None])  # swapped
        sums = _Z(*np.zeros((2, 1, points, frames), np.float32))
        for i in range(-(first % points), len(k), points):  # no point twice at once
            some = products.at(np.s_[max(0, i) : i + points])
            at = max(0, -i)
            sums.re[0, at : at + len(some.re)] += some.re
            sums.im[0, at : at + len(some.im)] += some.im
        y = _fft(sums, fft(points)).at(np.s_[0, bands.head : bands.head + bands.n_rows])
        y = _Z(y.im, y.re)
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
