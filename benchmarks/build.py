"""Builds against peers on two processes, and builds of ever more clips. `make bench-build`.

Long MP3s (or `--format flac`) of real music and speech, stereo at 44.1 kHz, become log-mels of
22,050 Hz (128 bands, n_fft 2048, hop 512), stored. Each contender has a new process for each turn,
which does one short file first, so that imports do not count; then contenders take turns, round
after round, and write to a folder that is empty. Time is wall-clock and, since the machine may have
other work, CPU time of all processes; a ratio is that of the medians. Audio is in the page cache.

* "bare loop" is the least there is to do: soundfile, soxr and `dsp` on a Pool of 2, nothing stored.
* "ours" is the default build, `params/log_mel.toml` with two workers: manifest read, decoded,
  resampled (kept), represented, statistics, published, fsynced. Not in it: the scan, whose time is
  printed, and MLflow.
* Peers are called as their documentation shows, on two processes, and keep their usual storage.
"""

import os

for _name in ("OMP", "OPENBLAS", "MKL", "NUMBA"):
    os.environ[f"{_name}_NUM_THREADS"] = "1"
os.environ.pop("OPENBLAS_CORETYPE", None)

import argparse
import platform
import shutil
import sys
import tempfile
import warnings
from importlib.util import find_spec
from pathlib import Path
from statistics import median

from benchmarks import scaling
from benchmarks.builders import CONTENDERS, NEEDS, cut, prepared
from benchmarks.dsp import installed
from benchmarks.recordings import recordings
from benchmarks.usage import Usage, measured

INSTALLED = [name for name in CONTENDERS if find_spec(NEEDS.get(name, "soundfile"))]
PEERS = ("librosa", "soundfile", "soxr", "joblib", "lhotse", "torch", "datasets", "luigi", "zarr")
GOALS = {"bare loop": 0.6, "librosa, joblib": 2.0, "lhotse": 1.5, "datasets": 1.5}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="where audio is made, or found made")
    parser.add_argument("--hours", type=float, default=2.0, help="of long files; 0: none")
    parser.add_argument("--format", choices=["mp3", "flac"], default="mp3", help="of long files")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="*", choices=INSTALLED, default=[*INSTALLED])
    parser.add_argument("--clips", type=int, nargs="*", default=[1_000, 10_000, 100_000])
    parser.add_argument("--plans", type=int, nargs="*", default=[100_000, 1_000_000])
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    libraries = {name: installed(name) for name in ("numpy", *PEERS)}
    print(", ".join(f"{name} {number}" for name, number in libraries.items()))
    print(f"Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.folder or Path(temporary)).absolute()
        scratch = Path(temporary).absolute()
        os.environ["XDG_CACHE_HOME"] = str(scratch / "cache")
        os.environ["HF_DATASETS_CACHE"] = str(scratch / "datasets")
        os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = "1"
        if options.hours:
            files = recordings(folder, options.hours, options.format)
            throughput(files, scratch, options.hours, options.rounds, options.only)
        scaling.report(folder, scratch, options.clips)
        scaling.report_plans(scratch, options.plans)


def throughput(
    files: list[Path], scratch: Path, hours: float, rounds: int, only: list[str]
) -> None:
    everything, one = scratch / "all.parquet", scratch / "one.parquet"
    scanned = measured(prepared, files, everything)
    shortest = min(files, key=lambda file: file.stat().st_size)
    prepared([shortest], one)
    if "lhotse" in only:
        cut(files, everything)
        cut([shortest], one)
    print(f"\n{hours:g} h in {len(files)} {files[0].suffix[1:].upper()} files; {rounds} rounds")
    print(f"  scan, once, the cache empty: {scanned.seconds:.1f} s, CPU {scanned.cpu:.1f} s")
    spent: dict[str, list[Usage]] = {name: [] for name in only}
    for _ in range(rounds):
        for name in only:
            turn = scratch / "turn"
            turn.mkdir()
            spent[name].append(
                measured(CONTENDERS[name], everything, turn / "all", warm=(one, turn / "one"))
            )
            shutil.rmtree(turn)
    seconds = {name: median(u.seconds for u in usages) for name, usages in spent.items()}
    cpu = {name: median(u.cpu for u in usages) for name, usages in spent.items()}
    print(f"  {'':18}{'s':>8}{'CPU s':>8}{'x real time':>13}{'MB a process':>14}  it / ours")
    for name, usages in spent.items():
        speed = hours * 3600 / seconds[name]
        peak = max(max(u.main, u.worker) for u in usages) / 2**20
        line = f"  {name:18}{seconds[name]:8.1f}{cpu[name]:8.1f}{speed:13.0f}{peak:14.0f}"
        if name in GOALS and "ours" in spent:
            ratios = (seconds[name] / seconds["ours"], cpu[name] / cpu["ours"])
            line += f"  {ratios[0]:.2f}, of CPU time {ratios[1]:.2f} (goal {GOALS[name]})"
        print(line)


if __name__ == "__main__":
    main()
