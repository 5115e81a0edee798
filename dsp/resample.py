"""Change of sample rate.

Conventions
-----------
* `sinc_kaiser`: a sinc under a Kaiser window (14.9) of 48 zero crossings on either side, cut off at
  the Nyquist frequency of the lower rate. The recommended method.
* `soxr`: soxr's VHQ (quality `very_high`, 28-bit precision) or HQ (`high`, 20 bit), linear phase;
  round(samples * target / source) samples. librosa's default library.
* `polyphase`: scipy.signal.resample_poly with its defaults, a Kaiser window of 5.0 and ten zero
  crossings.
* `sinc_hann`: torchaudio.functional.resample with its defaults, six zero crossings under a Hann
  window, rolled off at 0.99 of the lower Nyquist frequency.
* None has a delay: sample 0 stays sample 0. All but soxr return ceil(samples * target / source)
  samples. Equal rates return the signal as it is.

All but soxr multiply pieces of the signal by a filter for each phase, in `dsp.kernel`: a sample has
the same bits on every processor that the kernel is tested on, and depends on no sample beyond its
filter. soxr's bits differ on 64-bit Arm (VHQ: about one sample in twenty million).

Measured (`make bench-dsp`, 2026-11-28) with tones up to 0.9 of the lower Nyquist frequency, 44.1 to
16 kHz; aliases are those of tones above 1.1 times that frequency, with all noise:

    method, quality     ripple     aliases   images
    sinc_kaiser         0.000 dB   -140 dB   -140 dB
    soxr very_high      0.006 dB   -158 dB   -152 dB
    soxr high           0.008 dB   -137 dB   -131 dB
    polyphase           0.66 dB    -23 dB    -88 dB
    sinc_hann           2.4 dB     -14 dB    -109 dB

What sinc_kaiser leaves is the rounding of float32; aliases and images themselves are below -145 dB.
The last two exist for parity with models that were trained with them.
"""

import math
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import soxr
from numpy.typing import NDArray

from basilar.dsp import kernel
from basilar.dsp.kernel.tables import Bank, Program, sine

Method = Literal["sinc_kaiser", "soxr", "polyphase", "sinc_hann"]
Quality = Literal["very_high", "high"]

VERSIONS: dict[Method, int] = {"sinc_kaiser": 1, "soxr": 1, "polyphase": 2, "sinc_hann": 2}

_SOXR: dict[str, str] = {"very_high": "VHQ", "high": "HQ"}
_MOST_RATIO = 2**15
_MOST_WEIGHTS = 2**23  # of the filters of all phases
_OUTPUTS = 16  # at least, that a piece of the signal gives
_BLOCK = 1 << 20  # samples of a long signal that are resampled at once

_Samples = NDArray[np.float32]


def resample(
    y: NDArray[np.float32],
    *,
    source_rate: int,
    sample_rate: int,
    method: Method = "sinc_kaiser",
    quality: Quality = "very_high",
) -> NDArray[np.float32]:
    """Resample `y`, float32 (samples,), between two rates in Hz: float32 (samples,).

    `quality` is soxr's. Raises ValueError for an unknown name, for a rate that is not positive or
    more than 32768 times the other, and, except for soxr, for rates that need too many filters.

    >>> resample(np.zeros(44100, np.float32), source_rate=44100, sample_rate=22050).shape
    (22050,)
    """
    _check(source_rate, sample_rate, method, quality)
    if source_rate == sample_rate:
        return y
    if method == "soxr":
        out: _Samples = soxr.resample(y, source_rate, sample_rate, quality=_SOXR[quality])
        return out
    return _Filtered(source_rate, sample_rate, method).resample_chunk(y, last=True)


def resample_blocks(
    blocks: Iterable[NDArray[np.float32]],
    *,
    source_rate: int,
    sample_rate: int,
    method: Method = "sinc_kaiser",
    quality: Quality = "very_high",
) -> Iterator[NDArray[np.float32]]:
    """Resample a signal that comes in blocks, float32 (samples,), and yield the result in blocks.

    It takes little memory. Raises ValueError where `resample` does.

    >>> blocks = [np.zeros(40000, np.float32), np.zeros(4100, np.float32)]
    >>> sum(x.size for x in resample_blocks(blocks, source_rate=44100, sample_rate=22050))
    22050
    """
    options: Any = {"source_rate": source_rate, "sample_rate": sample_rate}
    options |= {"method": method, "quality": quality}
    stream, following = ResampleStream(**options), iter(blocks)
    first, second = next(following, np.empty(0, np.float32)), next(following, None)
    if second is None:  # a short clip: a stream takes longer
        yield resample(np.asarray(first), **options)
        return
    yield stream.push(first)
    yield stream.push(second)
    for block in following:
        yield stream.push(block)
    yield stream.finish()


def in_blocks(y: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    """Cut a long signal (samples,) into blocks for `resample_blocks`.

    >>> [x.shape for x in in_blocks(np.zeros(44100, np.float32))]
    [(44100,)]
    """
    for start in range(0, y.size, _BLOCK):
        yield y[start : start + _BLOCK]


class ResampleStream:
    """`resample` for a signal that arrives in pieces: the same bits, however it is cut.

    Raises ValueError where `resample` does.

    >>> stream = ResampleStream(source_rate=8000, sample_rate=16000)
    >>> y = np.ones(1000, np.float32)
    >>> pieces = [stream.push(y[:300]), stream.push(y[300:]), stream.finish()]
    >>> whole = resample(y, source_rate=8000, sample_rate=16000)
    >>> np.concatenate(pieces).tobytes() == whole.tobytes()
    True
    """

    def __init__(
        self,
        *,
        source_rate: int,
        sample_rate: int,
        method: Method = "sinc_kaiser",
        quality: Quality = "very_high",
    ) -> None:
        _check(source_rate, sample_rate, method, quality)
        self._stream: Any = None
        if source_rate != sample_rate and method == "soxr":
            self._stream = soxr.ResampleStream(
                source_rate, sample_rate, 1, dtype="float32", quality=_SOXR[quality]
            )
        elif source_rate != sample_rate:
            self._stream = _Filtered(source_rate, sample_rate, method)

    def push(self, y: _Samples) -> _Samples:
        """Take the next samples and return those that are ready: float32 (samples,)."""
        if self._stream is None:
            return y
        # soxr accepts no subclass of an array, such as a memory-mapped one.
        ready: _Samples = self._stream.resample_chunk(np.asarray(y), last=False)
        return ready

    def finish(self) -> _Samples:
        """End the signal and return the rest: float32 (samples,)."""
        rest = np.empty(0, np.float32)
        return rest if self._stream is None else self._stream.resample_chunk(rest, last=True)


class _Filtered:
    """A stream of a method that is a filter for each phase, with the interface of soxr's."""

    def __init__(self, source_rate: int, sample_rate: int, method: Method) -> None:
        divisor = math.gcd(source_rate, sample_rate)
        self._up, self._down = sample_rate // divisor, source_rate // divisor
        sinc = _SINCS[method]
        if 2 * sinc.reach(self._up, self._down) * self._up > _MOST_WEIGHTS:
            raise ValueError(
                f'method: "{method}" from {source_rate} to {sample_rate} Hz needs a filter for '
                f'each of {self._up} phases, which are too many; "soxr" does not'
            )
        self._program = _program(self._up, self._down, method)
        before = sinc.reach(self._up, self._down)
        self._waiting = np.zeros(before, np.float32)  # what the next piece begins with
        self._n_in = self._n_out = 0

    def resample_chunk(self, y: _Samples, *, last: bool) -> _Samples:
        """The samples that are ready after the next ones, `y`: float32 (samples,)."""
        hop, length, width = self._program.hop_length, self._program.length, self._program.width
        self._n_in += y.size
        left = -(-self._n_in * self._up // self._down) - self._n_out
        size = there = self._waiting.size + y.size
        if last:  # zeros follow
            size = max(size, (-(-left // width) - 1) * hop + length if left else 0)
        pieces = self._program.n_frames(size)
        # Those that begin before `y`, that lie in it and need no copy, and that end behind it.
        first = min(pieces, -(-self._waiting.size // hop))
        end = max(first, self._program.n_frames(there))
        spans = (
            self._joined(y, 0, (first - 1) * hop + length if first else 0),
            y[first * hop - self._waiting.size :][: (end - first - 1) * hop + length],
            self._joined(y, end * hop, (pieces - 1) * hop + length if pieces > end else 0),
        )
        counts = (first, end - first, pieces - end)
        some = tuple(span for span, count in zip(spans, counts, strict=True) if count)
        out = np.empty((pieces, width), np.float32)
        kernel.plan(self._program).run(some, out)
        self._waiting = self._joined(y, pieces * hop, there)
        ready = out.reshape(-1)[: left if last else None]
        self._n_out += ready.size
        return ready

    def _joined(self, y: _Samples, start: int, stop: int) -> _Samples:
        """Samples from `start` to `stop` of what waits, `y`, and zeros, one after the other."""
        joined = np.zeros(max(0, stop - start), np.float32)
        before = self._waiting[start:stop]
        joined[: before.size] = before
        begin = self._waiting.size
        after = y[max(0, start - begin) : max(0, stop - begin)]
        at = max(0, begin - start)
        joined[at : at + after.size] = after
        return joined


class _Sinc(NamedTuple):
    """A windowed sinc: zero crossings on either side, and where it is cut off.

    `rolloff` is a share of the lower Nyquist frequency; `beta` is Kaiser's, None stands for Hann.
    """

    crossings: int
    beta: float | None
    rolloff: float = 1.0

    def half(self, up: int, down: int) -> int:
        """How far it reaches, in parts of 1 / up of an input."""
        return math.floor(self.crossings * max(up, down) / self.rolloff)

    def reach(self, up: int, down: int) -> int:
        """How far it reaches, in whole inputs."""
        return -(-self.half(up, down) // up)

    def of(self, t: NDArray[Any]) -> NDArray[np.float64]:
        """Its values `t` zero crossings from the middle."""
        x = np.clip(t / self.crossings, -1.0, 1.0)
        zero = t == 0
        sinc = np.where(zero, 1.0, sine(t / 2) / np.where(zero, 1.0, math.pi * t))
        if self.beta is None:
            return sinc * sine(x / 4 + 0.25) ** 2
        return sinc * _bessel(self.beta * np.sqrt(1 - x * x)) / _bessel(np.array(self.beta))


_SINCS: dict[Method, _Sinc] = {
    "sinc_kaiser": _Sinc(48, 14.9),
    "polyphase": _Sinc(10, 5.0),
    "sinc_hann": _Sinc(6, None, 0.99),
}


def _bessel(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """The modified Bessel function of order 0, by its power series: NumPy's takes `exp`."""
    term = np.ones_like(x)
    total = np.ones_like(x)
    for n in range(1, 64):  # of x <= 15 the last term is below 1e-60
        term = term * (x / (2 * n)) * (x / (2 * n))
        total = total + term
    return total


@lru_cache(maxsize=8)
def _program(up: int, down: int, method: Method) -> Program:
    """The filters of the outputs that a piece of the signal gives."""
    sinc = _SINCS[method]
    half, reach = sinc.half(up, down), sinc.reach(up, down)
    phase = np.arange(up)
    # Output p lies at p * down / up inputs; input k is k * up - p * down parts away.
    first = -((half - phase * down) // up)
    inputs = first[:, None] + np.arange(2 * half // up + 1)
    parts = inputs * up - phase[:, None] * down
    weights = sinc.of(parts * (sinc.rolloff / max(up, down))) * (abs(parts) <= half)
    if method == "sinc_hann":
        weights *= sinc.rolloff * min(up, down) / down
    else:
        weights *= up / math.fsum(weights.reshape(-1))  # NumPy's sum has an order of its own
    weights[np.abs(weights) < 1e-12] = 0.0  # where the window ends, or the sinc crosses zero
    repeats = -(-_OUTPUTS // up)
    start = np.concatenate([first + reach + down * i for i in range(repeats)])
    length = down * repeats + 2 * reach
    bank = Bank.cut(length, start, np.tile(weights.astype(np.float32), (repeats, 1)))
    return Program(
        *(np.ones(length, np.float32), down * repeats, length), output="samples", bank=bank
    )


def _check(source_rate: int, sample_rate: int, method: str, quality: str) -> None:
    if method not in get_args(Method):
        raise ValueError(f"method: {method!r} is not one of {', '.join(get_args(Method))}")
    if quality not in get_args(Quality):
        raise ValueError(f"quality: {quality!r} is not one of {', '.join(get_args(Quality))}")
    if source_rate <= 0 or sample_rate <= 0:
        raise ValueError(f"sample_rate: {source_rate} Hz to {sample_rate} Hz is not possible")
    if max(source_rate, sample_rate) > _MOST_RATIO * min(source_rate, sample_rate):
        # At a ratio of a million, soxr does not end.
        raise ValueError(
            f"sample_rate: from {source_rate} to {sample_rate} Hz is a ratio above {_MOST_RATIO}"
        )
