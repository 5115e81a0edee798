"""Training reads against peers: one core, hot, interleaved, medians. `make bench-load`.

Log-mels of real music, float16 and float32, uncompressed and compact. Every contender is given
random places (clip, first frame), new ones each time, and copies what it reads into rows of a
buffer that is used again and again, so that all touch every byte; only "views" leaves that out.
Contenders take turns, round after round; a ratio is that of the medians, in brackets the least and
the largest of a round. All threads of the process are bound to one core, and time is the CPU time
of all of them, so that other work of the machine counts little. All files are in the page cache:
what is read from the disk nevertheless is printed. Peers that are not installed are left out.
"""

import os

for _name in ("OMP", "OPENBLAS", "MKL", "NUMBA"):
    os.environ[f"{_name}_NUM_THREADS"] = "1"
os.environ.pop("OPENBLAS_CORETYPE", None)

import argparse
import platform
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np

from basilar import FeatureSet
from benchmarks import cold
from benchmarks.contenders import BATCH, FRAMES, Contender, Contenders, Ints, by_numpy, by_others
from benchmarks.corpus import CODECS, MELS, Corpus
from benchmarks.dsp import installed

PEERS = ("datasets", "webdataset", "tensorstore", "zarr", "torch")
GOALS = {  # ours / theirs, at least: uncompressed, compact
    ("crops", "np.memmap"): (0.9, 0.07),
    ("clips", "np.memmap"): (0.8, 0.07),
    ("batches", "np.memmap"): (1.2, 0.07),
    ("crops", "datasets"): (50, 5),
    ("clips", "webdataset"): (8, 1.2),
    ("crops", "tensorstore"): (10, 1.5),
    ("crops", "zarr"): (100, 8),
}
Rates = dict[tuple[str, str], list[float]]  # items a second by task and contender, round by round


def race(
    contenders: Contenders, draw: Callable[[int], tuple[Ints, Ints]], rounds: int, seconds: float
) -> Rates:
    """Rates in turns of about `seconds`, after one to find out how many items that is."""

    def rate(contender: Contender, n: int) -> float:
        places = draw(n)
        started = time.process_time()
        done = contender(*places)
        return (n if done is None else done) / (time.process_time() - started)

    sizes = {}
    for name, contender in contenders.items():
        n = BATCH
        while n < (fits := rate(contender, n) * seconds / 2):
            n = min(4 * n, round(fits / BATCH + 1) * BATCH)
        sizes[name] = max(1, round(2 * fits / BATCH)) * BATCH
    rates: Rates = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, contender in contenders.items():
            rates[name].append(rate(contender, sizes[name]))
    return rates


def ratio(rates: Rates, task: str, name: str, codec: str) -> tuple[float, str]:
    """Ours / theirs: of the medians, and as text with the least and the largest of a round."""
    ours, theirs = rates.get((task, f"ours, {codec}")), rates.get((task, name))
    if not ours or not theirs or name.endswith(tuple(f", {c}" for c in CODECS if c != codec)):
        return 0.0, "-"
    value = median(ours) / median(theirs)
    by_round = [a / b for a, b in zip(ours, theirs, strict=True)]
    return value, f"{value:.3g} ({min(by_round):.3g} to {max(by_round):.3g})"


def report(rates: Rates) -> None:
    for task in dict.fromkeys(task for task, _ in rates):
        print(f"\n  {task:24}{'items/s':>16}{'ours / it':>26}{'ours, compact / it':>26}")
        for name in (name for of, name in rates if of == task):
            cells = [ratio(rates, task, name, codec)[1] for codec in CODECS]
            shown = "" if name.startswith("ours") else "".join(f"{cell:>26}" for cell in cells)
            print(f"    {name:22}{median(rates[task, name]):16,.0f}{shown}")
    print(f"\n  {'ours / theirs, and goals':24}{'uncompressed':>21}{'compact':>21}")
    for (task, peer), goals in GOALS.items():
        line = f"    {task + ', ' + peer:22}"
        for codec, goal in zip(CODECS, goals, strict=True):
            name = peer if (task, peer) in rates else f"{peer}, {codec}"
            value, _ = ratio(rates, task, name, codec)
            shown = f"{value:.3g} {'>=' if value >= goal else '< '} {goal}" if value else "-"
            line += f"{shown:>21}"
        print(line)


def measure(corpus: Corpus, rounds: int, seconds: float) -> None:
    sets = {codec: FeatureSet.open(path) for codec, path in corpus.paths.items()}
    n_frames = sets["none"].n_frames
    batch = np.empty((BATCH, FRAMES, MELS), corpus.dtype)
    contenders = by_numpy(corpus, sets, batch) | by_others(corpus, sets, batch)
    rng = np.random.default_rng(0)

    def draw(n: int) -> tuple[Ints, Ints]:
        clips = rng.integers(len(n_frames), size=n)
        return clips, (rng.random(n) * (n_frames[clips] - FRAMES + 1)).astype(np.int64)

    every, places = np.arange(len(n_frames)), draw(BATCH)
    contenders["crops", "np.memmap"](*places)
    values = batch.tobytes()
    for (task, name), contender in contenders.items():
        if task == "crops":
            contender(*places)
            assert batch.tobytes() == values, f"{name} reads other values"
        if task == "clips" or name == "datasets":  # have all pages in memory, and in our tables
            contender(every, np.zeros_like(every))
    before = cold.disk_reads()
    rates = race(contenders, draw, rounds, seconds)
    read = (cold.disk_reads() - before) / 1e6
    print(f"\n{corpus.dtype}: {rounds} rounds, {read:.1f} MB read from the disk")
    report(rates)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="where sets are built, or found built")
    parser.add_argument("--megabytes", type=int, default=1024, help="of each uncompressed set")
    parser.add_argument("--chunk-kib", type=int, help="of compact sets, if not the recipe's own")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=0.2, help="a contender's turn")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    libraries = {name: installed(name) for name in ("numpy", *PEERS)}
    print(", ".join(f"{name} {number}" for name, number in libraries.items()))
    print(f"Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        os.environ["HF_DATASETS_CACHE"] = str(folder / "datasets")
        os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = "1"
        corpora = [
            Corpus(folder, dtype, options.megabytes, options.chunk_kib)
            for dtype in ("float16", "float32")
        ]
        for corpus in corpora:  # before tensorstore, which does not survive DataLoader's forks
            cold.report(corpus)
        core = max(os.sched_getaffinity(0))
        for thread in Path("/proc/self/task").iterdir():
            os.sched_setaffinity(int(thread.name), {core})
        for corpus in corpora:
            measure(corpus, options.rounds, options.seconds)


if __name__ == "__main__":
    main()
