"""The transforms of the kernel's twin: those of lanes.h, in the same order.

Arrays have frames along their last axis, as the lanes of C. README.md states the order.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from basilar.dsp.kernel.tables import Fft, transform

Real = NDArray[np.float32]

_ROOT_HALF = np.float32(0.7071067811865476)


class Complex(NamedTuple):
    """Complex values: real and imaginary parts, float32 of one shape."""

    re: Real
    im: Real

    def add(self, b: "Complex") -> "Complex":
        """The sums of the parts."""
        return Complex(self.re + b.re, self.im + b.im)

    def sub(self, b: "Complex") -> "Complex":
        """The differences of the parts."""
        return Complex(self.re - b.re, self.im - b.im)

    def times(self, roots: Real) -> "Complex":
        """Times complex roots (…, 2), which are broadcast."""
        re, im = roots[..., 0], roots[..., 1]
        return Complex(self.re * re - self.im * im, self.re * im + self.im * re)

    def at(self, key: Any) -> "Complex":
        """Both parts at an index."""
        return Complex(self.re[key], self.im[key])


def _turned(a: Real, roots: Real) -> Complex:
    return Complex(a * roots[..., 0], a * roots[..., 1])


def _real(a: Real) -> Complex:
    return Complex(a, np.zeros_like(a))


def _dft2(x: Sequence[Complex]) -> list[Complex]:
    return [x[0].add(x[1]), x[0].sub(x[1])]


def _dft4(x: Sequence[Complex]) -> list[Complex]:
    a, b, c, d = x[0].add(x[2]), x[0].sub(x[2]), x[1].add(x[3]), x[1].sub(x[3])
    return [
        a.add(c),
        Complex(b.re + d.im, b.im - d.re),
        a.sub(c),
        Complex(b.re - d.im, b.im + d.re),
    ]


def _dft8(x: Sequence[Complex]) -> list[Complex]:
    even = _dft4([x[j].add(x[j + 4]) for j in range(4)])
    b = [x[j].sub(x[j + 4]) for j in range(4)]
    one = Complex((b[1].re + b[1].im) * _ROOT_HALF, (b[1].im - b[1].re) * _ROOT_HALF)
    u, v = (b[3].im - b[3].re) * _ROOT_HALF, (b[3].re + b[3].im) * _ROOT_HALF
    p = Complex(b[0].re + b[2].im, b[0].im - b[2].re)
    q = Complex(b[0].re - b[2].im, b[0].im + b[2].re)
    c, d = Complex(one.re + u, one.im - v), Complex(one.re - u, one.im + v)
    odd = [p.add(c), Complex(q.re + d.im, q.im - d.re), p.sub(c), Complex(q.re - d.im, q.im + d.re)]
    return [y for pair in zip(even, odd, strict=True) for y in pair]


def _odd(x: Sequence[Complex], circle: Real) -> list[Complex]:
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
        out[k], out[n - k] = Complex(are - bim, aim + bre), Complex(are + bim, aim - bre)
    return out


def _real4(x: Sequence[Real]) -> tuple[list[Real], list[Complex]]:
    s, t = x[0] + x[2], x[1] + x[3]
    return [s + t, s - t], [Complex(x[0] - x[2], x[3] - x[1])]


def _real8(x: Sequence[Real]) -> tuple[list[Real], list[Complex]]:
    a, b, c, d = x[0] + x[4], x[0] - x[4], x[1] + x[5], x[1] - x[5]
    e, f, g, h = x[2] + x[6], x[6] - x[2], x[3] + x[7], x[7] - x[3]
    s, t, m, n = a + e, c + g, (d + h) * _ROOT_HALF, (h - d) * _ROOT_HALF
    return [s + t, s - t], [Complex(b + m, f + n), Complex(a - e, g - c), Complex(b - m, n - f)]


def _real16(x: Sequence[Real], roots: Real) -> tuple[list[Real], list[Complex]]:
    (ends0, z0), (ends1, z1) = _real8(x[0::2]), _real8(x[1::2])
    out = [_real(ends0[1]).add(_turned(ends1[1], roots[8]))]
    for k in range(1, 4):
        out += _dft2([z0[k - 1], z1[k - 1].times(roots[2 * k])])
    return [ends0[0] + ends1[0], ends0[0] - ends1[0]], out


def _real32(x: Sequence[Real], roots: Real) -> tuple[list[Real], list[Complex]]:
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


def _real_odd(x: Sequence[Real], circle: Real) -> tuple[list[Real], list[Complex]]:
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
        out.append(Complex(re, im))
    return [total], out


def spectrum(x: Real) -> Complex:
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
    first = Complex(*(np.stack([getattr(z, part) for z in columns]) for part in ("re", "im")))
    turns = tables.turns.transpose(1, 0, 2)[:, :, None]  # (columns - 1, b - 1, 1, 2)
    rest = first.at(np.s_[1:, 1:])
    if len(reals) == 2:  # a real value takes one multiplication for each part
        whole = _turned(first.re[1, 1:], turns[0])
        turned = rest.at(np.s_[1:]).times(turns[1:])
        first.re[1, 1:], first.im[1, 1:] = whole
        first.re[2:, 1:], first.im[2:, 1:] = turned
    else:
        first.re[1:, 1:], first.im[1:, 1:] = rest.times(turns)
    second = complex_fft(first, tables.second)
    out = Complex(*np.empty((2, n // 2 + 1, frames), np.float32))
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


def complex_fft(x: Complex, tables: Fft) -> Complex:
    """Stockham's transform along the second axis of (columns, points, frames)."""
    columns, points, frames = x.re.shape
    stride, odd = 1, iter(tables.circles)
    for radix, roots in zip(tables.radices.tolist(), tables.turns, strict=True):
        m = points // radix
        shape = (columns, radix, m, stride, frames)
        x = Complex(x.re.reshape(shape), x.im.reshape(shape))
        inputs = [x.at(np.s_[:, j]) for j in range(radix)]
        simple = {2: _dft2, 4: _dft4, 8: _dft8}.get(radix)
        outputs = simple(inputs) if simple else _odd(inputs, next(odd))
        y = Complex(*np.empty((2, columns, m, radix, stride, frames), np.float32))
        for k, z in enumerate(outputs):
            y.re[:, :, k], y.im[:, :, k] = z
            if k:
                turned = z.at(np.s_[:, 1:]).times(roots[1:, k - 1, None, None])
                y.re[:, 1:, k], y.im[:, 1:, k] = turned
        x, points, stride = y, m, stride * radix
    return Complex(*(part.reshape(columns, stride, frames) for part in x))
