"""Arrays of a store beside its features, written by zarr-python."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from basilar.pipeline.store.shard_tables import MOMENTS

_CHUNK_BYTES = 1 << 20  # of arrays with a row a clip and a column a bin


def write_moments(
    folder: Path, parts: Callable[[str], Iterable[NDArray[np.float64]]], n_clips: int, n_bins: int
) -> None:
    """Write each of the moments, (clips, bins) in all of its parts, chunk by chunk."""
    zarr.create_group(folder / "moments")
    for name in MOMENTS:
        path = folder / "moments" / name
        array = _create_array(path, (n_clips, n_bins), np.float64, ("clip", "bin"))
        chunk, first, used = np.empty(array.chunks), 0, 0
        for part in parts(name):
            while len(part):
                count = min(len(part), len(chunk) - used)
                chunk[used : used + count] = part[:count]
                part, used = part[count:], used + count
                if used == len(chunk) or first + used == n_clips:
                    array[first : first + used] = chunk[:used]
                    first, used = first + used, 0


def write_array(path: Path, values: NDArray[Any], dimension_names: tuple[str, ...]) -> None:
    """An array in one chunk, which readers map, unless its rows are wide and many."""
    _create_array(path, values.shape, values.dtype, dimension_names)[...] = values


def _create_array(
    path: Path, shape: tuple[int, ...], dtype: Any, dimension_names: tuple[str, ...]
) -> Any:
    rows = shape[0] if len(shape) == 1 else _CHUNK_BYTES // (8 * shape[1])
    return zarr.create_array(
        path,
        shape=shape,
        dtype=dtype,
        chunks=(max(1, min(shape[0], rows)), *shape[1:]),
        compressors=None,
        dimension_names=dimension_names,
    )
