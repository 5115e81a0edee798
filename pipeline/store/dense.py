"""Small arrays of a store, memory-mapped where they are one plain chunk."""

import math
from operator import index
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from basilar.pipeline.errors import DamagedArtifactError
from basilar.pipeline.storage.files import read_json
from basilar.pipeline.store.layout import open_zarr

_MOST_LEFT_OUT = 2**28  # bytes
_NUMBERS = {"int64": "<i8", "float32": "<f4", "float64": "<f8"}
_SLASHES = {"name": "default", "configuration": {"separator": "/"}}


def dense(folder: Path) -> NDArray[Any]:
    """A small array of the store; mapped straight from its file if it is one plain chunk."""
    metadata = read_json(folder / "zarr.json")
    try:
        shape, chunk = metadata["shape"], metadata["chunk_grid"]["configuration"]["chunk_shape"]
        plain = (
            metadata["chunk_grid"]["name"] == "regular"
            and metadata["chunk_key_encoding"] == _SLASHES
            and metadata["codecs"] == [{"name": "bytes", "configuration": {"endian": "little"}}]
        )
        dtype = np.dtype(_NUMBERS[metadata["data_type"]])
        size = dtype.itemsize * math.prod(map(index, shape))
    except (LookupError, TypeError) as error:
        raise DamagedArtifactError(
            f"{folder}: its zarr.json says what it cannot ({error}); basilar verify says more"
        ) from None
    file = folder.joinpath("c", *["0"] * len(shape))
    stored = file.stat().st_size if chunk == shape and file.is_file() else 0
    if plain and 0 < size <= stored:
        return np.asarray(np.memmap(file, dtype, mode="r", shape=tuple(shape)))
    # Chunks of zeros are left out, so that a header may claim more than there is: within reason.
    there = sum(part.stat().st_size for part in (folder / "c").rglob("*") if part.is_file())
    if min(shape, default=0) < 0 or size > max(64 * there, _MOST_LEFT_OUT):
        raise DamagedArtifactError(
            f"{folder}: {shape} of {dtype} are more than it holds; basilar verify says more"
        )
    return np.asarray(open_zarr(folder))


def places(path: Path, clips: int, rows: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The first row and the frames of each clip of a store, which lie within the rows it has.

    Raises DamagedArtifactError.
    """
    start, frames = dense(path / "start"), dense(path / "n_frames")
    shape = (clips,)
    if not start.shape == frames.shape == shape or not start.dtype == frames.dtype == np.int64:
        raise DamagedArtifactError(
            f"{path}: start and n_frames must be int64 {shape}; basilar verify says more"
        )
    if clips and (
        min(start.min(), frames.min()) < 0 or frames.max() > rows or (start > rows - frames).any()
    ):
        raise DamagedArtifactError(
            f"{path}: clips lie outside of its {rows} rows; basilar verify says more"
        )
    return start, frames
