"""Publishing: the shards of a plan, linked into one feature set."""

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zarr
from numpy.typing import NDArray

from basilar.pipeline.hashing import digest
from basilar.pipeline.manifests.table import release_memory, take_rows
from basilar.pipeline.plan import Plan
from basilar.pipeline.storage.atomic import link, replacing
from basilar.pipeline.storage.checksums import read_checksums, write_checksums
from basilar.pipeline.storage.files import read_json, write_json
from basilar.pipeline.store.arrays import write_array, write_moments
from basilar.pipeline.store.schema import CLIP_COLUMNS, provenance, write_quarantine
from basilar.pipeline.store.shard_tables import ShardTables, quarantined
from basilar.pipeline.store.statistics import Statistics
from basilar.pipeline.store.writer import Geometry, create_features

_GROUP_ROWS = 4096  # of clips.parquet that are written at once, or more


def publish(
    folder: Path,
    plan: Plan,
    statistics: Statistics,
    *,
    shards: Sequence[ShardTables],
    catalogue: Path,
) -> None:
    """Commit a feature set by linking the files of its shards, which are those of the plan.

    Its attributes and its table of clips stay in the folder `catalogue` when the store is deleted.
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
        write_quarantine(temporary, lost)

        def moment(name: str) -> Iterator[NDArray[np.float64]]:
            for shard, of_shard in zip(shards, rows, strict=True):
                yield shard.moment(name)[of_shard]

        write_moments(temporary, moment, sum(map(len, rows)), kind.columns())
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
            "op_versions": plan.op_versions,
            "decoders": plan.decoders,
            **provenance(recipe),
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
    # Of machines that publish at once the first one stays, and the entry may be of another, which
    # may be killed before it comes here: attributes say how long the build took.
    write_json(entry, read_json(folder / "zarr.json")["attributes"]["basilar"])


def _write_clips(
    folder: Path, plan: Plan, shards: Sequence[ShardTables], shard_rows: int
) -> tuple[list[NDArray[np.int64]], list[int], int]:
    """Write clips.parquet and the rows of each clip, shard by shard.

    Returns, by shard, which of its clips these are and how many files it fills, and all frames.
    """
    n_files: list[int] = []
    rows, starts, n_frames = [], [], []
    schema = pa.schema(list(CLIP_COLUMNS.items()))
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
