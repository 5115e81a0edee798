"""Windows, padding and frames.

Conventions
-----------
* A *centred* frame t is centred on sample `t * hop_length`: the signal is padded with `n_fft // 2`
  samples on both sides. A frame that is not centred starts at sample `t * hop_length`.
* A window of `win_length` samples shorter than `n_fft` sits in the middle of the frame, after
  `(n_fft - win_length) // 2` zeros (`align` `center`: librosa, torch), or at its start, so that a
  frame covers `win_length` samples, followed by zeros (`left`: Kaldi, HTK, VGGish).
* Kaldi's conditioning acts within each frame, before the window: it subtracts the frame's mean
  (`remove_dc`), then computes y[n] - preemphasis * y[n-1], with y[0] for y[-1]. Both are linear, so
  the frame is pre-emphasised before (1 - preemphasis) * mean is subtracted. `dsp.kernel` does it.
* *Periodic* windows (for spectral analysis) are one period of a cosine sum of period `win_length`;
  *symmetric* ones (for filter design) have period `win_length - 1`. `povey` is Kaldi's: a Hann
  window to the power of 0.85.
"""

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from basilar.dsp.buffers import Allocate, row_blocks

WindowKind = Literal["hann", "hamming", "blackman", "povey", "rectangular"]
PadMode = Literal["reflect", "symmetric", "constant", "edge"]
Align = Literal["center", "left"]
_PAD_MODES = get_args(PadMode)

_COSINES: dict[str, tuple[float, ...]] = {
    "hann": (0.5, 0.5),
    "hamming": (0.54, 0.46),
    "blackman": (0.42, 0.5, 0.08),
    "povey": (0.5, 0.5),
    "rectangular": (1.0,),
}


@lru_cache(maxsize=32)
def window(
    kind: WindowKind,
    *,
    win_length: int,
    n_fft: int,
    periodic: bool = True,
    align: Align = "center",
) -> NDArray[np.float32]:
    """A window of `win_length` samples in a frame of `n_fft`: float32 (n_fft,), read-only.

    The generalised cosine windows of Harris, "On the use of windows for harmonic analysis with the
    discrete Fourier transform", Proc. IEEE 66(1), 1978, computed in float64 and then rounded.
    Raises ValueError for an unknown kind or a window longer than the frame.

    >>> window("hann", win_length=4, n_fft=6).tolist()
    [0.0, 0.0, 0.5, 1.0, 0.5, 0.0]
    """
    if kind not in _COSINES:
        raise ValueError(f"window: {kind!r} is not one of {', '.join(get_args(WindowKind))}")
    if not 1 <= win_length <= n_fft:
        raise ValueError(f"win_length: {win_length} samples do not fit into n_fft = {n_fft}")
    period = win_length if periodic else win_length - 1
    # A window of one sample is its own maximum, at the middle of the period.
    place = np.arange(win_length) / period if win_length > 1 else np.full(1, 0.5)
    phase = 2 * np.pi * place
    values = np.zeros(win_length)
    for k, weight in enumerate(_COSINES[kind]):
        values += (-1) ** k * weight * np.cos(k * phase)
    table = np.zeros(n_fft, np.float32)
    start = (n_fft - win_length) // 2 if align == "center" else 0
    # A value below 1e-12 is a rounding error: where a window touches zero, it is zero.
    values[np.abs(values) < 1e-12] = 0.0
    table[start : start + win_length] = values**0.85 if kind == "povey" else values
    table.setflags(write=False)
    return table


def pad(
    y: NDArray[np.float32], *, width: int, mode: PadMode, empty: Allocate = np.empty
) -> NDArray[np.float32]:
    """Extend `y` (samples,) by `width` samples on both sides: float32 (samples + 2 * width,).

    `reflect` mirrors about the first and the last sample without repeating them, `symmetric`
    repeats them; both go back and forth if the signal is shorter than `width`. `edge` repeats the
    outermost sample; `constant` is 0. Raises ValueError for an unknown mode.

    >>> pad(np.array([1, 2, 3], np.float32), width=2, mode="reflect").tolist()
    [3.0, 2.0, 1.0, 2.0, 3.0, 2.0, 1.0]
    """
    if mode not in _PAD_MODES:
        raise ValueError(f"pad_mode: {mode!r} is not one of {', '.join(_PAD_MODES)}")
    if mode in ("symmetric", "reflect") and y.size <= width:
        return np.pad(y, width, mode=mode)
    padded = empty((y.size + 2 * width,), np.float32)
    padded[width : width + y.size] = y
    if mode == "reflect":
        padded[:width] = y[width:0:-1]
        padded[width + y.size :] = y[-2 : -2 - width : -1]
    elif mode == "symmetric":
        padded[:width] = y[:width][::-1]
        padded[width + y.size :] = y[y.size - width :][::-1]
    else:
        padded[:width] = y[0] if mode == "edge" else 0.0
        padded[width + y.size :] = y[-1] if mode == "edge" else 0.0
    return padded


@dataclass(frozen=True)
class Framing:
    """How a signal is cut into windowed frames; all lengths in samples.

    `win_length` None means `n_fft`. `scale` multiplies the samples (32768 for libraries that expect
    16-bit integers). `drop_last` leaves out the last frame, as Whisper does. Raises ValueError for
    lengths below one sample, a window that does not fit into the frame, or unknown names.

    >>> Framing(n_fft=512, hop_length=128).n_frames(110250)
    862
    >>> Framing(n_fft=512, hop_length=128, center=False).n_frames(511)
    0
    """

    n_fft: int
    hop_length: int
    win_length: int | None = None
    window: WindowKind = "hann"
    periodic: bool = True
    center: bool = True
    pad_mode: PadMode = "constant"
    align: Align = "center"
    drop_last: bool = False
    scale: float = 1.0
    remove_dc: bool = False
    preemphasis: float = 0.0

    def __post_init__(self) -> None:
        if self.n_fft < 1 or self.hop_length < 1:
            raise ValueError(
                f"n_fft, hop_length: {self.n_fft}, {self.hop_length} must be 1 sample or more"
            )
        if self.pad_mode not in get_args(PadMode):
            raise ValueError(
                f"pad_mode: {self.pad_mode!r} is not one of {', '.join(get_args(PadMode))}"
            )
        if self.align not in get_args(Align):
            raise ValueError(f"align: {self.align!r} is not one of {', '.join(get_args(Align))}")
        _ = self.table

    @cached_property
    def length(self) -> int:
        """Samples of the signal that one frame covers."""
        return self.n_fft if self.align == "center" or not self.win_length else self.win_length

    @property
    def n_bins(self) -> int:
        """Frequency bins of a frame's spectrum, 0 Hz to half the sample rate."""
        return self.n_fft // 2 + 1

    @cached_property
    def table(self) -> NDArray[np.float32]:
        """The window over an FFT's frame, times `scale`: float32 (n_fft,), read-only."""
        unscaled = window(
            self.window,
            win_length=self.n_fft if self.win_length is None else self.win_length,
            n_fft=self.n_fft,
            periodic=self.periodic,
            align=self.align,
        )
        table = unscaled * np.float32(self.scale)
        table.flags.writeable = False
        return table

    def n_frames(self, n_samples: int) -> int:
        """How many frames a signal of `n_samples` has; 0 if it is shorter than one frame."""
        padded = n_samples + 2 * (self.length // 2) if self.center and n_samples else n_samples
        return max(0, 1 + (padded - self.length) // self.hop_length - self.drop_last)

    def padded(self, y: NDArray[np.float32]) -> NDArray[np.float32]:
        """The signal that frames are cut from: float32 (samples,), `y` itself if not centred."""
        if self.center:
            return pad(y, width=self.length // 2, mode=self.pad_mode)
        return np.ascontiguousarray(y, np.float32)

    @cached_property
    def bare(self) -> "Framing":
        """The same framing without padding: that of a span of `dsp.streaming`."""
        return replace(self, center=False, drop_last=False)

    def frames(self, y: NDArray[np.float32]) -> NDArray[np.float32]:
        """The frames of `y` (samples,), not yet windowed: a read-only view (frames, length).

        >>> y = np.arange(6, dtype=np.float32)
        >>> Framing(n_fft=4, hop_length=2, center=False).frames(y).tolist()
        [[0.0, 1.0, 2.0, 3.0], [2.0, 3.0, 4.0, 5.0]]
        """
        view = self._view(self.padded(y), self.n_frames(y.size))
        view.flags.writeable = False
        return view

    def _view(self, samples: NDArray[np.float32], count: int) -> NDArray[np.float32]:
        # Like as_strided, which takes ten times as long; with many short clips, that matters.
        shape, strides = (count, self.length), (4 * self.hop_length, 4)
        return np.ndarray(shape, np.float32, samples, 0, strides)

    def energies(self, y: NDArray[np.float32]) -> NDArray[np.float32]:
        """Energy of each frame of `y` before pre-emphasis and window: float32 (frames,).

        The sum of squares of the scaled samples, less their mean with `remove_dc`: Kaldi's raw
        energy.
        """
        frames_tn = self.frames(y)
        energies = np.empty(len(frames_tn), np.float32)
        for part in row_blocks(frames_tn):
            scaled_tn = frames_tn[part] * np.float32(self.scale)
            if self.remove_dc:
                scaled_tn -= row_sums(scaled_tn)[:, None] * np.float32(1 / self.length)
            energies[part] = row_sums(scaled_tn * scaled_tn)
        return energies


def row_sums(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Sums of the rows of `x` (rows, columns), halves added onto halves: float32 (rows,).

    The order of NumPy's own sum along the contiguous axis differs between processors.

    >>> row_sums(np.arange(6, dtype=np.float32).reshape(2, 3)).tolist()
    [3.0, 12.0]
    """
    part = x
    while part.shape[1] > 1:
        half = (part.shape[1] + 1) // 2
        folded = part[:, :half].copy()
        folded[:, : part.shape[1] - half] += part[:, half:]
        part = folded
    return part[:, 0]
