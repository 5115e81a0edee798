"""Recordings longer than memory: built under a limit of the memory that cannot be given back.

Counted is what a process has for itself (RssAnon) and what it shares in memory (RssShmem): mapped
files are the system's cache. The limit of private memory (RLIMIT_DATA) is the kernel's.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from basilar.pipeline.recipes.recipe import Recipe
from tests.conftest import REPOSITORY

pytestmark = pytest.mark.usefixtures("disk")
PROBE = """
import json, os, resource, sys, threading, time
from pathlib import Path

folder, recipe, root, slices, limit = sys.argv[1:]
from basilar import FeatureSet
from basilar.pipeline.build import luigi_engine  # what a build imports
from basilar.pipeline.storage import scratch
from basilar.pipeline.store import publish
from basilar.pipeline.recipes.recipe import Recipe
from basilar.pipeline.manifests.scan import scan
from basilar.pipeline.plan import Plan
from basilar.pipeline.process import configure
from basilar.pipeline.build.build import Build
from basilar.dsp import streaming, resample

if int(slices):
    streaming._SPAN = resample._BLOCK = scratch.IN_MEMORY = int(slices)

def held(process):
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(x.split()[1]) for x in lines if x.startswith(("RssAnon", "RssShmem"))) << 10

def watch():
    children = f"/proc/self/task/{os.getpid()}/children"
    while True:
        for process in [os.getpid(), *map(int, Path(children).read_text().split())]:
            most[process] = max(most.get(process, 0), held(process))
        time.sleep(0.02)

configure()
manifest = scan(Path(folder))
plan = Plan(Recipe.load(Path(recipe)), manifest)
build = Build(root=Path(root), plan=plan, tracking_uri="")
before, most = held(os.getpid()), {}
if int(limit):
    resource.setrlimit(resource.RLIMIT_DATA, (int(limit), int(limit)))
threading.Thread(target=watch, daemon=True).start()
started = time.monotonic()
assert luigi_engine.run(build, workers=1, log=False).succeeded
seconds = time.monotonic() - started
fs = FeatureSet.open(build.store)
frames = fs.clips["n_frames"].tolist()
print(json.dumps([before, max(most.values()), seconds, frames, fs.digest]))
"""


def built(folder: Path, recipe: str, root: Path, *, slices: int = 0, limit: int = 0) -> list:
    """Memory before and at most in bytes, seconds, frames of each clip, and digest of a build."""
    arguments = (folder, REPOSITORY / "params" / f"{recipe}.toml", root, slices, limit)
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *map(str, arguments)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def record(corpora: Path, file: Path, *, minutes: int) -> None:
    """Music again and again, at another level each time, as FLAC at 44.1 kHz."""
    y, _ = sf.read(corpora / "music" / "pyminiaudio__music.flac", dtype="float32")
    y = y.reshape(len(y), -1)[:, 0]
    levels, left = np.random.default_rng(0), minutes * 60 * 44100
    file.parent.mkdir()
    with sf.SoundFile(file, "w", 44100, 1) as out:
        while left:
            block = y[:left]
            out.write(block * np.float32(levels.uniform(0.3, 1)))
            left -= len(block)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_recording(corpora, tmp_path):
    """Ten minutes are 106 MB decoded, 53 MB resampled, 13 MB of features."""
    record(corpora, tmp_path / "audio" / "long.flac", minutes=10)
    plain = built(tmp_path / "audio", "log_mel", tmp_path / "plain")
    sliced = built(tmp_path / "audio", "log_mel", tmp_path / "sliced", slices=1 << 20)
    assert sliced[3:] == plain[3:] == [[25840], sliced[4]]
    assert sliced[1] - sliced[0] < 90 << 20


@pytest.mark.torture
@pytest.mark.parametrize("recipe", ["log_mel", "mfcc", "log_cqt"])
def test_twelve_hours_fit_into_a_gigabyte(corpora, tmp_path, recipe):
    record(corpora, tmp_path / "audio" / "long.flac", minutes=720)
    _, most, seconds, frames, _ = built(
        tmp_path / "audio", recipe, tmp_path / "root", limit=1 << 30
    )
    print(f"{recipe}: 12 hours in {seconds:.0f} s, {most >> 20} MiB")
    kind = Recipe.load(REPOSITORY / "params" / f"{recipe}.toml").representation
    assert frames == [kind.n_frames(12 * 3600 * 22050)]
    assert most < 1 << 30
