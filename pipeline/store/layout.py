"""The layout of features in Zarr, and which arrays are opened at all.

features/zarr.json   shape, data type, rows of an inner chunk and of a shard file, codec
features/c/I/0       rows [I * shard_rows, (I + 1) * shard_rows): inner chunks, then
                     16 bytes a chunk (offset, length), then the CRC-32C of those
"""

import json
from operator import index
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from basilar.pipeline.errors import BasilarError, DamagedArtifactError
from basilar.pipeline.host import require
from basilar.pipeline.storage.files import read_json

_CODECS = {"bytes", "blosc", "crc32c", "gzip", "sharding_indexed", "transpose", "zstd"}
_BLOSC_SETTINGS = ("typesize", "cname", "clevel", "shuffle", "blocksize")
_FILL_VALUES = {
    **dict.fromkeys(("float16", "float32", "float64"), "NaN"),
    **{name: ["NaN", "NaN"] for name in ("complex64", "complex128")},
}


def open_zarr(folder: Path) -> Any:
    """An array of numbers, for zarr-python to read; nothing in it can be code.

    Raises DamagedArtifactError for objects, for codecs that are not known here, and for formats
    before 3, which have a codec that unpickles.
    """
    zarr = require("zarr", str(folder))
    try:
        names = _codecs(read_json(folder / "zarr.json"))
        if unknown := ", ".join(sorted(names - _CODECS)):
            raise DamagedArtifactError(
                f"{folder}: its codecs are not known: {unknown}; build it again"
            )
        array = zarr.open_array(folder, mode="r", zarr_format=3)
    except (ValueError, LookupError, TypeError, ArithmeticError, RecursionError) as error:
        raise DamagedArtifactError(
            f"{folder}: damaged ({error}); basilar verify says more"
        ) from None
    if array.ndim == 0 or array.dtype.kind not in "iufc":
        raise DamagedArtifactError(f"{folder}: {array.dtype} are no features; build it again")
    return array


def _codecs(metadata: Any) -> set[str]:
    """The names of all codecs in zarr.json, those inside others too."""
    if isinstance(metadata, list):
        return set().union(*map(_codecs, metadata))
    found = set()
    if isinstance(metadata, dict):
        for name, value in metadata.items():
            if name in ("codecs", "index_codecs"):
                found |= {str(codec["name"]) for codec in value} | _codecs(value)
            elif name in ("configuration", "storage_transformers"):
                found |= _codecs(value)
    return found


class ForeignLayoutError(BasilarError, ValueError):
    """What in zarr.json is not as `store.writer` writes it."""


class Layout(NamedTuple):
    """The shape, chunks and codec of a sharded array that Basilar wrote."""

    shape: tuple[int, int]
    dtype: np.dtype[Any]
    chunk_rows: int
    shard_rows: int
    compressed: bool

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return self.shape[1] * self.dtype.itemsize

    @classmethod
    def of(cls, found: dict[str, Any]) -> "Layout":
        """The layout that zarr.json describes; ForeignLayoutError if not all of it is known."""
        try:
            rows, bins = map(index, found["shape"])
            shard_rows, _ = map(index, found["chunk_grid"]["configuration"]["chunk_shape"])
            sharding = found["codecs"][0]["configuration"]
            chunk_rows, _ = map(index, sharding["chunk_shape"])
            settings = dict(sharding["codecs"][-1]["configuration"])
            fill_value = _FILL_VALUES[found["data_type"]]
            divides = shard_rows % chunk_rows == 0 < min(bins, chunk_rows, shard_rows) and rows >= 0
        except (LookupError, TypeError, ValueError, ArithmeticError) as error:
            raise ForeignLayoutError("it is no sharded array of floats") from error
        if not divides:
            raise ForeignLayoutError("its chunks do not fill a shard")
        as_bytes = _named("bytes", endian="little")
        as_blosc = _named("blosc", **{name: settings.get(name) for name in _BLOSC_SETTINGS})
        compressed = len(sharding["codecs"]) > 1
        sharding = {
            "chunk_shape": [chunk_rows, bins],
            "codecs": [as_bytes, as_blosc] if compressed else [as_bytes],
            "index_codecs": [as_bytes, {"name": "crc32c"}],
            "index_location": "end",
        }
        known = {
            "zarr_format": 3,
            "node_type": "array",
            "shape": [rows, bins],
            "data_type": found["data_type"],
            "chunk_grid": _named("regular", chunk_shape=[shard_rows, bins]),
            "chunk_key_encoding": _named("default", separator="/"),
            "fill_value": fill_value,
            "codecs": [_named("sharding_indexed", **sharding)],
            "storage_transformers": [],
        }
        found = {"storage_transformers": [], **found}
        for name in found.keys() - {"attributes", "dimension_names"} | known.keys():
            if found.get(name) != known.get(name):
                raise ForeignLayoutError(f"its {name} is {json.dumps(found.get(name))}")
        dtype = np.dtype(found["data_type"]).newbyteorder("<")
        return cls((rows, bins), dtype, chunk_rows, shard_rows, compressed)


def _named(name: str, **configuration: Any) -> dict[str, Any]:
    return {"name": name, "configuration": configuration}
