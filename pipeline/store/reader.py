"""Rows of a feature set, read straight from its Zarr shard files (`store.layout`).

Uncompressed chunks, one after the other, are one C-order array: it is mapped, or read into the
caller's array. Blosc chunks are decoded one by one. An array of any other layout is left to
zarr-python. Shard files are never rewritten in place: what is checked when one is opened stays so.
"""

import os
import struct
import threading
import warnings
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numcodecs import blosc
from numpy.typing import NDArray

from basilar.pipeline import storage
from basilar.pipeline.errors import DamagedArtifactError
from basilar.pipeline.storage.files import read_json
from basilar.pipeline.store.layout import ForeignLayoutError, Layout, open_zarr

try:
    import resource
except ImportError:  # Windows, which lets a process have 512 files
    _MOST_OPEN = 256
else:
    _MOST_OPEN = min(512, max(0, resource.getrlimit(resource.RLIMIT_NOFILE)[0]) // 2 or 512)
from basilar.pipeline.storage.memory import usable_memory
from basilar.pipeline.store.shard_file import HEADER, LEFT_OUT, ShardFile

Access = Literal["auto", "map", "read"]
_SAMPLED = 32  # files whose sizes stand for all
_MOST_CHUNKS = 64  # that are fetched together
_LARGEST_CHUNK = 2**27  # bytes, twice what a recipe may ask for
_BUFFER_BYTES = 512 * 1024  # bytes of Blosc frames that are read together


class RowReader:
    """Rows of a sharded Zarr array (row, bin), read straight from its shard files.

    `folder` is the array's. `access` is "map" (shard files are mapped into memory), "read" (rows
    are read or decoded at each call, and memory stays flat) or "auto": map if the files fit into
    `memory_limit` bytes, by default half of the memory this process may use. Compressed chunks are
    decoded at each call, from the map or from what was read. Of a folder in an object store, shard
    files are kept in its cache, `cache_bytes` of them. The attribute `access` is what was
    chosen, or "zarr" for a layout that only zarr-python can read, of which a RuntimeWarning tells.

    Files are opened when they are first read, and at most 512 stay open (half of RLIMIT_NOFILE if
    that is less). Threads and forked processes may share an instance; it pickles as its arguments.

    Methods that read raise IndexError for rows that are not in the array, FileNotFoundError for a
    missing shard file and DamagedArtifactError for a damaged one.
    """

    def __init__(
        self,
        folder: Path,
        *,
        access: Access = "auto",
        memory_limit: int | None = None,
        cache_bytes: int | None = None,
    ) -> None:
        if access not in get_args(Access):
            raise ValueError(f"access is {access!r}, not one of {get_args(Access)}")
        self._folder = folder
        self._settings: dict[str, Any] = {
            **{"access": access, "memory_limit": memory_limit, "cache_bytes": cache_bytes}
        }
        self._files: dict[int, ShardFile] = {}
        self._zarr: Any = None
        self.shape: tuple[int, int]
        self.dtype: np.dtype[Any]
        self.access: Literal["map", "read", "zarr"] = "read"
        self._copies = True  # what `read` gives, where it is asked to read into an array
        try:
            self._layout = Layout.of(read_json(folder / "zarr.json"))
        except ForeignLayoutError as error:
            self._leave_to_zarr(error)
            return
        self.shape, self.dtype, chunk_rows, self.shard_rows, compressed = self._layout
        n_files = -(-self.shape[0] // self.shard_rows)
        with suppress(FileNotFoundError):  # reading it says so
            remote = storage.is_remote(folder)  # where its files come when they are asked for
            there = n_files if remote else sum(1 for _ in os.scandir(folder / "c"))
            if chunk_rows * self._layout.row_bytes > _LARGEST_CHUNK or n_files > there:
                raise DamagedArtifactError(
                    f"{folder}: it says that it has {self.shape[0]} rows in {n_files} files and "
                    f"chunks of {chunk_rows} rows, which it cannot; basilar verify says more"
                )
        self._scratch = _Scratch(self._layout)
        if access == "auto":
            limit = usable_memory() // 2 if memory_limit is None else memory_limit
            access = "map" if self._size() <= limit else "read"
        self.access = access
        self._copies = access == "map" and not compressed

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(RowReader, self._folder, **self._settings), ()

    def read(self, first: int, stop: int) -> NDArray[Any]:
        """Rows `first` to `stop` (exclusive), an array (stop - first, bins).

        It is a read-only view if the rows lie in one mapped file, which the view keeps open, and
        a new array otherwise.
        """
        file = self._files.get(first // self.shard_rows)
        if file is not None and first <= stop <= file.stop:
            return file.part(first - file.first, stop - file.first)
        self._check(first, stop)
        if self._zarr is not None:
            return np.asarray(self._zarr[first:stop])
        if self.access == "map" and first < stop:
            file = self._file(first // self.shard_rows)
            if stop <= file.stop:
                return file.part(first - file.first, stop - file.first)
        out = np.empty((stop - first, self.shape[1]), self.dtype)
        self._fill(first, out)
        return out

    def read_into(self, first: int, out: NDArray[Any]) -> None:
        """Fill `out` (n, bins) with rows `first` to `first + n`, converted to its dtype."""
        n, bins = out.shape
        if bins != self.shape[1]:
            raise ValueError(f"{self._folder}: rows of {self.shape[1]} bins, but out has {bins}")
        if self._copies or out.dtype != self.dtype or not out.flags.c_contiguous:
            out[...] = self.read(first, first + n)
        else:
            self._check(first, first + n)
            self._fill(first, out)

    def close(self) -> None:
        """Close the files, and maps with their last view. Reading again opens them again."""
        self._files.clear()

    def _size(self) -> int:
        """Bytes of all shard files, judged by the sizes of some."""
        n_files = -(-self.shape[0] // self.shard_rows)
        numbers = range(0, n_files, n_files // _SAMPLED + 1)
        sizes = [0]
        for number in numbers:
            with suppress(FileNotFoundError):  # reading it says so
                sizes.append(self._path(number).stat().st_size)
        return n_files * sum(sizes) // max(1, len(numbers))

    def _path(self, number: int) -> Path:
        return self._folder / "c" / str(number) / "0"

    def _check(self, first: int, stop: int) -> None:
        if not 0 <= first <= stop <= self.shape[0]:
            raise IndexError(f"{self._folder}: rows {first} to {stop} of {self.shape[0]}")

    def _file(self, number: int) -> "ShardFile":
        """A shard file, opened if it is not. What was opened first is closed first.

        Without a lock, which a fork could leave locked: at worst two threads open the same file.
        """
        file = self._files.get(number)
        if file is None:
            mapped, first = self.access == "map", number * self.shard_rows
            opens = partial(ShardFile, layout=self._layout, first=first, mapped=mapped)
            file = storage.use(self._path(number), opens, self._settings["cache_bytes"])
            self._files[number] = file
            while len(self._files) > _MOST_OPEN:
                self._files.pop([*self._files][0], None)  # noqa: RUF015  # in one step for threads
        return file

    def _fill(self, first: int, out: NDArray[Any]) -> None:
        """Fill a contiguous array of this dtype, file by file and chunk by chunk."""
        layout = self._layout
        while len(out):
            number, row = divmod(first, layout.shard_rows)
            file = self._file(number)
            if row < file.in_order:
                part = out[: file.in_order - row]
                if file.fd < 0:
                    part[...] = file.part(row, row + len(part))
                else:
                    file.read_into(part, row * layout.row_bytes)
            else:
                chunk, skip = divmod(row, layout.chunk_rows)
                part = out[: layout.chunk_rows - skip]
                offset = int(file.index[chunk, 0])
                if offset == LEFT_OUT:
                    part.view(part.real.dtype).fill(np.nan)
                elif layout.compressed:
                    last = (row + len(out) - 1) // layout.chunk_rows
                    self._decode(file, chunk, last, skip, part)
                else:
                    file.read_into(part, offset + skip * layout.row_bytes)
            first += len(part)
            out = out[len(part) :]

    def _leave_to_zarr(self, error: ForeignLayoutError) -> None:
        message = f"{self._folder} is read through zarr-python, which is slow: {error}"
        warnings.warn(message, RuntimeWarning, stacklevel=3)
        self._zarr = open_zarr(self._folder)
        self.shape, self.dtype = self._zarr.shape, self._zarr.dtype
        self.shard_rows = (self._zarr.shards or self._zarr.chunks)[0]
        self.access = "zarr"

    def _decode(
        self, file: "ShardFile", chunk: int, last: int, skip: int, out: NDArray[Any]
    ) -> None:
        """Fill `out` from row `skip` on of a Blosc chunk; chunks up to `last` are asked for next.

        A chunk that is wanted whole is decoded where it is wanted; of another, all rows are kept
        until this thread decodes the next.
        """
        scratch = self._scratch
        if scratch.chunk == (file.first, chunk):
            out[...] = scratch.rows[skip : skip + len(out)]
            return
        whole = len(out) == len(scratch.rows)
        rows = out if whole else scratch.rows
        stored = self._stored_chunk(file, chunk, last)
        if struct.unpack_from("<4xI4xI", stored.data) != (rows.nbytes, stored.size):
            raise file.damaged(f"chunk {chunk} is not of its length")
        scratch.chunk = None if rows is scratch.rows else scratch.chunk
        try:
            blosc.decompress(stored, rows)
        except RuntimeError as error:
            raise file.damaged(f"chunk {chunk}: {error}") from error
        if not whole:
            scratch.chunk = (file.first, chunk)
            out[...] = rows[skip : skip + len(out)]

    def _stored_chunk(self, file: "ShardFile", chunk: int, last: int) -> NDArray[np.uint8]:
        """The Blosc frame of a chunk: mapped, or in this thread's buffer until its next call.

        The frames up to chunk `last`, which is next, are fetched with it: in two calls they would
        look like a file that is read from end to end, and the system would read ahead.
        """
        scratch = self._scratch
        offset, length = file.index[chunk].tolist()
        end = offset + length
        if not (scratch.file == file.first and scratch.begin <= offset and end <= scratch.end):
            following = file.index[chunk + 1 : last + 1][:_MOST_CHUNKS]
            for next_offset, next_length in following.tolist():
                if next_offset != end or end + next_length - offset > scratch.buffer.size:
                    break
                end += next_length
            scratch.file = -1
            if file.fd < 0:
                file.part(offset, end)
            else:
                file.read_into(scratch.buffer[: end - offset], offset)
            scratch.file, scratch.begin, scratch.end = file.first, offset, end
        if file.fd < 0:
            return file.part(offset, offset + length)
        return scratch.buffer[offset - scratch.begin :][:length]


class _Scratch(threading.local):
    """Buffers of one thread: Blosc frames of a file, and the rows of the chunk decoded last."""

    def __init__(self, layout: Layout) -> None:
        self.rows = np.empty((layout.chunk_rows, layout.shape[1]), layout.dtype)
        self.chunk: tuple[int, int] | None = None  # the first row of its file, its number there
        self.buffer = np.empty(max(_BUFFER_BYTES, self.rows.nbytes + HEADER), np.uint8)
        self.file, self.begin, self.end = -1, 0, 0  # its first row, and the bytes of it
