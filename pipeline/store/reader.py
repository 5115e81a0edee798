"""Rows of a feature set, read straight from its Zarr shard files (`store.layout`).

Uncompressed chunks, one after the other, are one C-order array: it is mapped, or read into the
caller's array. Blosc chunks are decoded one by one. An array of any other layout is left to
zarr-python. Shard files are never rewritten in place: what is checked when one is opened stays so.
"""

import mmap
import os
import stat
import struct
import threading
import warnings
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import google_crc32c
import numpy as np
from numcodecs import blosc
from numpy.typing import NDArray

from basilar.pipeline import storage
from basilar.pipeline.errors import DamagedArtifactError
from basilar.pipeline.storage.files import read_json
from basilar.pipeline.storage.positioned import open_to_read, read_into
from basilar.pipeline.store.layout import ForeignLayoutError, Layout, open_zarr

Access = Literal["auto", "map", "read"]

try:
    import resource
except ImportError:  # Windows, which lets a process have 512 files
    _MOST_OPEN = 256
else:
    _MOST_OPEN = min(512, max(0, resource.getrlimit(resource.RLIMIT_NOFILE)[0]) // 2 or 512)
_CAN_ADVISE = hasattr(mmap, "MADV_WILLNEED")
_SAMPLED = 32  # files whose sizes stand for all
_MOST_FRAMES = 64  # that are fetched together
_LARGEST_CHUNK = 2**27  # bytes, twice what a recipe may ask for
_LEFT_OUT = 2**64 - 1  # offset and length of a chunk that is not in its file
_HEADER = 16  # bytes of a Blosc frame that are not data
_FRAMES = 512 * 1024  # bytes of Blosc frames that are read together
_BLOCK = 16 * 1024  # bytes of a mapped file that are fetched together
_AHEAD = 64  # blocks that are left to the system where it reads ahead


class Rows:
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
        self._files: dict[int, _File] = {}
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
        return partial(Rows, self._folder, **self._settings), ()

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

    def _file(self, number: int) -> "_File":
        """A shard file, opened if it is not. What was opened first is closed first.

        Without a lock, which a fork could leave locked: at worst two threads open the same file.
        """
        file = self._files.get(number)
        if file is None:
            mapped, first = self.access == "map", number * self.shard_rows
            opens = partial(_File, layout=self._layout, first=first, mapped=mapped)
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
                if offset == _LEFT_OUT:
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

    def _decode(self, file: "_File", chunk: int, last: int, skip: int, out: NDArray[Any]) -> None:
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
        frame = self._frame(file, chunk, last)
        if struct.unpack_from("<4xI4xI", frame.data) != (rows.nbytes, frame.size):
            raise file.damaged(f"chunk {chunk} is not of its length")
        scratch.chunk = None if rows is scratch.rows else scratch.chunk
        try:
            blosc.decompress(frame, rows)
        except RuntimeError as error:
            raise file.damaged(f"chunk {chunk}: {error}") from error
        if not whole:
            scratch.chunk = (file.first, chunk)
            out[...] = rows[skip : skip + len(out)]

    def _frame(self, file: "_File", chunk: int, last: int) -> NDArray[np.uint8]:
        """The Blosc frame of a chunk: mapped, or in this thread's buffer until its next call.

        The frames up to chunk `last`, which is next, are fetched with it: in two calls they would
        look like a file that is read from end to end, and the system would read ahead.
        """
        scratch = self._scratch
        offset, length = file.index[chunk].tolist()
        end = offset + length
        if not (scratch.file == file.first and scratch.begin <= offset and end <= scratch.end):
            following = file.index[chunk + 1 : last + 1][:_MOST_FRAMES]
            for next_offset, next_length in following.tolist():
                if next_offset != end or end + next_length - offset > scratch.frames.size:
                    break
                end += next_length
            scratch.file = -1
            if file.fd < 0:
                file.part(offset, end)
            else:
                file.read_into(scratch.frames[: end - offset], offset)
            scratch.file, scratch.begin, scratch.end = file.first, offset, end
        if file.fd < 0:
            return file.part(offset, offset + length)
        return scratch.frames[offset - scratch.begin :][:length]


class _File:
    """A shard file whose index is right: mapped, or open for reading.

    Rows `first` to `stop` of the array are mapped. The first `in_order` rows of the file are one
    C-order array at its start.
    """

    fd, stop = -1, -1

    def __init__(self, path: Path, layout: Layout, first: int, *, mapped: bool) -> None:
        self.path, self.first = path, first
        try:
            self.fd = open_to_read(path)
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"{path}: it is missing; basilar verify says what else is"
            ) from error
        n_chunks = layout.shard_rows // layout.chunk_rows
        if not stat.S_ISREG(os.fstat(self.fd).st_mode):
            raise self.damaged("it is not a file")
        size = os.fstat(self.fd).st_size
        end = size - 16 * n_chunks - 4  # of the chunks
        tail = np.empty(size - max(end, 0), np.uint8)
        self.read_into(tail, max(end, 0))
        crc = int.from_bytes(tail[-4:].tobytes(), "little")
        if end < 0 or google_crc32c.value(tail[:-4].tobytes()) != crc:
            raise self.damaged("cut short, or its index changed")
        self.index = tail[:-4].view("<u8").reshape(-1, 2)

        offset, length = self.index.T
        whole = layout.chunk_rows * layout.row_bytes
        least, most = (_HEADER, whole + _HEADER) if layout.compressed else (whole, whole)
        stored = (self.index != _LEFT_OUT).any(axis=1)
        inside = (offset <= end) & (length <= end - offset) & (least <= length) & (length <= most)
        if not inside[stored].all():
            raise self.damaged("its index points outside of it")
        self.in_order = 0
        if not layout.compressed:
            in_order = stored & (offset == np.arange(n_chunks, dtype=np.uint64) * np.uint64(whole))
            n_in_order = int(np.argmin([*in_order, False]))
            self.in_order = n_in_order * layout.chunk_rows
            if mapped and n_in_order == np.count_nonzero(stored) > 0:
                rows = self._make_map(self.in_order * layout.row_bytes, layout.row_bytes)
                self._parts = rows.view(layout.dtype).reshape(-1, layout.shape[1])
                self.stop = min(first + self.in_order, layout.shape[0])
        elif mapped and end:
            self._parts = self._make_map(end, 1)

    def _make_map(self, size: int, part_bytes: int) -> NDArray[np.uint8]:
        """The first `size` bytes, mapped; `part` is going to be asked for parts of `part_bytes`."""
        self._map = mmap.mmap(self.fd, 0, access=mmap.ACCESS_READ)
        os.close(self.fd)
        self.fd = -1
        self._block = max(1, _BLOCK // part_bytes)  # parts that are fetched together
        self._block_bytes = self._block * part_bytes
        self._fetched = bytearray(-(-size // self._block_bytes))  # 1 for each such block
        self._next, self._in_turn = 0, False
        return np.frombuffer(self._map, np.uint8, size)

    def __del__(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)

    def damaged(self, what: str) -> DamagedArtifactError:
        """The error of this file."""
        return DamagedArtifactError(
            f"{self.path}: damaged ({what}); basilar verify says what else is"
        )

    def part(self, begin: int, end: int) -> NDArray[Any]:
        """What is mapped, as a view: rows of the file, or bytes of it if it is compressed."""
        a, b = begin // self._block, -(-end // self._block)
        if 0 in self._fetched[a:b]:
            self._fetch(a, b)
        return self._parts[begin:end]

    def _fetch(self, a: int, b: int) -> None:
        """Have the system read blocks `a` to `b` of the map, and no more, if they look random.

        A page fault would read up to megabytes around it. That is left to happen where blocks were
        fetched one after the other, twice in a row.
        """
        a = self._fetched.find(0, a, b)
        if a < 0:  # another thread was here
            return
        in_turn, self._in_turn = self._in_turn, a == self._next
        if in_turn and self._in_turn:
            b = min(b + _AHEAD, len(self._fetched))
        elif _CAN_ADVISE:
            begin = a * self._block_bytes // mmap.PAGESIZE * mmap.PAGESIZE
            self._map.madvise(mmap.MADV_WILLNEED, begin, b * self._block_bytes - begin)
        self._next = b
        self._fetched[a:b] = bytes([1]) * (b - a)

    def read_into(self, out: NDArray[Any], offset: int) -> None:
        """Fill a contiguous array from bytes `offset` on of the file."""
        done = read_into(self.fd, out, offset)
        while done < out.nbytes:  # a signal came, or it is more than 2 GiB
            rest = out.reshape(-1).view(np.uint8)[done:]
            n = read_into(self.fd, rest, offset + done)
            if not n:
                raise self.damaged("cut short since it was opened")
            done += n


class _Scratch(threading.local):
    """Buffers of one thread: Blosc frames of a file, and the rows of the chunk decoded last."""

    def __init__(self, layout: Layout) -> None:
        self.rows = np.empty((layout.chunk_rows, layout.shape[1]), layout.dtype)
        self.chunk: tuple[int, int] | None = None  # the first row of its file, its number there
        self.frames = np.empty(max(_FRAMES, self.rows.nbytes + _HEADER), np.uint8)
        self.file, self.begin, self.end = -1, 0, 0  # its first row, and the bytes of it


def usable_memory(root: Path = Path("/")) -> int:
    """Bytes of memory this process may use: the machine's, or what its control groups allow.

    0 where the system does not say (Windows): there, "auto" is "read".
    """
    if not hasattr(os, "sysconf"):
        return 0
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    groups = root / "sys" / "fs" / "cgroup"
    with suppress(OSError):
        for line in (root / "proc" / "self" / "cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            group = groups / ("memory" if controllers == "memory" else "") / path.lstrip("/")
            while group.is_relative_to(groups):
                for name in ("memory.max", "memory.limit_in_bytes"):
                    with suppress(OSError, ValueError):  # not there, or "max"
                        limits.append(int((group / name).read_text()))
                group = group.parent
    return min(limits)
