"""The `features` array: writing its Zarr shard files, and the rows of each clip in it.

Uncompressed files are written here, byte for byte as zarr-python writes them and without its
bookkeeping for each chunk; compressed ones by zarr-python. `layout.py` has the layout.
"""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self

import google_crc32c
import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec

from basilar.pipeline.recipes.recipe import Recipe, Store

_BLOSC: dict[str, tuple[Any, Any]] = {
    "compact": ("lz4", "bitshuffle"),
    "archive": ("zstd", "shuffle"),
}
_AT_ONCE = 1 << 20  # bytes: smaller clips are written together
_LEFT_OUT = 2**64 - 1  # offset and length of a chunk that is not in its file


@dataclass(frozen=True)
class Geometry:
    """How many rows an inner chunk and a Zarr shard file hold, both powers of two.

    >>> Geometry.of(Store(), n_bins=128, itemsize=4)
    Geometry(chunk_rows=64, shard_rows=65536)
    """

    chunk_rows: int
    shard_rows: int

    @classmethod
    def of(cls, store: Store, *, n_bins: int, itemsize: int) -> "Geometry":
        """The geometry that comes nearest to the recipe's sizes from below."""
        chunk = max(1, store.chunk_kib * 1024 // (n_bins * itemsize))
        shard = max(chunk, store.shard_mib * 1024 * 1024 // (n_bins * itemsize))
        return cls(1 << (chunk.bit_length() - 1), 1 << (shard.bit_length() - 1))

    @classmethod
    def of_recipe(cls, recipe: Recipe) -> "Geometry":
        """The geometry of what a recipe makes."""
        kind = recipe.representation
        return cls.of(recipe.store, n_bins=kind.columns(), itemsize=kind.stored_dtype().itemsize)


def create_features(folder: Path, recipe: Recipe, n_files: int) -> Any:
    """The array at `folder`, empty. Only unused rows are NaN, so no real chunk is left out."""
    dtype, n_bins = recipe.representation.stored_dtype(), recipe.representation.columns()
    geometry = Geometry.of_recipe(recipe)
    compressors = None
    if recipe.store.codec != "none":
        cname, shuffle = _BLOSC[recipe.store.codec]
        compressors = BloscCodec(cname=cname, shuffle=shuffle, clevel=5, typesize=dtype.itemsize)
    return zarr.create_array(
        folder,
        shape=(n_files * geometry.shard_rows, n_bins),
        chunks=(geometry.chunk_rows, n_bins),
        shards=(geometry.shard_rows, n_bins),
        dtype=dtype,
        fill_value=complex(np.nan, np.nan) if dtype.kind == "c" else np.nan,
        compressors=compressors,
        dimension_names=("row", "bin"),
    )


class FeatureWriter:
    """The array at `folder`, written clip by clip as features come; a context manager.

    `starts` are the first rows of clips, `n_frames` how many they have. A clip starts a new Zarr
    shard file when it does not fit into the rest of the current one.
    """

    def __init__(self, folder: Path, recipe: Recipe) -> None:
        self.starts: list[int] = []
        self.n_frames: list[int] = []
        self._folder, self._row = folder, 0
        self._array = create_features(folder, recipe, 0)
        self._shard_rows = self._array.shards[0]
        self._file: BinaryIO | None = None
        self._to_compress: list[NDArray[Any]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, failed: type[BaseException] | None, *_: object) -> None:
        try:
            if failed is None and self._row % self._shard_rows:
                self._end_file()
        finally:
            if self._file:
                self._file.close()

    def put(self, x: NDArray[Any]) -> None:
        """Append the features of a clip, (frames, bins) of the stored dtype."""
        used = self._row % self._shard_rows
        if used and used + len(x) > self._shard_rows:
            self._end_file()
        self.starts.append(self._row)
        self.n_frames.append(len(x))
        while len(x):
            number, used = divmod(self._row, self._shard_rows)
            part, x = x[: self._shard_rows - used], x[self._shard_rows - used :]
            if not used and not self._array.compressors:
                file = self._folder / "c" / str(number) / "0"
                file.parent.mkdir(parents=True)
                self._file = file.open("wb", buffering=_AT_ONCE)
            if self._file:
                self._file.write(_bytes(part))
            else:
                self._to_compress.append(part)
            self._row += len(part)
            if self._row % self._shard_rows == 0:
                self._end_file()

    def _end_file(self) -> None:
        """Write what is due at the end of a file: the last chunk filled up, the index, its CRC."""
        array, end = self._array, -(-self._row // self._shard_rows) * self._shard_rows
        first = end - self._shard_rows
        array.resize((end, array.shape[1]))
        if self._file:
            chunk_bytes = array.chunks[0] * array.shape[1] * array.dtype.itemsize
            n_chunks = -(-(self._row - first) // array.chunks[0])
            n_unused = first + n_chunks * array.chunks[0] - self._row
            index = np.full((self._shard_rows // array.chunks[0], 2), _LEFT_OUT, "<u8")
            index[:n_chunks, 1] = chunk_bytes
            index[:n_chunks, 0] = np.arange(n_chunks) * chunk_bytes
            unused = np.full((n_unused, array.shape[1]), array.fill_value, array.dtype)
            with self._file as file:
                file.write(_bytes(unused))
                file.write(index.data)
                file.write(struct.pack("<I", google_crc32c.value(index.tobytes())))
            self._file = None
        else:
            array[first : self._row] = np.concatenate(self._to_compress)
            self._to_compress = []
        self._row = end


def _bytes(rows: NDArray[Any]) -> memoryview:
    return np.ascontiguousarray(rows, rows.dtype.newbyteorder("<")).data
