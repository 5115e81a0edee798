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
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zarr
from numpy.typing import NDArray

from pipeline import storage
from pipeline.compute.quarantine import Quarantined
from pipeline.compute.stages import Represented
from pipeline.hashing import digest
from pipeline.manifests.table import release_memory, take_rows
from pipeline.plan import Plan, Shard
from pipeline.recipes.hashes import op_versions
from pipeline.recipes.recipe import Recipe
from pipeline.storage.atomic import link, replacing
from pipeline.storage.checksums import read_checksums, write_checksums
from pipeline.storage.files import read_json, write_json
from pipeline.store.statistics import MOMENTS, ShardTables, Statistics, quarantined
from pipeline.store.writer import Features, Geometry, create_features

SCHEMA = 1
_TEXT = ("id", "sha256", "label", "split", "group", "content", "values_sha256")
_CLIPS: dict[str, pa.DataType] = {
    **dict.fromkeys(_TEXT, pa.string()),
    **dict.fromkeys(("offset", "duration"), pa.float64()),
    **dict.fromkeys(("sample_rate", "n_samples", "n_frames", "start"), pa.int64()),
    **dict.fromkeys(("decoded_crc32", "resampled_crc32"), pa.int64()),
}
_GROUP_ROWS = 4096  # of clips.parquet that are written at once, or more
_CHUNK_BYTES = 1 << 20  # of arrays with a row a clip and a column a bin
_QUARANTINE = pa.schema([(name, pa.string()) for name in ("id", *Quarantined._fields)])


def write_shard(
    folder: Path,
    make: Callable[[Callable[[NDArray[Any]], None]], Represented],
    *,
    recipe: Recipe,
    shard: Shard,
    canary: Sequence[str] = (),
) -> int:
    """Commit as a small feature set what `make` puts, clip by clip, where it is told, and returns.

    `canary` are the guard's warnings about the process that computes it. Returns how many clips
    were quarantined.
    """
    n_bins = recipe.representation.columns()
    with replacing(folder) as temporary:
        with Features(temporary / "features", recipe) as features:
            represented = make(features.put)
        clips: dict[str, list[Any]] = {
            "content": represented.contents,
            "start": features.starts,
            "n_frames": features.n_frames,
            "values_sha256": represented.values,
            "sample_rate": [rate for rate, _ in represented.sources],
            "n_samples": [samples for _, samples in represented.sources],
            "decoded_crc32": [decoded for decoded, _ in represented.checksums],
            "resampled_crc32": [resampled for _, resampled in represented.checksums],
        }
        schema = pa.schema([(name, _CLIPS[name]) for name in clips])
        pq.write_table(
            pa.table(clips, schema), temporary / "clips.parquet", write_page_checksum=True
        )
        _write_quarantine(temporary, represented.quarantined)
        for name in ("start", "n_frames"):
            write_array(temporary / name, np.asarray(clips[name], np.int64), ("clip",))
        by_name = dict(zip(MOMENTS, represented.moments.transpose(1, 0, 2), strict=True))
        n_clips = len(represented.contents)
        _write_moments(temporary, lambda name: [by_name[name]], n_clips, n_bins)
        attributes = {
            "kind": "shard",
            "key": shard.keys["representation"],
            "seconds": represented.seconds,
            "canary": list(canary),
            **_provenance(recipe),
        }
        zarr.create_group(temporary, attributes={"basilar": attributes})
        write_checksums(temporary)
    return len(represented.quarantined)


def publish(
    folder: Path,
    plan: Plan,
    statistics: Statistics,
    *,
    shards: Sequence[ShardTables],
    catalogue: Path,
) -> None:
    """Commit a feature set by linking the files of its shards, which are those of the plan.

    What it is stays in the folder `catalogue` when the store is deleted: its attributes and its
    table of clips.
    """
    recipe = plan.recipe
    kind = recipe.representation
    geometry = Geometry.of_recipe(recipe)
    lost = [(clip_id, *entry) for clip_id, entry in quarantined(plan, shards)]
    total_seconds: dict[str, float] = {}
    for shard in shards:
        for stage, seconds in shard.seconds.items():
            total_seconds[stage] = total_seconds.get(stage, 0.0) + seconds

    with replacing(folder) as temporary:
        temporary.mkdir()
        rows, n_files, n_frames = _write_clips(temporary, plan, shards, geometry.shard_rows)
        create_features(temporary / "features", recipe, sum(n_files))
        checksums = {}
        first_file = 0
        for shard, count in zip(shards, n_files, strict=True):
            known = read_checksums(shard.folder)
            for i in range(count):
                source, target = f"features/c/{i}/0", f"features/c/{first_file + i}/0"
                link(shard.folder / source, temporary / target)
                checksums[target] = known[source]
            first_file += count
        _write_quarantine(temporary, lost)

        def moment(name: str) -> Iterator[NDArray[np.float64]]:
            for shard, of_shard in zip(shards, rows, strict=True):
                yield shard.moment(name)[of_shard]

        _write_moments(temporary, moment, sum(map(len, rows)), kind.columns())
        release_memory()
        _write_statistics(temporary / "stats", statistics)
        attributes = {
            "kind": "feature set",
            "key": plan.key,
            "digest": digest(
                _digested(temporary / "clips.parquet"),
                n_bins=kind.columns(),
                dtype=str(kind.stored_dtype()),
            ),
            "recipe_hash": plan.hashes["normalization"],
            "manifest_hash": plan.manifest.hash,
            "hashes": plan.hashes,
            "clips": sum(map(len, rows)),
            "frames": n_frames,
            "quarantined": len(lost),
            "seconds": total_seconds,
            "canary": sorted({warning for shard in shards for warning in shard.canary}),
            "shard_seconds": plan.shard_seconds,
            "shards": {shard.folder.name: n for shard, n in zip(shards, n_files, strict=True)},
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
        with replacing(catalogue / f"{plan.key}.parquet") as clips:
            link(temporary / "clips.parquet", clips)
        entry = catalogue / f"{plan.key}.json"
        write_json(entry, attributes)
    # Another machine may have published it at the same time: one of them says how long it took.
    published = read_json(folder / "zarr.json")["attributes"]["basilar"]
    storage.drop(entry)
    if read_json(entry) != published:
        write_json(entry, published)


def _write_clips(
    folder: Path, plan: Plan, shards: Sequence[ShardTables], shard_rows: int
) -> tuple[list[NDArray[np.int64]], list[int], int]:
    """Write clips.parquet and where each clip lies, shard by shard.

    Returns, by shard, which of its clips these are and how many files it fills, and all frames.
    """
    n_files: list[int] = []
    rows, starts, n_frames = [], [], []
    schema = pa.schema(list(_CLIPS.items()))
    of_manifest = pa.schema(
        [schema.field(n) for n in ("id", "sha256", "offset", "label", "split", "group")]
    )
    with pq.ParquetWriter(folder / "clips.parquet", schema, write_page_checksum=True) as writer:
        pending: list[pa.Table] = []
        for planned, shard in zip(plan.shards, shards, strict=True):
            made = shard.clips
            place_of = {content: i for i, content in enumerate(made["content"].to_pylist())}
            contents = plan.manifest.contents_of(planned.rows)
            usable = np.array([content in place_of for content in contents], bool)
            here = np.array([place_of[c] for c in contents if c in place_of], np.int64)
            usable_rows = planned.rows[usable]
            given = take_rows(plan.manifest.table, of_manifest.names, usable_rows).cast(of_manifest)
            release_memory()
            made_here = take_rows(made, made.column_names, here)
            start, frames = (made[name].to_numpy() for name in ("start", "n_frames"))
            n_samples, sample_rate = (made_here[n].to_numpy() for n in ("n_samples", "sample_rate"))
            columns = {
                **{name: given[name] for name in of_manifest.names},
                "split": pa.array([split or "train" for split in given["split"].to_pylist()]),
                **{name: made_here[name] for name in made.column_names},
                "duration": n_samples / sample_rate,
                "start": sum(n_files) * shard_rows + start[here],
            }
            pending.append(pa.table({name: columns[name] for name in schema.names}, schema))
            if sum(map(len, pending)) >= _GROUP_ROWS or planned is plan.shards[-1]:
                writer.write_table(pa.concat_tables(pending).combine_chunks())
                pending = []
                release_memory()
            rows.append(here)
            starts.append(columns["start"])
            n_frames.append(frames[here])
            n_files.append(-(-int(start[-1] + frames[-1]) // shard_rows) if len(start) else 0)
    for name, values in (("start", starts), ("n_frames", n_frames)):
        write_array(folder / name, np.concatenate(values), ("clip",))
    return rows, n_files, sum(int(frames.sum()) for frames in n_frames)


def _digested(clips: Path) -> Iterator[tuple[str, str, int]]:
    """What the digest is made of, from clips.parquet."""
    with pq.ParquetFile(clips) as file:
        names = ["content", "values_sha256", "n_frames"]
        for i in range(file.num_row_groups):
            group = file.read_row_group(i, names, use_threads=False)
            yield from zip(*(column.to_pylist() for column in group.columns), strict=True)
            del group
            release_memory()


def _write_quarantine(folder: Path, entries: Sequence[tuple[str, ...]]) -> None:
    """Write quarantine.parquet; a shard knows no ids."""
    names = _QUARANTINE.names
    rows = [dict(zip(names[-len(entry) :], entry, strict=True)) for entry in entries]
    pq.write_table(pa.Table.from_pylist(rows, _QUARANTINE), folder / "quarantine.parquet")


def _write_moments(
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
    """An array in one chunk, which `pipeline.training.feature_set` maps, unless its rows are wide and many."""
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


def _provenance(recipe: Recipe) -> dict[str, Any]:
    """What is recorded and not hashed: the recipe as it was, library versions, the machine."""
    return {
        "schema": SCHEMA,
        "recipe": recipe.resolved(),
        "portable": recipe.representation.portable,
        "versions": _versions(),
        "machine": platform.machine(),
        "cpu": _cpu(),
    }


@cache
def _versions() -> dict[str, str]:
    libraries = ("basilar", "numpy", "scipy", "soxr", "soundfile", "av", "zarr")
    return {"python": platform.python_version(), **{name: version(name) for name in libraries}}


@cache
def _cpu() -> str:
    """The processor's name, as far as the system tells."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
