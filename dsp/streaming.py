"""Frames of a signal that arrives in pieces, with the bits of the whole.

A frame's values depend on its own samples alone, so a stream needs nothing but bookkeeping: it
keeps the samples that later frames need, pads the start once there are enough samples for that, and
pads the end when the signal ends. The frames do not depend on the pieces.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from basilar.dsp.framing import Framing, pad

_SPAN = 1 << 18  # samples at most that are padded, or returned, at once


def spans(y: NDArray[np.float32], framing: Framing) -> Iterator[NDArray[np.float32]]:
    """The spans of whole frames of a signal, float32 (samples,); `framing.bare` cuts the frames.

    A long signal has several. Only spans with padding are copies; do not change the others.

    >>> framing = Framing(n_fft=4, hop_length=2)
    >>> [framing.bare.frames(x).tolist() for x in spans(np.ones(3, np.float32), framing)]
    [[[0.0, 0.0, 1.0, 1.0], [1.0, 1.0, 1.0, 0.0]]]
    """
    y = np.ascontiguousarray(y, np.float32)
    if not (count := framing.n_frames(y.size)):
        return
    hop_length, length = framing.hop_length, framing.length
    width = length // 2 if framing.center else 0
    # Frames from `first` on, and before `last`, need no padding.
    first = -(-width // hop_length)
    last = min(count, (y.size + width - length) // hop_length + 1)
    if y.size <= _SPAN or first >= last:
        yield framing.padded(y)[: (count - 1) * hop_length + length]
        return
    if first:
        end = (first - 1) * hop_length + length
        head = y[: max(end - width, width + 1)]  # a reflection needs a sample more than its width
        yield pad(head, width=width, mode=framing.pad_mode)[:end]
    step = max(1, _SPAN // hop_length)
    for frame in range(first, last, step):
        begin, end = frame * hop_length, (min(frame + step, last) - 1) * hop_length + length
        yield y[begin - width : end - width]
    if last < count:
        begin = min(last * hop_length - width, y.size - width - 1)
        tail = pad(y[begin:], width=width, mode=framing.pad_mode)
        yield tail[last * hop_length - begin : (count - 1) * hop_length + length - begin]


class FrameStream:
    """Cuts a signal that arrives piece by piece into spans of whole frames.

    `push` and `finish` return the float32 samples of the next frames and nothing beyond, which
    `framing.bare` cuts; they are empty if no frame is complete.

    >>> stream = FrameStream(Framing(n_fft=4, hop_length=2))
    >>> y = np.arange(1, 7, dtype=np.float32)
    >>> spans = [stream.push(y[:3]), stream.push(y[3:]), stream.finish()]
    >>> [span.tolist() for span in spans]
    [[0.0, 0.0, 1.0, 2.0], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [5.0, 6.0, 0.0, 0.0]]
    """

    def __init__(self, framing: Framing) -> None:
        self._framing = framing
        self._width = framing.length // 2 if framing.center else 0
        self._samples = np.empty(0, np.float32)  # from the first that is still needed
        self._first = 0  # the place of that sample in the padded signal
        self._frame = 0  # the next frame to return
        self._seen = 0
        self._padded = self._width == 0  # whether the padding at the start was made

    def push(self, y: NDArray[np.float32]) -> NDArray[np.float32]:
        """Take any number of samples (samples,) and return the span of the frames they complete."""
        self._samples = np.concatenate([self._samples, np.asarray(y, np.float32)])
        self._seen += len(y)
        if not self._padded:
            if self._seen <= self._width:  # a reflection needs one sample more than it is wide
                return self._samples[:0]
            start = pad(self._samples, width=self._width, mode=self._framing.pad_mode)
            self._samples = start[: self._width + self._seen]
            self._padded = True
        # With `drop_last` one frame waits: only the end shows which is the last.
        return self._take(self._complete() - self._framing.drop_last)

    def finish(self) -> NDArray[np.float32]:
        """End the signal and return the span of its last frames, padding included."""
        if self._seen and self._width:
            if not self._padded:
                self._samples = pad(self._samples, width=self._width, mode=self._framing.pad_mode)
            else:
                # What was kept reaches back far enough for any padding of the end.
                end = pad(self._samples, width=self._width, mode=self._framing.pad_mode)
                self._samples = end[self._width :]
        return self._take(self._framing.n_frames(self._seen))

    def _complete(self) -> int:
        """The number of frames within the samples received so far."""
        f = self._framing
        return max(0, 1 + (self._first + len(self._samples) - f.length) // f.hop_length)

    def _take(self, frames: int) -> NDArray[np.float32]:
        """The span of all frames up to `frames` that were not returned yet."""
        f = self._framing
        if frames <= self._frame:
            return self._samples[:0]
        begin = self._frame * f.hop_length - self._first
        span = self._samples[begin : (frames - 1) * f.hop_length + f.length - self._first]
        self._frame = frames
        # Later frames need what starts at the next one; the padding of the end may mirror
        # `width` + 1 samples more.
        needed = min(frames * f.hop_length - self._first, len(self._samples) - self._width - 1)
        if needed > 0:
            self._samples = self._samples[needed:]
            self._first += needed
        return span
