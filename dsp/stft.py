"""The short-time Fourier transform of one or many signals, and what is made of each frame.

Conventions
-----------
* Bin f is at `f * sample_rate / n_fft` Hz, f = 0 … n_fft // 2. No scaling: a full-scale sine on a
  bin has the magnitude `sum(window) / 2`.
* Frames, windows and padding are those of `dsp.framing`; phases are those of the frame's first
  sample, as in librosa and torch.

`dsp.kernel` computes: a frame's bits depend on its own samples alone, for every `n_fft`.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from basilar.dsp import kernel
from basilar.dsp.buffers import Allocate, views
from basilar.dsp.framing import Framing
from basilar.dsp.kernel import Bank, Logarithm, Output, Program
from basilar.dsp.streaming import spans

_SAMPLES = 1 << 18  # of the signals that the kernel gets at once


def over_frames(
    signals: Sequence[NDArray[np.float32]],
    framing: Framing,
    *,
    output: Output = "power",
    bank: Bank | None = None,
    log: Logarithm | None = None,
    empty: Allocate = np.empty,
) -> list[NDArray[np.float32]]:
    """What the kernel makes of all frames of each signal: float32 (frames, width) each.

    `signals` are float32 (samples,). Of a frame's spectrum X, `output` is |X|² (`power`), |X|
    (`magnitude`), or X itself (`complex`: real and imaginary parts by turns). Filters `bank` over
    its bins and a logarithm follow, if given. The width is the number of filters, otherwise of
    bins, doubled for `complex`. The results are views of one array from `empty`. Raises ValueError
    if a signal has no whole frame.

    >>> x, = over_frames([np.ones(64, np.float32)], Framing(n_fft=4, hop_length=4, center=False))
    >>> x.shape, x[0].tolist()
    ((16, 3), [4.0, 1.0, 0.0])
    """
    counts = frame_counts(signals, framing)
    program = _program(framing, output, bank, log)
    plan = kernel.plan(program)
    out_tf = empty((sum(counts), program.width), np.float32)
    row = 0
    for some in _groups(chain.from_iterable(spans(y, framing) for y in signals)):
        count = sum(program.n_frames(span.size) for span in some)
        plan.run(some, out_tf[row : row + count])
        row += count
    return views(out_tf, counts)


def frame_counts(signals: Sequence[NDArray[np.float32]], framing: Framing) -> list[int]:
    """The number of frames of each signal. Raises ValueError if one has none.

    >>> frame_counts([np.zeros(600, np.float32)], Framing(n_fft=512, hop_length=128, center=False))
    [1]
    """
    counts = [framing.n_frames(y.size) for y in signals]
    if not all(counts):
        short = signals[counts.index(0)].size
        raise ValueError(f"a signal of {short} samples has no frame of n_fft = {framing.n_fft}")
    return counts


def stft(
    signals: Sequence[NDArray[np.float32]], framing: Framing, *, empty: Allocate = np.empty
) -> list[NDArray[np.complex64]]:
    """Complex STFT of each signal, float32 (samples,): complex64 (frames, n_fft // 2 + 1).

    The results are views of one array from `empty`. Raises ValueError if a signal has no whole
    frame.

    >>> framing = Framing(n_fft=512, hop_length=128, window="rectangular", center=False)
    >>> stft([np.ones(1000, np.float32)], framing)[0][0, 0]
    np.complex64(512+0j)
    """

    def of_pairs(shape: tuple[int, ...], _: object) -> NDArray[np.float32]:
        return empty((shape[0], shape[1] // 2), np.complex64).view(np.float32)

    parts = over_frames(signals, framing, output="complex", empty=of_pairs)
    return [x.view(np.complex64) for x in parts]


def _groups(
    parts: Iterator[NDArray[np.float32]],
) -> Iterator[tuple[NDArray[np.float32], ...]]:
    """Consecutive spans, some `_SAMPLES` samples together: a call of the kernel costs time."""
    some: list[NDArray[np.float32]] = []
    samples = 0
    for part in parts:
        some.append(part)
        samples += part.size
        if samples >= _SAMPLES:
            yield tuple(some)
            some, samples = [], 0
    if some:
        yield tuple(some)


@lru_cache(maxsize=64)
def _program(framing: Framing, output: Output, bank: Bank | None, log: Logarithm | None) -> Program:
    return Program(
        *(framing.table, framing.hop_length, framing.length),
        preemphasis=framing.preemphasis,
        remove_dc=framing.remove_dc,
        output=output,
        bank=bank,
        log=log,
    )
