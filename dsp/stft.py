"""The short-time Fourier transform of one or many signals.

Conventions
-----------
* Bin f is at `f * sample_rate / n_fft` Hz, f = 0 … n_fft // 2. No scaling: a full-scale sine on a
  bin has the magnitude `sum(window) / 2`.
* Frames, windows and padding are those of `dsp.framing`; phases are those of the frame's first
  sample, as in librosa and torch.

Many signals share one block of frames, so that short clips cost no more than long ones. A frame's
bits depend neither on its neighbours nor on its position in the block: the FFT gets rows in
multiples of 16, since SciPy may compute left-over rows in another order. Bits are promised for
`n_fft` up to 8192 without prime factors above 5 (`is_portable`).
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from basilar.dsp.buffers import Allocate, keep_freed_memory, views
from basilar.dsp.framing import Framing
from basilar.dsp.streaming import spans


def is_portable(n_fft: int) -> bool:
    """Whether an FFT of `n_fft` real samples gives the same bits in every supported SciPy.

    >>> is_portable(2048), is_portable(400), is_portable(2039), is_portable(16384)
    (True, True, False, False)
    """
    rest = n_fft
    for prime in (2, 3, 5):
        while rest % prime == 0:
            rest //= prime
    return rest == 1 and n_fft <= 8192


def spectra(
    signals: Sequence[NDArray[np.float32]], framing: Framing, *, bins_first: bool
) -> Iterator[NDArray[np.complex64]]:
    """Spectra of all frames of all signals, in order: blocks of complex64.

    Blocks are (bins, frames) with `bins_first`, else (frames, bins); either costs the same.
    `signals` are float32 (samples,) each. The frames of one follow those of the one before it
    without a gap, across block borders. The last block ends in spectra of zeros, up to a multiple
    of 16 frames. The caller may overwrite a block.
    """
    keep_freed_memory()
    count = sum(framing.n_frames(y.size) for y in signals)
    rows = min(_block_rows(framing.n_fft), _whole(count))
    block_tn = np.empty((rows, framing.n_fft), np.float32)
    filled = 0
    for span in chain.from_iterable(spans(y, framing) for y in signals):
        count, first = framing.bare.n_frames(span.size), 0
        while first < count:
            taken = min(rows - filled, count - first)
            framing.cut(span, first, out=block_tn[filled : filled + taken])
            first += taken
            filled += taken
            if filled == rows:
                yield _transformed(block_tn, framing, bins_first)
                filled = 0
    if filled:
        block_tn[filled:] = 0
        yield _transformed(block_tn[: _whole(filled)], framing, bins_first)


def _transformed(
    rows_tn: NDArray[np.float32], framing: Framing, bins_first: bool
) -> NDArray[np.complex64]:
    """The spectra of frames, which are overwritten."""
    framing.apply_window(rows_tn)
    # Transposed on the way in, the result comes out transposed at no cost.
    return scipy.fft.rfft(rows_tn.T, axis=0) if bins_first else scipy.fft.rfft(rows_tn, axis=1)


def _whole(rows: int) -> int:
    """`rows` rounded up to a multiple of 16."""
    return -(-rows // 16) * 16


def _block_rows(n_fft: int) -> int:
    """The number of frames in a block that keeps its temporaries in a core's cache.

    Not a power of two, which would crowd the values of a column into a few sets of the cache.
    """
    return _whole(131_072 // n_fft + 1)


def over_frames(
    signals: Sequence[NDArray[np.float32]],
    framing: Framing,
    function: Callable[[NDArray[np.complex64]], NDArray[Any]],
    *,
    n_bins: int,
    bins_first: bool,
    dtype: type[np.generic] = np.float32,
    empty: Allocate = np.empty,
) -> list[NDArray[Any]]:
    """Apply `function` to blocks of spectra and divide the result by signal: (frames, n_bins) each.

    `function` takes complex64 (n_fft // 2 + 1, frames of a block), which it may overwrite, and
    returns (n_bins, frames of the block); both are (frames, …) without `bins_first`. Its result for
    a frame must depend on that frame alone. The results are views of one array of `dtype` from
    `empty`. Raises ValueError if a signal has no whole frame.
    """
    counts = [framing.n_frames(y.size) for y in signals]
    if not all(counts):
        short = signals[counts.index(0)].size
        raise ValueError(f"a signal of {short} samples has no frame of n_fft = {framing.n_fft}")
    out_tf = empty((sum(counts), n_bins), dtype)
    row = 0
    for spectrum in spectra(signals, framing, bins_first=bins_first):
        block = function(spectrum).T if bins_first else function(spectrum)
        part = out_tf[row : row + len(block)]
        part[:] = block[: len(part)]
        row += len(part)
    return views(out_tf, counts)


def power_spectrum(spectrum: NDArray[np.complex64]) -> NDArray[np.float32]:
    """|X|² of a spectrum, complex64 with two axes, which it overwrites: float32, the same shape.

    Real and imaginary parts are squared and added one by one, since NumPy's complex multiply and
    `abs` differ between processors.

    >>> power_spectrum(np.array([[3 + 4j]], np.complex64)).tolist()
    [[25.0]]
    """
    parts = spectrum.view(np.float32)
    np.multiply(parts, parts, out=parts)
    return parts[:, 0::2] + parts[:, 1::2]


def stft(y: NDArray[np.float32], framing: Framing) -> NDArray[np.complex64]:
    """Complex STFT of `y` (samples,) float32: complex64 (frames, n_fft // 2 + 1).

    Raises ValueError if the signal has no whole frame.

    >>> y = np.ones(1000, np.float32)
    >>> stft(y, Framing(n_fft=512, hop_length=128, window="rectangular", center=False))[0, 0]
    np.complex64(512+0j)
    """
    (x,) = over_frames(
        [y], framing, lambda x: x, n_bins=framing.n_bins, bins_first=False, dtype=np.complex64
    )
    return x
