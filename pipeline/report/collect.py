"""Collect the contents of a report from the store and the root of a published feature set.

`collect` reads tables, statistics and moments, never all features, and measures the audio of clips
(`report.listening`); `report.page` turns the result into one HTML file. Long lists are cut to the
first or the worst entries, and say how many there are.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from basilar.pipeline.manifests.manifest import Manifest
from basilar.pipeline.manifests.table import take_rows
from basilar.pipeline.plan import Plan
from basilar.pipeline.progress import Progress
from basilar.pipeline.recipes.recipe import Recipe
from basilar.pipeline.report import describe
from basilar.pipeline.report.describe import MOST_ROWS, PERCENTILES, Cells, Profile, Table
from basilar.pipeline.report.examples import Example, chosen, examples
from basilar.pipeline.report.listening import Heard, decibels, listen
from basilar.pipeline.report.plots import axes
from basilar.pipeline.storage import checksums, files
from basilar.pipeline.training.feature_set import FeatureSet

MOST_BINS = 256  # in the table of statistics
SILENT = 1e-3  # of full scale: every sample of a silent clip is below it
CLIPPED = 1e-3  # share of a clipped clip's samples that are at full scale
FAR_OUT = 3.0  # interquartile ranges above the third quartile: Tukey's far out


class Node(NamedTuple):
    """A hash, what it covers, and the hashes it is made from."""

    name: str
    value: str
    note: str = ""
    below: "tuple[Node, ...]" = ()


@dataclass(frozen=True)
class Report:
    """The contents of a report.

    `groups` is the number of groups, and of those that are in several splits; `n_heard` the number
    of clips whose audio was measured, and `problems` why that of others could not be.
    """

    attributes: dict[str, Any]
    recipe: Recipe
    hours: float
    n_bytes: int
    dtype: str
    splits: Table
    labels: Table
    n_labels: int
    groups: tuple[int, int] | None
    sources: Table
    durations: Cells
    levels: Cells | None
    n_heard: int
    problems: list[str]
    before: Profile
    after: Profile | None
    per_bin: Table
    silent: Table
    clipped: Table
    outliers: Table
    examples: list[Example]
    reasons: Table
    quarantine: Table
    tree: Node
    shards: Table
    built: dict[str, Any] | None


def collect(
    fs: FeatureSet,
    manifest: Manifest,
    *,
    built: dict[str, Any] | None = None,
    seconds: float = float("inf"),
    progress: Progress = lambda items, total: items,
) -> Report:
    """Collect the report of a feature set whose clips are those of `manifest`.

    `built` is the root's record of its build (`build.registry.recorded`); about `seconds` of audio
    are measured. Raises OSError or DamagedArtifactError if the store cannot be read.
    """
    recipe = fs.typed_recipe
    plan = Plan(recipe, manifest, fs.attributes["shard_seconds"])
    clips = describe.columns(fs.path, "id", "label", "split", "group", "duration", "n_frames")
    duration = clips["duration"].to_numpy()
    shown, n_labels = chosen(clips)
    heard = listen(
        fs.path, plan, n_clips=len(fs), seconds=seconds, excerpts=shown, progress=progress
    )
    before, after = describe.profiles(fs, recipe.representation)
    far = describe.distances(fs, recipe.representation)
    measured = np.isfinite(heard.peak)
    silent = np.where(measured, heard.peak < SILENT, far.constant)
    clipped = np.nan_to_num(heard.full) >= CLIPPED
    lost = files.read_table(fs.path / "quarantine.parquet")
    stored = checksums.read_checksums(fs.path).items()
    return Report(
        attributes=fs.attributes,
        recipe=recipe,
        hours=float(duration.sum()) / 3600,
        n_bytes=sum(size for name, (size, _) in stored if name.startswith("features/")),
        dtype=str(fs.dtype),
        splits=describe.counted(clips, "split"),
        labels=describe.counted(clips, "label", across="split"),
        n_labels=n_labels,
        groups=describe.groups(clips),
        sources=describe.sources(manifest),
        durations=describe.duration_cells(duration),
        levels=describe.level_cells(decibels(heard.rms[measured])) if measured.any() else None,
        n_heard=int(measured.sum()),
        problems=list(dict.fromkeys(heard.problems)),
        before=before,
        after=after,
        per_bin=_per_bin(before, recipe),
        silent=_loudness(clips, np.flatnonzero(silent), heard, "in content order"),
        clipped=_loudness(
            clips,
            np.flatnonzero(clipped)[np.argsort(-heard.full[clipped], kind="stable")],
            heard,
            "the worst first",
        ),
        outliers=_outliers(clips, far),
        examples=list(examples(fs, clips, shown, heard)),
        reasons=_reasons(lost),
        quarantine=Table(
            ("clip", "stage", "reason", "message"),
            [tuple(row.values()) for row in _rows(lost, ["id", "stage", "reason", "message"])],
            len(lost),
            "in content order",
        ),
        tree=_tree(fs.attributes),
        shards=_shards(fs.attributes, plan),
        built=built,
    )


def _per_bin(profile: Profile, recipe: Recipe) -> Table:
    """The statistics of each bin, with its frequency if it has one."""
    across = axes.columns(recipe)
    hertz = {} if across.scale is None else {"Hz": across.centres}
    values = {
        **hertz,
        **{name: getattr(profile, name) for name in ("mean", "std", "min")},
        **{f"{p} %": row for p, row in zip(PERCENTILES, profile.percentiles, strict=True)},
        "max": profile.max,
    }
    rows = zip(*(column[:MOST_BINS].tolist() for column in values.values()), strict=True)
    listed = [(i, *row) for i, row in enumerate(rows)]
    return Table(("bin", *values), listed, len(profile.mean), "from bin 0 on")


def _loudness(clips: pa.Table, rows: NDArray[np.int64], heard: Heard, order: str) -> Table:
    """The table of clips that are listed for their level."""
    named = rows[:MOST_ROWS]
    levels = zip(
        decibels(heard.rms[named]).tolist(),
        decibels(heard.peak[named]).tolist(),
        (100 * heard.full[named]).tolist(),
        strict=True,
    )
    listed = [(*clip, *level) for clip, level in zip(_names(clips, named), levels, strict=True)]
    columns = ("clip", "label", "split", "RMS, dBFS", "peak, dBFS", "at full scale, %")
    return Table(columns, listed, len(rows), order)


def _outliers(clips: pa.Table, far: describe.Distances) -> Table:
    """The table of clips whose distance from the set is an outlier by Tukey's rule."""
    quartiles = np.percentile(far.score, [25, 75])
    limit = quartiles[1] + FAR_OUT * (quartiles[1] - quartiles[0])
    rows = np.flatnonzero(far.score > limit)
    rows = rows[np.argsort(-far.score[rows], kind="stable")]
    named = rows[:MOST_ROWS]
    listed = [
        (*clip, float(far.score[row]), int(far.bin[row]), float(far.farthest[row]))
        for clip, row in zip(_names(clips, named), named.tolist(), strict=True)
    ]
    columns = ("clip", "label", "split", "distance, σ", "farthest bin", "there, σ")
    return Table(columns, listed, len(rows), "the farthest first")


def _names(clips: pa.Table, rows: NDArray[np.int64]) -> list[tuple[str, str, str]]:
    some = take_rows(clips, ["id", "label", "split"], rows).to_pylist()
    return [(clip["id"], clip["label"] or "none", clip["split"]) for clip in some]


def _reasons(lost: pa.Table) -> Table:
    found = Counter((row["stage"], row["reason"]) for row in _rows(lost, ["stage", "reason"], None))
    rows = [(*kind, count) for kind, count in found.most_common()]
    return Table(("stage", "reason", "clips"), rows, len(rows))


def _rows(table: pa.Table, names: list[str], most: int | None = MOST_ROWS) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = table.select(names).slice(0, most).to_pylist()
    return rows


def _tree(attributes: dict[str, Any]) -> Node:
    """The hashes of a feature set, from its key down to the decode stage."""
    hashes, versions = attributes.get("hashes", {}), attributes["op_versions"]
    node: tuple[Node, ...] = ()
    for stage, version in versions.items():
        note = f"op version {version}, and the parameters of [{stage}]"
        value = hashes.get(stage, "not recorded")
        node = (Node(f"{stage} recipe hash", value, note, node),)
    decoders = ", ".join(attributes["decoders"])
    n_clips = attributes["clips"] + attributes["quarantined"]
    return Node(
        "key",
        attributes["key"],
        "identifies the set: the address of its store",
        (
            *node,
            Node(
                "manifest hash",
                attributes["manifest_hash"],
                f"content, id, label, split and group of {n_clips:,} clips",
            ),
            Node("decoders", decoders or "none", "of lossy files, with versions"),
        ),
    )


def _shards(attributes: dict[str, Any], plan: Plan) -> Table:
    """The shards of the plan, with the key of each stage's artifact."""
    files = attributes.get("shards", {})
    by_key = {name.partition(".")[0]: count for name, count in files.items()}
    rows = [
        (
            shard.index,
            len(shard.rows),
            shard.seconds,
            by_key.get(shard.keys["representation"], "not known"),
            *shard.keys.values(),
        )
        for shard in plan.shards[:MOST_ROWS]
    ]
    columns = (
        "shard",
        "clips",
        "seconds",
        "files",
        *(f"{stage} key" for stage in plan.shards[0].keys),
    )
    return Table(columns, rows, len(plan.shards), "in content order")
