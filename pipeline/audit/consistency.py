"""Check that a store agrees with its values, its recipe, its manifest and the catalogue.

Every file is assumed to have its recorded checksum (`audit.verify` checks that first). A problem
found here was written wrong, or was changed together with its checksum.
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from basilar.dsp import moments, normalize
from basilar.dsp.histogram import N_CELLS, histogram
from basilar.pipeline import storage
from basilar.pipeline.errors import DamagedArtifactError
from basilar.pipeline.hashing import digest, values_hash
from basilar.pipeline.recipes.hashes import recipe_hashes
from basilar.pipeline.recipes.recipe import Recipe
from basilar.pipeline.records.record import Record, read_attributes
from basilar.pipeline.storage.checksums import checksum
from basilar.pipeline.storage.files import read_json, read_table
from basilar.pipeline.store.dense import dense
from basilar.pipeline.store.shard_tables import MOMENTS
from basilar.pipeline.training.feature_set import FeatureSet

_ROWS = 8192  # of features, counted at one time
_CLIPS = 64  # in a batch, which one thread checks

Map = Callable[[Callable[[Any], Any], list[Any]], Iterable[Any]]


class Problem(NamedTuple):
    """A file that is not as it was published, and what is wrong with it."""

    file: str
    problem: str


def check(root: Path, record: Record, fs: FeatureSet, each: Map) -> Iterator[Problem]:
    """Check everything that the files of a store and the catalogue state about it.

    `each` maps a function over batches of clips, in order.
    """
    yield from check_catalogue(root, record)
    tables = list(check_tables(record, fs))
    yield from tables
    if not tables:
        yield from check_values(record, fs, each)


def check_catalogue(root: Path, record: Record) -> Iterator[Problem]:
    """Check that the catalogue has all that a rebuild needs once the store is gone."""
    folder, attributes = root / "catalogue", record.attributes
    file = folder / "features" / f"{record.key}.json"
    try:
        if read_attributes(file) != attributes:
            yield Problem(str(file), f"is not what {record.store}/zarr.json says")
    except DamagedArtifactError as error:
        yield Problem(str(file), str(error))
    file = folder / "features" / f"{record.key}.parquet"
    clips_file = storage.fetch(record.clips_file)
    if not storage.exists(file) or checksum(storage.fetch(file)) != checksum(clips_file):
        yield Problem(str(file), f"is not a copy of {record.clips_file}")
    file = folder / "recipes" / f"{attributes['recipe_hash']}.json"
    try:
        recorded = read_json(file)
        same = recorded == attributes["recipe"]  # but for what no hash depends on
        recipe = record.recipe if same else Recipe.from_dict(recorded)
        hashes = recipe_hashes(recipe, attributes["op_versions"], recorded)
        if hashes != attributes["hashes"]:
            yield Problem(str(file), "does not hash to its name")
    except (OSError, ValueError, AttributeError, DamagedArtifactError) as error:
        yield Problem(str(file), f"cannot be read: {error}")


def check_tables(record: Record, fs: FeatureSet) -> Iterator[Problem]:
    """Check that each clip of the manifest is in quarantine, or in the store with equal fields."""
    clips_file, clips, manifest = str(record.clips_file), record.clips, record.manifest
    names = ("id", "sha256", "offset", "label", "group")
    columns: dict[str, list[Any]] = {name: manifest.column(name) for name in names}
    columns |= {"content": manifest.contents, "split": manifest.splits}
    quarantine = fs.path / "quarantine.parquet"
    lost = set(read_table(quarantine).column("id").to_pylist())
    for clip_id in sorted(lost - set(columns["id"])):
        yield Problem(str(quarantine), f"{clip_id} is not a clip of the manifest")
    rows = [row for row in manifest.order if columns["id"][row] not in lost]
    if len(rows) != len(clips):
        yield Problem(clips_file, f"has {len(clips)} clips; {len(rows)} of the manifest are usable")
        return
    for row, clip in zip(rows, clips, strict=True):
        for name, column in columns.items():
            if clip[name] != column[row]:
                said = f"{name} is {clip[name]!r}, in the manifest {column[row]!r}"
                yield Problem(clips_file, f"{clip['id']}: {said}")
    for name in ("start", "n_frames"):
        if dense(fs.path / name).tolist() != [clip[name] for clip in clips]:
            yield Problem(str(fs.path / name), f"is not what {clips_file} says")
    frames = sum(clip["n_frames"] for clip in clips)
    for name, total in {"clips": len(clips), "frames": frames, "quarantined": len(lost)}.items():
        if record.attributes[name] != total:
            said = f"{name} is {record.attributes[name]}, and should be {total}"
            yield Problem(str(fs.path / "zarr.json"), said)


def check_values(record: Record, fs: FeatureSet, each: Map) -> Iterator[Problem]:
    """Compute hash, moments and statistics of every clip again, and the digest of the set."""
    clips, recipe = record.clips, record.recipe
    kind, split = recipe.representation, recipe.normalization.split
    storage.fetch(fs.path, only="moments/")
    stored = np.stack([dense(fs.path / "moments" / name) for name in MOMENTS], axis=1)
    fitted = np.array([split in ("all", clip["split"]) for clip in clips])
    same: dict[tuple[Any, ...], list[int]] = {}  # clips of equal content share their rows
    for row, clip in enumerate(clips):
        same.setdefault((clip["start"], clip["n_frames"], clip["values_sha256"]), []).append(row)
    groups = list(same.values())

    def look(batch: list[list[int]]) -> tuple[list[Problem], NDArray[np.int64]]:
        problems = []
        counts = np.zeros((fs.n_bins, N_CELLS), np.int64)
        for rows in batch:
            clip = clips[rows[0]]
            try:
                x = fs.read(rows[0])
            except (DamagedArtifactError, IndexError, OSError) as error:
                problems.append(Problem(_file_of(fs, rows[0]), f"{clip['id']}: {error}"))
                continue
            described = moments.moments(x, pivot=kind.pivot).tobytes()
            if values_hash(x) != clip["values_sha256"]:
                said = f"{clip['id']}: its values do not hash to values_sha256"
                problems.append(Problem(_file_of(fs, rows[0]), said))
            elif any(stored[row].tobytes() != described for row in rows):
                said = f"those of {clip['id']} do not match its values"
                problems.append(Problem(str(fs.path / "moments"), said))
            if weight := int(fitted[rows].sum()):
                for start in range(0, len(x), _ROWS):
                    counted = histogram(x[start : start + _ROWS], grid=kind.grid)
                    counts += weight * counted
        return problems, counts

    batches = [groups[i : i + _CLIPS] for i in range(0, len(groups), _CLIPS)]
    counts = np.zeros((fs.n_bins, N_CELLS), np.int64)
    for problems, counted in each(look, batches):
        yield from problems
        counts += counted

    n_frames = np.array([clip["n_frames"] for clip in clips])
    found = digest(
        ((clip["content"], clip["values_sha256"], clip["n_frames"]) for clip in clips),
        n_bins=fs.n_bins,
        dtype=str(fs.dtype),
    )
    if found != record.digest:
        said = f"digest is {record.digest}; the values hash to {found}"
        yield Problem(str(fs.path / "zarr.json"), said)
    summary = moments.merge([(stored[fitted], n_frames[fitted])], pivot=kind.pivot)
    normalization = recipe.normalization
    centre, scale = normalize.centre_and_scale(
        summary, counts, kind=normalization.kind, per=normalization.per, grid=kind.grid
    )
    expected: dict[str, NDArray[Any]] = {
        **{name: getattr(summary, name) for name in ("mean", "std", "min", "max")},
        **{"centre": centre, "scale": scale, "histogram": counts, "edges": kind.grid.edges()},
    }
    for name, values in expected.items():
        if dense(fs.path / "stats" / name).tobytes() != values.tobytes():
            yield Problem(str(fs.path / "stats" / name), "does not match the values")
    fitted_on = {"frames": summary.count, "clips": int(fitted.sum())}
    file = fs.path / "stats" / "zarr.json"
    if read_json(file)["attributes"] != fitted_on:
        yield Problem(str(file), f"its counts are not {fitted_on}")


def _file_of(fs: FeatureSet, row: int) -> str:
    """The shard file that a clip starts in."""
    return str(fs.path / "features" / "c" / str(fs.files[row]) / "0")
