"""Signals and results that need not fit into memory: in temporary files, memory-mapped.

Their pages are the system's cache: it writes them to the disk and drops them as it needs room, and
the disk's are given back when the last array is gone, also if the process dies.
"""

import math
import mmap
import os
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from basilar.dsp.buffers import Allocate

IN_MEMORY = 64 << 20  # bytes
_ALIGNMENT = 64  # bytes
_SETTLED_AT_ONCE = 16 << 20  # bytes


def scratch_allocator(folder: Path | None) -> Allocate:
    """A replacement for `np.empty` where arrays may be long, or many, so that most are in files.

    Arrays are ordinary ones as long as they fit into 64 MiB together. The others are in files in
    `folder`: None is the system's folder for temporary files, which may be memory. The arrays raise
    OSError when they are made if the disk has no room for them.

    >>> scratch_allocator(None)((2, 3), np.float32).shape
    (2, 3)
    """
    left = IN_MEMORY

    def empty(shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        nonlocal left
        size = math.prod(shape) * np.dtype(dtype).itemsize
        if size > left:
            return _in_file(folder, shape, dtype, size)
        left -= size
        return np.empty(shape, dtype)

    return empty


def release_pages(arrays: Iterable[NDArray[Any]]) -> None:
    """Let the system have the memory that holds what was read of mapped files."""
    for mapped in {id(file): file for file in map(_mapped, arrays)}.values():
        if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
            mapped.madvise(mmap.MADV_DONTNEED)


def _mapped(x: Any) -> mmap.mmap | None:
    """The file that an array's memory belongs to, if there is one."""
    while isinstance(x, np.ndarray):
        x = x.base
    found = x.obj if isinstance(x, memoryview) else x
    return found if isinstance(found, mmap.mmap) else None


def _in_file(folder: Path | None, shape: tuple[int, ...], dtype: Any, size: int) -> NDArray[Any]:
    with _named(folder), temporary_file(folder) as file:
        if hasattr(os, "posix_fallocate"):
            # Otherwise a full disk would kill the process that writes to the array.
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            os.ftruncate(file.fileno(), size)
        return np.frombuffer(mmap.mmap(file.fileno(), size), dtype).reshape(shape)


def temporary_file(folder: Path | None) -> IO[bytes]:
    """An empty file for reading and writing, which is gone when the last process has closed it."""
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    return tempfile.TemporaryFile(dir=folder, buffering=0)


@contextmanager
def _named(folder: Path | None) -> Iterator[None]:
    """Let errors that name no file name the folder."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        named = tempfile.gettempdir() if folder is None else os.fspath(folder)
        raise OSError(error.errno, error.strerror, named) from error


class SignalSpan(NamedTuple):
    """The position of a signal in a spool: its first byte, its samples, and their CRC-32."""

    begin: int
    samples: int
    crc32: int

    def of(self, mapped: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The signal, float32 (samples,), in the mapped bytes of its spool."""
        return mapped[self.begin : self.begin + 4 * self.samples].view(np.float32)


class Spool:
    """float32 signals that are written one after the other, and then mapped; a context manager.

    Children that were forked inside the context may write, one at a time. A spool is a temporary
    file in `folder`, or by `Spool.at` a file that stays.
    """

    def __init__(self, folder: Path | None, *, stays: IO[bytes] | None = None) -> None:
        self._folder, self._stays, self._settled = folder, stays is not None, 0
        with _named(folder):
            self._file = stays or temporary_file(folder)

    @classmethod
    def at(cls, path: Path) -> Self:
        """A spool that becomes the file at a path, which must not be there."""
        return cls(path.parent, stays=path.open("xb+", buffering=0))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def put(self, blocks: Iterable[NDArray[np.float32]]) -> SignalSpan:
        """Append a signal, float32 (samples,), that comes in blocks."""
        # Behind whatever a child that died left there.
        file = self._file.fileno()
        begin = -(-os.fstat(file).st_size // _ALIGNMENT) * _ALIGNMENT
        os.lseek(file, begin, os.SEEK_SET)
        samples = crc32 = 0
        try:
            for block in blocks:
                view = np.ascontiguousarray(block).data.cast("B")
                samples, crc32 = samples + block.size, zlib.crc32(view, crc32)
                while view:
                    with _named(self._folder):
                        view = view[os.write(file, view) :]
        except Exception:
            os.ftruncate(file, begin)
            raise
        return SignalSpan(begin, samples, crc32)

    def settle(self, span: SignalSpan) -> None:
        """Write what is before the end of `span` to the disk step by step, if the file is to stay.

        Called while waiting for the children, so that little is left when the file is committed.
        """
        end = span.begin + 4 * span.samples
        if self._stays and end - self._settled >= _SETTLED_AT_ONCE:
            with _named(self._folder):
                os.fdatasync(self._file.fileno())
            self._settled = end

    def mapped(self) -> NDArray[np.uint8]:
        """The bytes of all signals (`SignalSpan.of`), read-only; they outlive the context."""
        if not os.fstat(self._file.fileno()).st_size:
            return np.empty(0, np.uint8)
        return np.frombuffer(mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
