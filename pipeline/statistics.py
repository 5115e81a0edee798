"""The statistics of a feature set: merged from what its shards store, over the fit split only.

Moments are stored per clip and folded in content order, so they depend neither on shards nor on
workers. Histograms are integer counts; those of a shard are kept, so that a set which shares the
shard with another reads none of its features again.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from dsp import moments
from dsp.moments import N_CELLS, Grid, Summary
from pipeline.artifacts import Quarantined, read_table, replacing
from pipeline.keys import hash_of
from pipeline.shards import Plan

MOMENTS = ("sum", "sum_squares", "min", "max")  # the rows of `dsp.moments.moments`, in order
_ROWS = 8192  # of features that are counted at once


@dataclass(frozen=True)
class Statistics:
    """What is known of the frames of the fit split, per bin, and how to normalize by it.

    `histogram` is int64 (bins, 256), `edges` float64 (257,), `centre` and `scale` float32 (bins,).
    """

    n_clips: int
    summary: Summary
    histogram: NDArray[np.int64]
    edges: NDArray[np.float64]
    centre: NDArray[np.float32]
    scale: NDArray[np.float32]


@dataclass(frozen=True)
class ShardTables:
    """What a shard's artifact says of its clips, without their features."""

    clips: dict[str, list[Any]]
    quarantined: list[Quarantined]
    moments: NDArray[np.float64]
    seconds: dict[str, float]
    canary: list[str]  # warnings of the guard where it was computed
    folder: Path
    key: str

    @property
    def end_row(self) -> int:
        """The row after the last clip."""
        return self.clips["start"][-1] + self.clips["n_frames"][-1] if self.clips["start"] else 0


def read_shard(folder: Path) -> ShardTables:
    """Read the tables of a shard's artifact."""
    group = zarr.open_group(folder, mode="r")
    per_name = [np.asarray(group[f"moments/{name}"]) for name in MOMENTS]
    attributes: Any = group.attrs["basilar"]
    rows = read_table(folder / "quarantine.parquet").to_pylist()
    return ShardTables(
        clips=read_table(folder / "clips.parquet").to_pydict(),
        quarantined=[Quarantined(**{n: row[n] for n in Quarantined._fields}) for row in rows],
        moments=np.stack(per_name, axis=1),
        seconds=attributes["seconds"],
        canary=attributes.get("canary", []),
        folder=folder,
        key=attributes["key"],
    )


def fit(plan: Plan, shards: list[ShardTables], *, histograms: Path) -> Statistics:
    """The statistics of the clips that normalization is fitted on, folded in content order.

    Histograms of shards are kept in the folder `histograms`. Raises ValueError if the split holds
    no usable clip.
    """
    kind, normalization = plan.recipe.representation, plan.recipe.normalization
    where = {
        content: (shard, i) for shard in shards for i, content in enumerate(shard.clips["content"])
    }
    contents = [plan.manifest.contents[row] for row in plan.fit_rows()]
    places = [where[content] for content in contents if content in where]
    if not places:
        raise ValueError(
            f"normalization.split = {normalization.split!r} holds no usable clip: all of its "
            f"{len(contents)} are quarantined"
        )
    summary = moments.merge(
        np.stack([shard.moments[i] for shard, i in places]),
        np.array([shard.clips["n_frames"][i] for shard, i in places]),
        pivot=kind.pivot,
    )
    times = Counter(contents)
    histogram = np.zeros((kind.columns(), N_CELLS), np.int64)
    for shard in shards:
        weights = [times[content] for content in shard.clips["content"]]
        if any(weights):
            histogram += _shard_histogram(shard, weights, kind.grid, histograms)
    centre, scale = moments.centre_and_scale(
        summary, histogram, kind=normalization.kind, per=normalization.per, grid=kind.grid
    )
    return Statistics(len(places), summary, histogram, kind.grid.edges(), centre, scale)


def _shard_histogram(
    shard: ShardTables, weights: list[int], grid: Grid, folder: Path
) -> NDArray[np.int64]:
    """The histogram of a shard's clips, each counted as often as its weight says."""
    kept = folder / histogram_name(shard.key, weights)
    if kept.exists():
        loaded: NDArray[np.int64] = np.load(kept, allow_pickle=False)
        return loaded
    features: Any = zarr.open_group(shard.folder, mode="r")["features"]
    weight_of_row = np.zeros(shard.end_row, np.int64)
    for start, n_frames, weight in zip(
        shard.clips["start"], shard.clips["n_frames"], weights, strict=True
    ):
        weight_of_row[start : start + n_frames] = weight
    histogram = np.zeros((features.shape[1], N_CELLS), np.int64)
    for start in range(0, shard.end_row, _ROWS):
        here = weight_of_row[start : start + _ROWS]
        if not here.any():
            continue
        block = features[start : start + len(here)]
        for weight in np.unique(here[here > 0]):
            histogram += weight * moments.histogram(block[here == weight], grid=grid)
    with replacing(kept) as temporary, temporary.open("wb") as file:
        np.save(file, histogram, allow_pickle=False)
    return histogram


def histogram_name(shard_key: str, weights: list[int]) -> str:
    """The file that keeps the histogram of a shard whose clips are counted so often."""
    return f"{hash_of('histogram', shard=shard_key, weights=weights)}.npy"


def write_statistics(path: Path, statistics: Statistics) -> None:
    """Commit statistics as one NumPy archive."""
    summary = statistics.summary
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(
            file,
            counts=np.array([statistics.n_clips, summary.count]),
            summary=np.stack([summary.mean, summary.std, summary.min, summary.max]),
            histogram=statistics.histogram,
            edges=statistics.edges,
            normalization=np.stack([statistics.centre, statistics.scale]),
        )


def read_statistics(path: Path) -> Statistics:
    """Read statistics back."""
    with np.load(path, allow_pickle=False) as archive:
        n_clips, n_frames = archive["counts"].tolist()
        centre, scale = archive["normalization"]
        summary = Summary(n_frames, *archive["summary"])
        return Statistics(n_clips, summary, archive["histogram"], archive["edges"], centre, scale)
