"""Ours and peers, each reading random crops, whole clips or batches and copying what it reads."""

from collections.abc import Callable
from importlib.util import find_spec
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from basilar import FeatureSet
from benchmarks.corpus import MELS, Corpus

FRAMES, BATCH = 128, 64
Ints = NDArray[np.int64]
Sets = dict[str, FeatureSet]  # by codec
Contender = Callable[[Ints, Ints], int | None]  # reads these clips and first frames, or says
Contenders = dict[tuple[str, str], Contender]  # how many others it read; by task and name


def crops(read: Callable[[int, int], Any], batch: NDArray[Any] | None = None) -> Contender:
    def copied(clips: Ints, starts: Ints) -> None:
        for row, clip, start in zip(cycle(batch), clips.tolist(), starts.tolist(), strict=False):
            row[...] = read(clip, start)

    def viewed(clips: Ints, starts: Ints) -> None:
        for clip, start in zip(clips.tolist(), starts.tolist(), strict=True):
            read(clip, start)

    return viewed if batch is None else copied


def whole(read: Callable[[int], Any], longest: NDArray[Any]) -> Contender:
    def run(clips: Ints, _: Ints) -> None:
        for clip in clips.tolist():
            x = read(clip)
            longest[: len(x)] = x

    return run


def batches(make: Callable[[Ints, Ints], Any]) -> Contender:
    def run(clips: Ints, starts: Ints) -> None:
        for i in range(0, len(clips), BATCH):
            make(clips[i : i + BATCH], starts[i : i + BATCH])

    return run


def by_numpy(corpus: Corpus, sets: Sets, batch: NDArray[Any]) -> Contenders:
    """Ours, and what people write with np.memmap: slices, and np.stack of them for a batch."""
    fs = sets["none"]
    normal = np.empty(batch.shape, np.float32)
    longest = np.empty((int(fs.n_frames.max()), MELS), corpus.dtype)
    mapped = np.memmap(corpus.flat, corpus.dtype, "r", shape=(int(fs.n_frames.sum()), MELS))
    first = np.cumsum(fs.n_frames) - fs.n_frames
    begin, end = first.tolist(), (first + fs.n_frames).tolist()
    centre, scale = fs.stats["centre"], fs.stats["scale"]

    def crop(clip: int, start: int) -> NDArray[Any]:
        row = begin[clip] + start
        return mapped[row : row + FRAMES]

    def slices(clips: Ints, starts: Ints) -> list[NDArray[Any]]:
        return [mapped[row : row + FRAMES] for row in (first[clips] + starts).tolist()]

    def into_buffer(clips: Ints, starts: Ints) -> None:
        for row, x in zip(batch, slices(clips, starts), strict=True):
            row[...] = x

    def normalized(fs: FeatureSet) -> Contender:
        return batches(lambda *at: fs.crops(*at, FRAMES, normalize=True, out=normal))

    found: Contenders = {
        ("crops", "np.memmap"): crops(crop, batch),
        ("views", "np.memmap"): crops(crop),
        ("clips", "np.memmap"): whole(lambda clip: mapped[begin[clip] : end[clip]], longest),
        ("batches", "np.memmap"): batches(lambda *at: np.stack(slices(*at))),
        ("batches", "np.memmap into a buffer"): batches(into_buffer),
        ("normalized", "np.memmap"): batches(lambda *at: (np.stack(slices(*at)) - centre) / scale),
        ("views", "ours, none"): crops(lambda *at: fs.read(*at, FRAMES)),
    }
    for codec, each in sets.items():
        name = f"ours, {codec}"
        found["crops", name] = crops(lambda *at, fs=each: fs.read(*at, FRAMES), batch)
        found["clips", name] = whole(each.read, longest)
        found["batches", name] = batches(lambda *at, fs=each: fs.crops(*at, FRAMES, out=batch))
        found["normalized", name] = normalized(each)
    return found


def by_others(corpus: Corpus, sets: Sets, batch: NDArray[Any]) -> Contenders:
    """Peers as their documentation has them: a row a clip, tars of .npy, our own Zarr arrays."""
    fs = sets["none"]
    longest = np.empty((int(fs.n_frames.max()), MELS), corpus.dtype)
    found: Contenders = {}
    if find_spec("datasets"):
        rows = fs.to_hf().with_format("numpy", columns=["features"], dtype=fs.dtype)
        found["crops", "datasets"] = crops(
            lambda clip, start: rows[clip]["features"][start : start + FRAMES], batch
        )
    if find_spec("webdataset"):
        import webdataset

        tars = [str(tar) for tar in sorted(corpus.tars.iterdir())]
        samples = webdataset.WebDataset(tars, shardshuffle=100).shuffle(1000).decode()

        def epoch(*_: Ints) -> int:
            for x in (sample["npy"] for sample in samples):
                longest[: len(x)] = x
            return len(fs)

        found["clips", "webdataset"] = epoch
    begin = fs.clips["start"].tolist()
    for codec, each in sets.items():

        def part(clip: int, start: int) -> slice:
            row = begin[clip] + start
            return slice(row, row + FRAMES)

        array = each.features
        found["crops", f"zarr, {codec}"] = crops(lambda *at, a=array: a[part(*at)], batch)
        if find_spec("tensorstore"):
            store = tensorstore_of(each.path / "features")
            found["crops", f"tensorstore, {codec}"] = crops(
                lambda *at, a=store: a[part(*at)].read().result(), batch
            )
    return found


def tensorstore_of(array: Path) -> Any:
    """With the cache and the rechecking of the tutorial, for one core."""
    import tensorstore

    spec = {
        "driver": "zarr3",
        "kvstore": {"driver": "file", "path": str(array)},
        "recheck_cached_data": "open",
        "context": {
            "cache_pool": {"total_bytes_limit": 100_000_000},
            "data_copy_concurrency": {"limit": 1},
        },
    }
    return tensorstore.open(spec, read=True).result()
