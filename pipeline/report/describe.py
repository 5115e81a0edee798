"""Summaries of a store's tables and statistics: counts, histograms, profiles of bins, outliers.

A million clips fit in memory: text columns are dictionary-encoded, and moments are read for some
clips at a time.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from basilar.dsp import histogram, moments
from basilar.pipeline import storage
from basilar.pipeline.manifests.manifest import Manifest
from basilar.pipeline.recipes.kinds.base import Representation
from basilar.pipeline.recipes.kinds.framed import Logarithmic
from basilar.pipeline.store.layout import open_zarr
from basilar.pipeline.store.shard_tables import MOMENTS
from basilar.pipeline.training.feature_set import FeatureSet

MOST_ROWS = 50  # of a table
PERCENTILES = (1, 5, 25, 50, 75, 95, 99)
_CLIPS = 4096  # whose moments are read at one time


class Table(NamedTuple):
    """Text and numbers in named columns: the first of `total` rows, in the stated order."""

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    total: int
    order: str = ""


class Cells(NamedTuple):
    """A histogram: counts (cells,) between edges (cells + 1,)."""

    edges: NDArray[np.float64]
    counts: NDArray[np.int64]
    logarithmic: bool = False


@dataclass(frozen=True)
class Profile:
    """Statistics of each bin: float64 (bins,), `percentiles` (7, bins) in the order `PERCENTILES`.

    `counts` are int64 (bins, cells) between `edges`, float64 (cells + 1,), or (bins, cells + 1) if
    each bin has its own. `logarithmic`: values suit a logarithmic axis.
    """

    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    min: NDArray[np.float64]
    max: NDArray[np.float64]
    percentiles: NDArray[np.float64]
    counts: NDArray[np.int64]
    edges: NDArray[np.float64]
    logarithmic: bool
    unit: str


def unit_of(kind: Representation) -> str:
    """The unit of a representation's values, in words."""
    if kind.kind in ("mfcc", "pcen"):
        return "coefficient" if kind.kind == "mfcc" else "PCEN"
    if isinstance(kind, Logarithmic):
        unit = {"db": "dB", "ln": "ln", "log10": "log10"}[kind.log]
        return unit if (kind.shift, kind.factor) == (0.0, 1.0) else f"{unit}, scaled"
    return "magnitude" if kind.stored_dtype().kind == "c" else "value"


def columns(store: Path, *names: str) -> pa.Table:
    """Columns of the table of clips; label, split and group are dictionary-encoded."""
    few = [name for name in names if name in ("label", "split", "group")]
    with pq.ParquetFile(storage.fetch(store / "clips.parquet"), read_dictionary=few) as file:
        return file.read(columns=list(names), use_threads=False)


def coded(column: pa.ChunkedArray) -> tuple[list[str | None], NDArray[np.int64]]:
    """The sorted values of an encoded column, None last, and the index of each row's value."""
    whole = column.unify_dictionaries().combine_chunks()
    values: list[str | None] = [*whole.dictionary.to_pylist(), None]
    codes = whole.indices.fill_null(len(values) - 1).to_numpy(zero_copy_only=False)
    used, codes = np.unique(codes, return_inverse=True)
    order = sorted(range(len(used)), key=lambda i: (values[used[i]] is None, values[used[i]]))
    rank = np.empty(len(used), np.int64)
    rank[order] = np.arange(len(used))
    return [values[used[i]] for i in order], rank[codes]


def counted(clips: pa.Table, name: str, *, across: str = "") -> Table:
    """Clips, hours and frames for each value of a column; and clips for each value of `across`."""
    values, codes = coded(clips[name])
    hours, frames = (
        np.bincount(codes, clips[column].to_numpy(), len(values))
        for column in ("duration", "n_frames")
    )
    found: list[NDArray[Any]] = [
        np.bincount(codes, minlength=len(values)),
        hours / 3600,
        frames.astype(np.int64),
    ]
    columns = [name, "clips", "hours", "frames"]
    if across:
        others, other = coded(clips[across])
        columns += [f"in {value}" for value in others]
        found += [np.bincount(codes[other == i], minlength=len(values)) for i in range(len(others))]
    numbers = zip(*(column.tolist() for column in found), strict=True)
    shown = {None: "none", "": "(empty)"}
    rows = [(shown.get(value, value), *row) for value, row in zip(values, numbers, strict=True)]
    rows.sort(key=lambda row: (-row[1], row[0]))
    return Table(tuple(columns), rows[:MOST_ROWS], len(rows), "those with the most clips first")


def groups(clips: pa.Table) -> tuple[int, int] | None:
    """The number of groups, and of those that are in several splits; None without groups."""
    names, codes = coded(clips["group"])
    n_groups = sum(name is not None for name in names)
    if not n_groups:
        return None
    splits, split = coded(clips["split"])
    pairs = np.unique(codes * len(splits) + split)
    n_splits = np.bincount(pairs // len(splits), minlength=len(names))[:n_groups]
    return n_groups, int((n_splits > 1).sum())


def sources(manifest: Manifest) -> Table:
    """The formats, rates and channels of the clips' files."""
    columns = ("format", "codec", "decoder", "sample_rate", "channels")
    found = Counter(zip(*map(manifest.column, columns), strict=True))
    common = sorted(found.items(), key=lambda item: (-item[1], str(item[0])))
    rows = [(*(value or "none" for value in kind), count) for kind, count in common]
    names = ("format", "codec", "decoder", "Hz", "channels", "clips")
    return Table(names, rows[:MOST_ROWS], len(rows), "those with the most clips first")


def duration_cells(duration: NDArray[np.float64]) -> Cells:
    """A histogram of durations in seconds; its cells are logarithmic if a few are far longer."""
    low, high = float(duration.min()), float(duration.max())
    if low > 0 and high > 30 * float(np.median(duration)):
        edges = np.geomspace(low, high, 41)
        edges[-1] = high
        return Cells(edges, np.histogram(duration, edges)[0], logarithmic=True)
    if high - low < 1e-9:
        low, high = 0.9 * low, 1.1 * high
    counts, edges = np.histogram(duration, 40, (low, high))
    return Cells(edges, counts)


def level_cells(loud: NDArray[np.float64]) -> Cells:
    """A histogram of levels in cells of 2 dB; levels below -100 dB count as -100 dB."""
    clipped = np.clip(loud, -100.0, 5.999)
    low, high = np.floor(clipped.min() / 2) * 2, np.floor(clipped.max() / 2) * 2 + 2
    edges = np.arange(low, high + 1, 2.0)
    return Cells(edges, np.histogram(clipped, edges)[0])


def profiles(fs: FeatureSet, kind: Representation) -> tuple[Profile, Profile | None]:
    """The statistics of the fit split, as stored and as normalized (None if they are not)."""
    stats = {name: np.asarray(values) for name, values in fs.stats.items()}
    found = [histogram.quantile(stats["histogram"], q / 100, grid=kind.grid) for q in PERCENTILES]
    # Values below the lowest cell count in it, so percentiles are clipped to the range.
    percentiles = np.clip(np.stack(found), stats["min"], stats["max"])
    before = Profile(
        **{name: stats[name] for name in ("mean", "std", "min", "max")},
        percentiles=percentiles,
        counts=stats["histogram"],
        edges=stats["edges"],
        logarithmic=kind.grid.kind == "octave",
        unit=unit_of(kind),
    )
    if fs.recipe["normalization"]["kind"] == "none":
        return before, None
    centre, scale = (stats[name].astype(np.float64) for name in ("centre", "scale"))
    after = Profile(
        **{name: (stats[name] - centre) / scale for name in ("mean", "min", "max")},
        std=stats["std"] / scale,
        percentiles=(percentiles - centre) / scale,
        counts=stats["histogram"],
        edges=(stats["edges"] - centre[:, None]) / scale[:, None],
        logarithmic=False,
        unit="normalized value",
    )
    return before, after


def _of_clips(fs: FeatureSet, kind: Representation) -> Iterator[dict[str, NDArray[np.float64]]]:
    """Yield mean, std, min and max of clips (clips, bins), some clips at a time."""
    storage.fetch(fs.path, only="moments/")
    stored = [open_zarr(fs.path / "moments" / name) for name in MOMENTS]
    for start in range(0, len(fs), _CLIPS):
        some = slice(start, start + _CLIPS)
        found = np.stack([np.asarray(array[some]) for array in stored], axis=1)
        yield moments.of_clips(found, fs.n_frames[some], pivot=kind.pivot)


class Distances(NamedTuple):
    """The distance of each clip's mean from the set's, in standard deviations of the set.

    `score` is the root mean square over the bins, `bin` the farthest one, `farthest` its signed
    distance; `constant` is whether no bin of the clip ever changes.
    """

    score: NDArray[np.float64]
    bin: NDArray[np.int64]
    farthest: NDArray[np.float64]
    constant: NDArray[np.bool_]


def distances(fs: FeatureSet, kind: Representation) -> Distances:
    """The distance of each clip from the set, computed from moments: no features are read."""
    mean, std = (np.asarray(fs.stats[name]) for name in ("mean", "std"))
    std = np.where(std > 0, std, np.inf)
    parts = []
    for of_clips in _of_clips(fs, kind):
        z = (of_clips["mean"] - mean) / std
        bins = np.abs(z).argmax(axis=1)
        constant = (of_clips["min"] == of_clips["max"]).all(axis=1)
        score = np.sqrt(np.square(z).mean(axis=1))
        parts.append((score, bins, z[np.arange(len(z)), bins], constant))
    return Distances(*map(np.concatenate, zip(*parts, strict=True)))
