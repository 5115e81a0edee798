"""A shard file, opened for reading: its index is checked, its rows are mapped or read."""

import mmap
import os
import stat
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from basilar.pipeline.errors import DamagedArtifactError
from basilar.pipeline.storage.positioned import open_to_read, read_into
from basilar.pipeline.store.layout import Layout

_CAN_ADVISE = hasattr(mmap, "MADV_WILLNEED")
LEFT_OUT = 2**64 - 1  # offset and length of a chunk that is not in its file
HEADER = 16  # bytes of a Blosc frame that are not data
_BLOCK = 16 * 1024  # bytes of a mapped file that are fetched together
_AHEAD = 64  # blocks that are left to the system where it reads ahead


class ShardFile:
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
        least, most = (HEADER, whole + HEADER) if layout.compressed else (whole, whole)
        stored = (self.index != LEFT_OUT).any(axis=1)
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
