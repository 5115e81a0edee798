"""What works without the libraries of builds, and without what Unix alone has."""

import subprocess
import sys
import textwrap

import pytest

from tests.conftest import REPOSITORY

GOLDEN = REPOSITORY / "tests" / "golden"
# Nothing can be imported but the standard library and what the project depends on, also indirectly.
CORE_ONLY = """
import re
import sys
from importlib.metadata import packages_distributions, requires


def allowed():
    names, found = ["basilar"], set()
    while names:
        name = names.pop()
        if name not in found:
            found.add(name)
            needs = [line for line in requires(name) or () if "extra ==" not in line]
            names += [re.match(r"[\\w.-]+", line)[0].lower() for line in needs]
    return found


def as_listed(name):
    return re.sub(r"[-_.]+", "-", name).lower()


class CoreOnly:
    core = set(map(as_listed, allowed()))
    of = packages_distributions()

    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        known = {as_listed(each) for each in self.of.get(top, ())}
        if not known or known & self.core:  # what is of no distribution is the standard library
            return None
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, CoreOnly())
"""
# What Windows does not have.
NO_UNIX = """
import mmap
import os
import shutil
import sys

shutil._use_fd_functions = False  # of the standard library, as on Windows
for name in ("fcntl", "resource", "grp", "pwd", "termios"):
    sys.modules[name] = None
for name in (
    *("fork", "forkpty", "register_at_fork", "pread", "preadv", "pwrite", "posix_fallocate"),
    *("sysconf", "fdatasync", "getuid", "geteuid", "killpg", "setsid", "statvfs"),
    *("O_NONBLOCK", "O_DIRECTORY", "O_CLOEXEC", "O_SYNC"),
):
    delattr(os, name)
for name in dir(mmap):
    if name.startswith(("MADV_", "PROT_", "MAP_")):
        delattr(mmap, name)
"""
SESSION = """
import sys
from pathlib import Path

import numpy as np

from basilar import Bundle, FeatureSet, Loader, Manifest, Recipe, Transform, __version__, errors
from basilar.pipeline import storage

golden = Path(sys.argv[1])
(path,) = (golden / "store-1" / "features").glob("*.zarr")
fs = FeatureSet.open(path)
assert fs.labels == [] and fs.label_codes.tolist() == [-1, -1, -1]
train, test = fs.select(split="train"), fs.select(split=["test"], label=None)
assert (len(fs), len(train) + len(test), len(fs.select(id="0.wav"))) == (3, 3, 1)
assert len(train) and len(test)
assert fs["0.wav"].tobytes() == fs.select(id={"0.wav"})[0].tobytes()
assert fs.pooled("mean", "std").shape == (3, 8)
assert fs.seconds([0, 1]).shape == (2,)
batches = list(Loader(fs, batch_size=2, n_frames=10, seed=1))
assert [batch["features"].shape for batch in batches] == [(2, 10, 4), (1, 10, 4)]
assert all(np.isfinite(batch["features"]).all() for batch in batches)
for access in ("map", "read"):
    again = FeatureSet.open(path, access=access)
    assert [x.tobytes() for x in again] == [x.tobytes() for x in fs]
    again.crops([0, 2], [1, 0], 5, normalize=True)

(file,) = (golden / "store-1" / "catalogue" / "manifests").glob("*.parquet")
from basilar import Manifest

assert len(Manifest.read(file)) == 4

recipe = Recipe.load("mel")
y = np.random.default_rng(0).standard_normal(16_000).astype(np.float32)
transform = Transform.from_recipe(recipe)
whole = transform.apply(y, sample_rate=16_000)
stream = transform.stream(16_000)
assert np.concatenate([stream.push(y), stream.finish()]).tobytes() == whole.tobytes()
bundle = Bundle.load(golden / "bundle-2")
assert all(found.identical for found in bundle.check())
assert np.isfinite(bundle.transform_file(golden / "store-1" / "audio" / "0.wav")).all()
"""
MISSING = """
asked = {
    "pandas clips": lambda: fs.clips,
    "pandas quarantine": lambda: fs.quarantine,
    "pandas query": lambda: fs.select("n_frames > 1"),
    "zarr features": lambda: fs.features,
    "tomli_w recipe": recipe.to_toml,
}
for name, ask in asked.items():
    try:
        ask()
    except errors.MissingLibraryError as error:
        said = str(error)
        assert f": it needs {name.split()[0]} (" in said, said
        assert said.endswith("; install it with pip install 'basilar[build]'"), said
    else:
        raise AssertionError(name)
try:
    FeatureSet.open("s3://bucket/features/KEY.zarr")
except errors.StorageError as error:
    assert str(error).endswith("install it with pip install 'basilar[s3]'"), error
else:
    raise AssertionError("s3")
"""
NO_BUILDS = """
try:
    import basilar.pipeline.build.build
except errors.UnsupportedSystemError as error:
    assert "scans and builds need a system that forks" in str(error)
else:
    raise AssertionError("build")
from basilar.pipeline.manifests.scan import scan

try:
    scan(golden / "store-1" / "audio")
except errors.UnsupportedSystemError:
    pass
else:
    raise AssertionError("scan")
"""


def python(code, *arguments):
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd="/", timeout=300)


@pytest.mark.slow
@pytest.mark.parametrize(
    "code",
    [
        CORE_ONLY + SESSION + MISSING,
        NO_UNIX + SESSION + NO_BUILDS,
        CORE_ONLY + NO_UNIX + SESSION + MISSING + NO_BUILDS,
    ],
    ids=["core only", "no Unix", "both"],
)
def test_the_core_reads_trains_and_deploys(code):
    done = python(code, GOLDEN)
    assert (done.returncode, done.stderr) == (0, "")
