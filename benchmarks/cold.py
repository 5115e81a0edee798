"""What a feature set costs beside speed: opening it, reads of a cold disk, memory, PyTorch."""

import os
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from resource import getpagesize
from statistics import median
from typing import Any

import numpy as np

from basilar import FeatureSet, Loader
from benchmarks.contenders import FRAMES
from benchmarks.corpus import MELS, Corpus

CROPS = 500


def report(corpus: Corpus) -> None:
    """Nothing of the corpus may be mapped: pages that are mapped stay in memory."""
    none, compact = corpus.paths.values()
    fs = FeatureSet.open(none)
    print(f"\n{corpus.dtype}: {len(fs):,} clips, {fs.n_frames.sum():,} frames of {MELS} bands")
    values = int(fs.n_frames.sum()) * MELS * fs.dtype.itemsize
    stored = sum(file.stat().st_blocks * 512 for file in compact.glob("features/c/*/0"))
    print(f"  values {values / 2**20:,.0f} MiB, compact {stored / 2**20:,.0f} MiB")
    times = []
    for _ in range(9):
        started = time.process_time()
        FeatureSet.open(none).read(0, 0, FRAMES)
        times.append(time.process_time() - started)
    print(f"  opening it and reading a crop: {1e3 * median(times):.1f} ms")

    rng = np.random.default_rng(1)
    clips = rng.integers(len(fs), size=CROPS)
    starts = (rng.random(CROPS) * (fs.n_frames[clips] - FRAMES)).astype(np.int64)
    rows = (np.cumsum(fs.n_frames) - fs.n_frames)[clips] + starts
    del fs

    def ours(path: Path, access: Any) -> int:
        fs = FeatureSet.open(path, access=access)
        places = zip(clips.tolist(), starts.tolist(), strict=True)
        return touched(fs.read(clip, start, FRAMES) for clip, start in places)

    def by_memmap() -> int:
        mapped = np.memmap(corpus.flat, corpus.dtype, "r").reshape(-1, MELS)
        return touched(mapped[row : row + FRAMES] for row in rows.tolist())

    read = {
        "ours, mapped": amplification(none, lambda: ours(none, "map")),
        "ours, read": amplification(none, lambda: ours(none, "read")),
        "ours, compact": amplification(compact, lambda: ours(compact, "read")),
        "np.memmap": amplification(corpus.flat, by_memmap),
    }
    shown = ", ".join(f"{name} {value:.2f}" for name, value in read.items())
    print(f"  bytes from a cold disk per byte of {CROPS} random crops: {shown}")

    for path, name in ((none, "uncompressed"), (compact, "compact")):
        fs = FeatureSet.open(path, access="read")
        fs.read(0)
        before = resident()
        size = touched(fs)
        grown = (resident() - before) / 1e6
        print(f"  memory grows by {grown:.1f} MB over {size / 1e6:,.0f} MB read, {name}, unmapped")
    if find_spec("torch"):
        torch(FeatureSet.open(none))


def torch(fs: FeatureSet) -> None:
    """Batches of normalized float32 crops as DataLoader gives them, on all cores."""
    from torch.utils.data import DataLoader

    loader = Loader(fs, batch_size=64, n_frames=FRAMES, crops_per_clip=8, drop_last=True)
    for workers in (0, 2):
        batches = DataLoader(
            loader,  # type: ignore[arg-type]
            sampler=loader.sampler(),
            batch_size=None,
            num_workers=workers,
            persistent_workers=workers > 0,
        )
        rates = []
        for _ in range(4):
            started = time.perf_counter()
            size = sum(batch["features"].nbytes for batch in batches)
            rates.append(size / (time.perf_counter() - started))
        rate = median(rates[1:])
        print(
            f"  DataLoader, {workers} workers: {rate / 1e6:,.0f} MB/s, "
            f"{rate / (4 * FRAMES * MELS):,.0f} crops/s, float32 normalized"
        )


def amplification(path: Path, read: Callable[[], int]) -> float:
    """Bytes from the disk per byte that `read` returns, when nothing of `path` is in memory."""
    for file in [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]:
        descriptor = os.open(file, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)
    before = disk_reads()
    size = read()
    return (disk_reads() - before) / size


def touched(arrays: Any) -> int:
    """Bytes of arrays, all of which are looked at."""
    return sum(len(x.tobytes()) for x in arrays)


def disk_reads() -> int:
    """Bytes that this process has had read from disks."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in lines)["read_bytes"])


def resident() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * getpagesize()
