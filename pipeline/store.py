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
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec

from pipeline.artifacts import (
    Quarantined,
    link,
    read_checksums,
    replacing,
    write_checksums,
    write_json,
)
from pipeline.keys import digest, op_versions
from pipeline.recipe import Recipe, Store
from pipeline.shards import Plan, Shard
from pipeline.stages import Represented
from pipeline.statistics import MOMENTS, Statistics, read_shard

SCHEMA = 1
_BLOSC: dict[str, tuple[Any, Any]] = {
    "compact": ("lz4", "bitshuffle"),
    "archive": ("zstd", "shuffle"),
}
_TEXT = ("id", "sha256", "label", "split", "group", "content", "values_sha256")
_CLIPS: dict[str, pa.DataType] = {
    **dict.fromkeys(_TEXT, pa.string()),
    **dict.fromkeys(("offset", "duration"), pa.float64()),
    **dict.fromkeys(("sample_rate", "n_samples", "n_frames", "start"), pa.int64()),
    **dict.fromkeys(("decoded_crc32", "resampled_crc32"), pa.int64()),
}
_QUARANTINE = pa.schema([(name, pa.string()) for name in ("id", *Quarantined._fields)])


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


def write_shard(
    folder: Path,
    represented: Represented,
    *,
    recipe: Recipe,
    shard: Shard,
    canary: Sequence[str] = (),
) -> None:
    """Commit the features of one shard as a small feature set.

    `canary` are the guard's warnings about the process that computed them.
    """
    kind = recipe.representation
    dtype, n_bins = kind.stored_dtype(), kind.columns()
    geometry = Geometry.of(recipe.store, n_bins=n_bins, itemsize=dtype.itemsize)
    n_frames = [len(x) for x in represented.features]
    starts, n_files = place(n_frames, shard_rows=geometry.shard_rows)
    clips: dict[str, list[Any]] = {
        "content": represented.contents,
        "start": starts,
        "n_frames": n_frames,
        "values_sha256": represented.values,
        "sample_rate": [rate for rate, _ in represented.sources],
        "n_samples": [samples for _, samples in represented.sources],
        "decoded_crc32": [decoded for decoded, _ in represented.checksums],
        "resampled_crc32": [resampled for _, resampled in represented.checksums],
    }
    with replacing(folder) as temporary:
        features = _create_features(temporary, recipe, n_files)
        _write_features(features, represented.features, starts, geometry.shard_rows)
        moments = np.asarray(represented.moments).reshape(-1, 4, n_bins)
        _write_tables(temporary, clips, represented.quarantined, moments)
        attributes = {
            "kind": "shard",
            "key": shard.keys["representation"],
            "seconds": represented.seconds,
            "canary": list(canary),
            **_provenance(recipe),
        }
        zarr.create_group(temporary, attributes={"basilar": attributes})
        write_checksums(temporary)


def publish(
    folder: Path,
    plan: Plan,
    statistics: Statistics,
    *,
    shard_folder: Callable[[Shard], Path],
    catalogue: Path,
) -> None:
    """Commit a feature set by linking the files of its shards.

    What it is stays in the folder `catalogue` when the store is deleted: its attributes and its
    table of clips.
    """
    recipe = plan.recipe
    kind = recipe.representation
    geometry = Geometry.of(
        recipe.store, n_bins=kind.columns(), itemsize=kind.stored_dtype().itemsize
    )
    shards = [read_shard(shard_folder(shard)) for shard in plan.shards]
    n_files = [-(-shard.end_row // geometry.shard_rows) for shard in shards]
    first_file = np.concatenate([[0], np.cumsum(n_files)]).tolist()

    where = {
        content: (index, i)
        for index, shard in enumerate(shards)
        for i, content in enumerate(shard.clips["content"])
    }
    contents = plan.manifest.contents
    rows = [row for row in plan.order if contents[row] in where]
    places = [where[contents[row]] for row in rows]

    def of_shards(name: str) -> list[Any]:
        return [shards[index].clips[name][i] for index, i in places]

    def of_manifest(name: str) -> list[Any]:
        column = plan.manifest.column(name)
        return [column[row] for row in rows]

    clips = {
        **{name: of_manifest(name) for name in ("id", "sha256", "offset", "label")},
        "split": [plan.manifest.splits[row] for row in rows],
        "group": of_manifest("group"),
        "duration": [
            n / rate
            for n, rate in zip(of_shards("n_samples"), of_shards("sample_rate"), strict=True)
        ],
        **{name: of_shards(name) for name in ("sample_rate", "n_samples", "n_frames")},
        "start": [
            first_file[index] * geometry.shard_rows + shards[index].clips["start"][i]
            for index, i in places
        ],
        "content": [contents[row] for row in rows],
        **{n: of_shards(n) for n in ("values_sha256", "decoded_crc32", "resampled_crc32")},
    }
    ids = plan.manifest.column("id")
    lost = {entry.content: entry for shard in shards for entry in shard.quarantined}
    quarantined = [(ids[row], *lost[contents[row]]) for row in plan.order if contents[row] in lost]
    total_seconds: dict[str, float] = {}
    for shard in shards:
        for stage, seconds in shard.seconds.items():
            total_seconds[stage] = total_seconds.get(stage, 0.0) + seconds

    with replacing(folder) as temporary:
        _create_features(temporary, recipe, sum(n_files))
        checksums = {}
        for planned, first, count in zip(plan.shards, first_file, n_files, strict=False):
            known = read_checksums(shard_folder(planned))
            for i in range(count):
                source, target = f"features/c/{i}/0", f"features/c/{first + i}/0"
                link(shard_folder(planned) / source, temporary / target)
                checksums[target] = known[source]
        moments = np.stack([shards[index].moments[i] for index, i in places])
        _write_tables(temporary, clips, quarantined, moments)
        _write_statistics(temporary / "stats", statistics)
        attributes = {
            "kind": "feature set",
            "key": plan.key,
            "digest": digest(
                zip(clips["content"], clips["values_sha256"], strict=True),
                clips["n_frames"],
                n_bins=kind.columns(),
                dtype=str(kind.stored_dtype()),
            ),
            "recipe_hash": plan.hashes["normalization"],
            "manifest_hash": plan.manifest.hash,
            "hashes": plan.hashes,
            "clips": len(rows),
            "frames": sum(clips["n_frames"]),
            "quarantined": len(quarantined),
            "seconds": total_seconds,
            "canary": sorted({warning for shard in shards for warning in shard.canary}),
            "shard_seconds": plan.shard_seconds,
            "shards": dict(
                zip((shard_folder(shard).name for shard in plan.shards), n_files, strict=True)
            ),
            "op_versions": op_versions(recipe),
            "decoders": plan.decoders,
            **_provenance(recipe),
        }
        zarr.create_group(temporary, attributes={"basilar": attributes})
        with warnings.catch_warnings():
            # xarray looks for consolidated metadata and warns without it; zarr warns of making it,
            # and of each file beside the arrays.
            warnings.filterwarnings("ignore", "Consolidated metadata is currently not part")
            warnings.filterwarnings("ignore", "Object at .* is not recognized as a component")
            zarr.consolidate_metadata(temporary)
        write_checksums(temporary, known=checksums)
        with replacing(catalogue / f"{plan.key}.parquet") as entry:
            link(temporary / "clips.parquet", entry)
        write_json(catalogue / f"{plan.key}.json", attributes)


def _create_features(folder: Path, recipe: Recipe, n_files: int) -> Any:
    """The `features` array, empty. Only unused rows are NaN, so no real chunk is left out."""
    dtype, n_bins = recipe.representation.stored_dtype(), recipe.representation.columns()
    geometry = Geometry.of(recipe.store, n_bins=n_bins, itemsize=dtype.itemsize)
    codec = recipe.store.codec
    compressors = None
    if codec != "none":
        cname, shuffle = _BLOSC[codec]
        compressors = BloscCodec(cname=cname, shuffle=shuffle, clevel=5, typesize=dtype.itemsize)
    return zarr.create_array(
        folder / "features",
        shape=(n_files * geometry.shard_rows, n_bins),
        chunks=(geometry.chunk_rows, n_bins),
        shards=(geometry.shard_rows, n_bins),
        dtype=dtype,
        fill_value=complex(np.nan, np.nan) if dtype.kind == "c" else np.nan,
        compressors=compressors,
        dimension_names=("row", "bin"),
    )


def _write_features(
    array: Any, features: list[NDArray[Any]], starts: list[int], shard_rows: int
) -> None:
    """Write each Zarr shard file at once, from the clips that lie in it."""
    first = 0
    for base in range(0, array.shape[0], shard_rows):
        parts = []
        row = base
        for i in range(first, len(features)):
            begin, end = starts[i], starts[i] + len(features[i])
            if begin >= base + shard_rows:
                break
            parts.append(features[i][max(0, base - begin) : base + shard_rows - begin])
            row = min(end, base + shard_rows)
            first = i + (end <= base + shard_rows)
        array[base:row] = np.concatenate(parts)


def _write_tables(
    folder: Path,
    clips: dict[str, list[Any]],
    quarantined: Sequence[tuple[str, ...]],
    moments: NDArray[np.float64],
) -> None:
    """Write clips.parquet, quarantine.parquet, and the arrays with one row a clip."""
    schema = pa.schema([(name, _CLIPS[name]) for name in clips])
    pq.write_table(pa.table(clips, schema), folder / "clips.parquet", write_page_checksum=True)
    rows = [
        dict(zip(_QUARANTINE.names[-len(entry) :], entry, strict=True)) for entry in quarantined
    ]
    pq.write_table(pa.Table.from_pylist(rows, _QUARANTINE), folder / "quarantine.parquet")
    for name in ("start", "n_frames"):
        write_array(folder / name, np.asarray(clips[name], np.int64), ("clip",))
    for i, name in enumerate(MOMENTS):
        write_array(folder / "moments" / name, moments[:, i], ("clip", "bin"))
    zarr.create_group(folder / "moments")


def _write_statistics(folder: Path, statistics: Statistics) -> None:
    summary = statistics.summary
    for name in ("mean", "std", "min", "max"):
        write_array(folder / name, getattr(summary, name), ("bin",))
    write_array(folder / "centre", statistics.centre, ("bin",))
    write_array(folder / "scale", statistics.scale, ("bin",))
    write_array(folder / "histogram", statistics.histogram, ("bin", "cell"))
    write_array(folder / "edges", statistics.edges, ("edge",))
    counts = {"frames": summary.count, "clips": statistics.n_clips}
    zarr.create_group(folder, attributes=counts)


def write_array(path: Path, values: NDArray[Any], dimension_names: tuple[str, ...]) -> None:
    """An array in one chunk, which `pipeline.dataset` maps, unless its rows are wide and many."""
    rows = len(values) if values.ndim == 1 else 65536
    chunks = (min(max(len(values), 1), max(rows, 1)), *values.shape[1:])
    array = zarr.create_array(
        path,
        shape=values.shape,
        dtype=values.dtype,
        chunks=chunks,
        compressors=None,
        dimension_names=dimension_names,
    )
    array[...] = values


def _provenance(recipe: Recipe) -> dict[str, Any]:
    """What is recorded and not hashed: the recipe as it was, library versions, the machine."""
    libraries = ("basilar", "numpy", "scipy", "soxr", "soundfile", "av", "zarr")
    return {
        "schema": SCHEMA,
        "recipe": recipe.resolved(),
        "portable": recipe.representation.portable,
        "versions": {"python": platform.python_version(), **{n: version(n) for n in libraries}},
        "machine": platform.machine(),
        "cpu": _cpu(),
    }


def _cpu() -> str:
    """The processor's name, as far as the system tells."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
