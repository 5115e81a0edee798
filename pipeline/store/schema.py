"""The Zarr schema: writing shards, publishing them as one feature set, reading them back.

    KEY.zarr/
      features        (row, bin)   sharded; rows x bins in C order, unused rows NaN
      start, n_frames (clip,)      int64: first row of each clip, and how many
      moments/        (clip, bin)  float64: sum and sum of squares about the pivot, min, max
      stats/          (bin,)       of the fit split: mean, std, min, max, histogram, centre, scale
      clips.parquet   one row a clip: id, sha256, label, split, duration, …
      quarantine.parquet           one row a clip that could not be used
      files.json      size and CRC-32 of every other file
      zarr.json       attributes: recipe, hashes, digest, versions; its presence is the commit

A shard's artifact has the same schema without `stats`. Publishing hard-links the shards' files
into one array: nothing is decoded or copied. A clip starts a new Zarr shard when it does not fit
into the rest of the current one, so that only a clip longer than a Zarr shard crosses files.
"""

import contextlib
import platform
from collections.abc import Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from basilar.pipeline.compute.quarantine import Quarantined
from basilar.pipeline.recipes.recipe import Recipe

STORE_SCHEMA = 1
_TEXT = ("id", "sha256", "label", "split", "group", "content", "values_sha256")
CLIP_COLUMNS: dict[str, pa.DataType] = {
    **dict.fromkeys(_TEXT, pa.string()),
    **dict.fromkeys(("offset", "duration"), pa.float64()),
    **dict.fromkeys(("sample_rate", "n_samples", "n_frames", "start"), pa.int64()),
    **dict.fromkeys(("decoded_crc32", "resampled_crc32"), pa.int64()),
}
QUARANTINE_COLUMNS = pa.schema([(name, pa.string()) for name in ("id", *Quarantined._fields)])


def write_quarantine(folder: Path, entries: Sequence[tuple[str, ...]]) -> None:
    """Write quarantine.parquet; a shard knows no ids."""
    names = QUARANTINE_COLUMNS.names
    rows = [dict(zip(names[-len(entry) :], entry, strict=True)) for entry in entries]
    pq.write_table(pa.Table.from_pylist(rows, QUARANTINE_COLUMNS), folder / "quarantine.parquet")


def provenance(recipe: Recipe) -> dict[str, Any]:
    """What is recorded and not hashed: the recipe as it was, library versions, the machine."""
    return {
        "schema": STORE_SCHEMA,
        "recipe": recipe.resolved(),
        "versions": _versions(),
        "machine": platform.machine(),
        "cpu": _cpu(),
    }


@cache
def _versions() -> dict[str, str]:
    libraries = ("basilar", "numpy", "soxr", "soundfile", "av", "zarr")
    return {"python": platform.python_version(), **{name: version(name) for name in libraries}}


@cache
def _cpu() -> str:
    """The processor's name, as far as the system tells."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
