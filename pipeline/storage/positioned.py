"""Files opened and read by position, also where the system has no call for it (Windows)."""

import os
import threading
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

# A pipe must not stop us; Windows would translate line ends.
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_CAN_READ_AT = hasattr(os, "preadv")
_seeking = threading.Lock()


def open_to_read(path: Path) -> int:
    """A descriptor of a file; its reader sees whether it is one. Raises OSError."""
    return os.open(path, _FLAGS)


def read_into(descriptor: int, out: NDArray[np.generic], offset: int) -> int:
    """Fill a contiguous array from byte `offset` of a file on; how many bytes came."""
    if _CAN_READ_AT:
        return os.preadv(descriptor, [out.data], offset)
    with _seeking:  # the position is the descriptor's
        os.lseek(descriptor, offset, os.SEEK_SET)
        data = os.read(descriptor, out.nbytes)
    out.reshape(-1).view(np.uint8)[: len(data)] = np.frombuffer(data, np.uint8)
    return len(data)
