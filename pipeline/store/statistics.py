"""The statistics of a feature set: merged from what its shards store, over the fit split only.

Moments are stored per clip and folded in content order, so they depend neither on shards nor on
workers. Histograms are integer counts; those of a shard are kept, so that a set which shares the
shard with another reads none of its features again.
"""

import io
import zlib
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from basilar.dsp import moments, normalize
from basilar.dsp.histogram import N_CELLS, Grid, histogram
from basilar.dsp.moments import Summary
from basilar.pipeline import storage
from basilar.pipeline.errors import DamagedArtifactError, ManifestError
from basilar.pipeline.hashing import hash_of
from basilar.pipeline.manifests.table import release_memory
from basilar.pipeline.plan import Plan, Shard
from basilar.pipeline.storage.atomic import remove, replacing
from basilar.pipeline.store.reader import RowReader
from basilar.pipeline.store.shard_tables import ShardTables

_ROWS = 8192  # of features that are counted at once
_CLIPS = 1024  # whose moments are merged at once


@dataclass(frozen=True)
class Statistics:
    """The statistics of the frames of the fit split, per bin, and what normalization takes of them.

    `histogram` is int64 (bins, 256), `edges` float64 (257,), `centre` and `scale` float32 (bins,).
    """

    n_clips: int
    summary: Summary
    histogram: NDArray[np.int64]
    edges: NDArray[np.float64]
    centre: NDArray[np.float32]
    scale: NDArray[np.float32]


def fit_statistics(plan: Plan, shards: Sequence[ShardTables], *, histograms: Path) -> Statistics:
    """The statistics of the clips that normalization is fitted on, folded in content order.

    `shards` are those of the plan; histograms of shards are kept in the folder `histograms`. Raises
    ManifestError if the split holds no usable clip.
    """
    kind, normalization = plan.recipe.representation, plan.recipe.normalization
    histogram = np.zeros((kind.columns(), N_CELLS), np.int64)
    n_clips = 0

    def fitted() -> Iterator[tuple[NDArray[np.float64], NDArray[np.int64]]]:
        nonlocal n_clips
        for planned, shard in zip(plan.shards, shards, strict=True):
            clips = shard.clips
            weights = _weights(plan, planned, clips)
            if not weights.any():
                continue
            n_clips += int(weights.sum())
            histogram[...] += _histogram(shard, clips, weights, kind.grid, histograms)
            storage.drop(shard.folder / "features" / "c")  # if they were fetched to be counted
            rows = np.repeat(np.arange(len(weights)), weights)
            n_frames, moments_of = clips["n_frames"].to_numpy(), shard.moments
            for start in range(0, len(rows), _CLIPS):
                some = rows[start : start + _CLIPS]
                yield np.stack([each[some] for each in moments_of], axis=1), n_frames[some]
            release_memory()
        if n_clips == 0:
            raise ManifestError(
                f"normalization.split: {normalization.split!r} holds no usable clip, all of its "
                f"{plan.is_fitted.sum()} are quarantined; mend them, or name another split"
            )

    summary = moments.merge(fitted(), pivot=kind.pivot)
    centre, scale = normalize.centre_and_scale(
        summary, histogram, kind=normalization.kind, per=normalization.per, grid=kind.grid
    )
    return Statistics(n_clips, summary, histogram, kind.grid.edges(), centre, scale)


def write_histogram(plan: Plan, planned: Shard, shard: ShardTables, *, histograms: Path) -> None:
    """Count the values of a shard of a plan ahead of `fit_statistics`, which reads the file."""
    clips = shard.clips
    weights = _weights(plan, planned, clips)
    if weights.any():
        _histogram(shard, clips, weights, plan.recipe.representation.grid, histograms)


def _weights(plan: Plan, planned: Shard, clips: pa.Table) -> NDArray[np.int64]:
    """How often each content of a shard is in the fit split."""
    times = Counter(plan.manifest.contents_of(planned.rows[plan.is_fitted[planned.rows]]))
    return np.array([times[content] for content in clips["content"].to_pylist()], np.int64)


def _histogram(
    shard: ShardTables, clips: pa.Table, weights: NDArray[np.int64], grid: Grid, folder: Path
) -> NDArray[np.int64]:
    """The histogram of a shard's clips, each counted as often as its weight says.

    It is read from the folder, or counted and kept there.
    """
    kept = folder / histogram_name(shard.key, weights.tolist())
    if storage.exists(kept):
        with suppress(DamagedArtifactError):  # it is counted again
            return _read_arrays(kept)["histogram"]
    counts = _count(shard, clips, weights, grid)
    _write_arrays(kept, histogram=counts)
    return counts


def _count(
    shard: ShardTables, clips: pa.Table, weights: NDArray[np.int64], grid: Grid
) -> NDArray[np.int64]:
    """Count the values of a shard, whose working copy is made if it is remote."""
    features = RowReader(storage.fetch(shard.folder) / "features", access="read")
    starts, n_frames = (clips[name].to_numpy() for name in ("start", "n_frames"))
    weight_of_row = np.zeros(int(starts[-1] + n_frames[-1]), np.int64)
    for start, count, weight in zip(starts, n_frames, weights, strict=True):
        weight_of_row[start : start + count] = weight
    counts = np.zeros((features.shape[1], N_CELLS), np.int64)
    for start in range(0, len(weight_of_row), _ROWS):
        here = weight_of_row[start : start + _ROWS]
        if not here.any():
            continue
        block = features.read(start, start + len(here))
        for weight in np.unique(here[here > 0]):
            counts += weight * histogram(block[here == weight], grid=grid)
    return counts


def histogram_name(shard_key: str, weights: list[int]) -> str:
    """The file of the histogram of a shard with these weights of its clips."""
    return f"{shard_key}-{hash_of('histogram', weights=weights)}.npz"


def forget(artifacts: Path, shard_keys: Collection[str]) -> None:
    """Remove from the folder `artifacts` what was made of shards that have been found damaged.

    Statistics do not say of which shards they are: all go, and are soon merged again.
    """
    for file in storage.children(artifacts / "histogram", "*.npz"):
        if file.name.partition("-")[0] in shard_keys:
            remove(file)
    for file in storage.children(artifacts / "statistics", "*.npz"):
        remove(file)


def write_statistics(path: Path, statistics: Statistics) -> None:
    """Commit statistics as one NumPy archive."""
    summary = statistics.summary
    _write_arrays(
        path,
        counts=np.array([statistics.n_clips, summary.count]),
        summary=np.stack([summary.mean, summary.std, summary.min, summary.max]),
        histogram=statistics.histogram,
        edges=statistics.edges,
        normalization=np.stack([statistics.centre, statistics.scale]),
    )


def read_statistics(path: Path) -> Statistics:
    """Read statistics back. Raises DamagedArtifactError if they are not what was written."""
    arrays = _read_arrays(path)
    n_clips, n_frames = arrays["counts"].tolist()
    centre, scale = arrays["normalization"]
    summary = Summary(n_frames, *arrays["summary"])
    return Statistics(n_clips, summary, arrays["histogram"], arrays["edges"], centre, scale)


def _write_arrays(path: Path, **arrays: Any) -> None:
    """Commit a NumPy archive and its CRC-32: that of a zip file does not cover all of it."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    data = buffer.getvalue()
    with replacing(path) as temporary:
        temporary.write_bytes(data + zlib.crc32(data).to_bytes(4, "little"))


def _read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """What `_write_arrays` wrote. Raises DamagedArtifactError if it is anything else."""
    written = storage.fetch(path).read_bytes()
    data, crc = written[:-4], written[-4:]
    if not data or zlib.crc32(data) != int.from_bytes(crc, "little"):
        raise DamagedArtifactError(f"{path}: damaged; delete it and build again")
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        return dict(archive.items())
