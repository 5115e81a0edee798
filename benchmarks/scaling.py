"""Builds of ever more short clips: seconds, memory, reruns; plans of ever longer indices.

Part of `make bench-build`.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.recordings import wav, wavs
from benchmarks.usage import Usage, measured

RECIPE = Path(__file__).resolve().parents[1] / "params" / "log_mel_speech.toml"
STATED = {
    "sample_rate": 16_000,
    "channels": 1,
    "format": "FLAC",
    "codec": "PCM_16",
    "decoder": "soundfile",
    "lossy": False,
}
BASILAR = [sys.executable, "-c", "from basilar.pipeline.cli import main; main()"]


def scanned(folder: Path, manifest: Path) -> None:
    from basilar.pipeline.manifests.scan import scan

    scan(folder).write(manifest)


def built(manifest: Path, root: Path) -> dict[str, int]:
    """Build without MLflow; how many shards each stage computed."""
    from basilar.pipeline.build import luigi_engine
    from basilar.pipeline.build.build import Build
    from basilar.pipeline.manifests.manifest import Manifest
    from basilar.pipeline.plan import Plan
    from basilar.pipeline.recipes.recipe import Recipe
    from basilar.pipeline.tracking.location import embedded_tracking_uri

    plan = Plan(Recipe.load(RECIPE), Manifest.read(manifest))
    outcome = luigi_engine.run(
        Build(root=root, plan=plan, tracking_uri=embedded_tracking_uri(root)), workers=2, log=False
    )
    assert outcome.succeeded
    return outcome.computed


def command(manifest: Path, root: Path) -> tuple[float, Any]:
    """`basilar build` as a process: its seconds and what it said."""
    arguments = ["build", str(RECIPE), str(manifest), "--root", str(root), "--workers", "2"]
    started = time.perf_counter()
    done = subprocess.run([*BASILAR, *arguments, "--json"], check=True, stdout=subprocess.PIPE)
    return time.perf_counter() - started, json.loads(done.stdout)


def written(root: Path) -> int:
    """Bytes on the disk below a folder, linked files once."""
    status = [file.stat() for file in root.rglob("*") if file.is_file()]
    return sum({s.st_ino: s.st_blocks * 512 for s in status}.values())


def report(folder: Path, scratch: Path, sizes: list[int]) -> None:
    """Build each number of clips afresh, then again, then with one more."""
    found: dict[int, Usage] = {}
    for count in sizes:
        clips, manifest, root = wavs(folder, count), scratch / "clips.parquet", scratch / "root"
        scan = measured(scanned, clips, manifest)
        found[count] = build = measured(built, manifest, root)
        print(f"\n{count:,} clips of 0.2 to 0.5 s at 8 kHz")
        for name, usage in (("scan", scan), ("build", build)):
            print(
                f"  {name:14}{usage.seconds:8.1f} s  CPU {usage.cpu:7.1f} s  "
                f"{1e3 * usage.seconds / count:6.2f} s a 1,000, CPU "
                f"{1e3 * usage.cpu / count:6.2f} s  "
                f"main {usage.main / 2**20:6.0f} MB, a worker {usage.worker / 2**20:6.0f} MB"
            )
        print(f"  written       {written(root) / 2**20:8.0f} MB, {build.result}")
        print(f"  basilar build, to log it to MLflow: {command(manifest, root)[0]:.1f} s")
        seconds, said = command(manifest, root)
        assert said["shards_computed"] == 0
        print(f"  basilar build, cached: {seconds:.1f} s, the whole process")
        wav(added := clips / "added.wav", seed=count)
        again = measured(scanned, clips, manifest)
        more = measured(built, manifest, root)
        added.unlink()
        print(
            f"  one more clip: scan {again.seconds:.1f} s, build {more.seconds:.1f} s "
            f"(CPU {more.cpu:.1f} s), {more.result}"
        )
        shutil.rmtree(root)
        os.sync()
    if len(sizes) > 1:
        least, most = found[min(sizes)], found[max(sizes)]
        middle = found[sorted(sizes)[-2]]
        each = {n: u.seconds / n for n, u in found.items()}
        print(
            f"\n  a clip, {max(sizes):,} against {min(sizes):,}: "
            f"{each[max(sizes)] / each[min(sizes)]:.2f} (goal 1.3); "
            "peak RSS, what forks share counted in each: main "
            f"{most.main / least.main:.2f}, workers {most.worker / least.worker:.2f} (goal 1.2); "
            f"against {sorted(sizes)[-2]:,}: {most.main / middle.main:.2f}, "
            f"{most.worker / middle.worker:.2f}"
        )


def indexed(table: Path, count: int) -> None:
    """An index of clips that are nowhere, which states all that a scan would find."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    numbers = range(count)
    hashes = [hashlib.sha256(f"{count}:{i}".encode()).hexdigest() for i in numbers]
    columns = {
        "path": [f"speaker{i % 1000:04}/utterance{i:09}.flac" for i in numbers],
        "sha256": hashes,
        "label": [f"word{i % 10}" for i in numbers],
        "n_samples": [80_000 + i % 1000 for i in numbers],
        **{name: [value] * count for name, value in STATED.items()},
    }
    pq.write_table(pa.table(columns), table)


def planned(manifest: Path) -> int:
    """The shards of a plan, with its key."""
    from basilar.pipeline.manifests.manifest import Manifest
    from basilar.pipeline.plan import Plan
    from basilar.pipeline.recipes.recipe import Recipe

    plan = Plan(Recipe.load(RECIPE), Manifest.read(manifest))
    assert plan.key
    return len(plan.shards)


def report_plans(scratch: Path, sizes: list[int]) -> None:
    """Scan indices of ever more clips, whose files are not opened, and plan a build of each."""
    found: dict[str, dict[int, Usage]] = {"scan": {}, "plan": {}}
    for count in sizes:
        table, manifest = scratch / "index.parquet", scratch / "clips.parquet"
        measured(indexed, table, count)
        found["scan"][count] = measured(scanned, table, manifest)
        found["plan"][count] = measured(planned, manifest)
        print(f"\n{count:,} clips from an index that states their hashes")
        for name, usages in found.items():
            usage = usages[count]
            print(f"  {name:6}{usage.seconds:8.1f} s  {usage.main / 2**20:6.0f} MB")
    if len(sizes) > 1:
        least, most = min(sizes), max(sizes)
        for name, usages in found.items():
            seconds, memory = (
                (getattr(usages[most], what) - getattr(usages[least], what)) / (most - least)
                for what in ("seconds", "main")
            )
            print(f"  {name}: {1e6 * seconds:.0f} us and {memory:.0f} bytes a clip")
