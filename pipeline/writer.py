"""The `features` array, written: where clips lie in it, and its Zarr shard files.

Uncompressed files are written here, byte for byte as zarr-python writes them and without its
bookkeeping for each chunk; compressed ones by zarr-python. What lies where is in `layout.py`.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec

from pipeline.recipe import Recipe, Store

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


def place(n_frames: Sequence[int], *, shard_rows: int) -> tuple[list[int], int]:
    """The first row of each clip, and how many Zarr shard files they fill.

    >>> place([3, 2, 10], shard_rows=4)
    ([0, 4, 8], 5)
    """
    starts, row = [], 0
    for frames in n_frames:
        used = row % shard_rows
        if used and used + frames > shard_rows:
            row += shard_rows - used
        starts.append(row)
        row += frames
    return starts, -(-row // shard_rows)


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


def write_features(
    folder: Path, recipe: Recipe, features: list[NDArray[Any]], starts: list[int], n_files: int
) -> None:
    """Write the array at `folder`: features (frames, bins) of clips, from row `starts` on each."""
    array = create_features(folder, recipe, n_files)
    chunk_rows, shard_rows = array.chunks[0], array.shards[0]
    first = 0
    for number, base in enumerate(range(0, array.shape[0], shard_rows)):
        parts = []
        row = base
        for i in range(first, len(features)):
            begin, end = starts[i], starts[i] + len(features[i])
            if begin >= base + shard_rows:
                break
            parts.append(features[i][max(0, base - begin) : base + shard_rows - begin])
            row = min(end, base + shard_rows)
            first = i + (end <= base + shard_rows)
        if array.compressors:
            array[base:row] = np.concatenate(parts)
        else:
            _write_file(folder / "c" / str(number) / "0", parts, chunk_rows, shard_rows)


def _write_file(file: Path, parts: list[NDArray[Any]], chunk_rows: int, shard_rows: int) -> None:
    """Write one shard file: chunks of rows, the last one filled up, their index, its checksum."""
    n_rows, dtype, n_bins = sum(map(len, parts)), parts[0].dtype, parts[0].shape[1]
    n_chunks = -(-n_rows // chunk_rows)
    unused = np.full((n_chunks * chunk_rows - n_rows, n_bins), np.nan, dtype)
    if dtype.kind == "c":
        unused.imag = np.nan
    index = np.full((shard_rows // chunk_rows, 2), _LEFT_OUT, "<u8")
    index[:n_chunks, 1] = chunk_rows * n_bins * dtype.itemsize
    index[:n_chunks, 0] = np.arange(n_chunks) * index[:n_chunks, 1]
    file.parent.mkdir(parents=True)
    with file.open("wb", buffering=_AT_ONCE) as out:
        for part in (*parts, unused):
            out.write(np.ascontiguousarray(part, dtype.newbyteorder("<")).data)
        out.write(index.data)
        out.write(struct.pack("<I", google_crc32c.value(index.tobytes())))
