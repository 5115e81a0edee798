"""Damaged shard files and indices: the right values, or an error; never a crash.

The index of a shard file is covered by a checksum, Blosc frames by their lengths. The bytes of the
data themselves, and those of zarr.json, are not covered on reading: `basilar verify` compares them
with files.json.
"""

import json
import random
import shutil
import signal
import subprocess
import sys
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from basilar.pipeline.errors import DamagedArtifactError
from basilar.pipeline.store.reader import RowReader
from tests.conftest import REPOSITORY
from tests.fuzz import examples
from tests.fuzz.recipes import WRONG, paths
from tests.pipeline.store.test_reader import create, noise

ROWS, BINS, CHUNK, SHARD = 100, 16, 8, 64
N_CHUNKS = SHARD // CHUNK


@pytest.fixture(scope="module", params=["none", "compact"])
def array(request, tmp_path_factory):
    """An array of two files, the second half full; its values, and whether it is compressed."""
    folder = tmp_path_factory.mktemp("reader") / "features"
    made = create(
        folder, shape=(ROWS, BINS), chunk_rows=CHUNK, shard_rows=SHARD, codec=request.param
    )
    made[:] = noise(ROWS, BINS)
    return folder, made[:], request.param != "none"


@examples(80)
@given(
    st.integers(0, 2**32), st.sampled_from(["0", "1"]), st.sampled_from(["map", "read"]), st.data()
)
def test_a_damaged_shard_file_is_refused_where_a_checksum_covers_it(
    array, seed, name, access, data
):
    folder, values, compressed = array
    chance = random.Random(seed)
    copied = folder.with_name("damaged")
    shutil.rmtree(copied, ignore_errors=True)
    shutil.copytree(folder, copied)
    file = copied / "c" / name / "0"
    content = bytearray(file.read_bytes())
    index = len(content) - 16 * N_CHUNKS - 4
    match data.draw(st.sampled_from(["index", "data", "cut", "longer", "removed"])):
        case "index":
            content[index + chance.randrange(16 * N_CHUNKS + 4)] ^= 1 << chance.randrange(8)
            touched = None
        case "data":
            at = chance.randrange(index)
            content[at] ^= 1 << chance.randrange(8)
            touched = at
        case "cut":
            del content[chance.randrange(len(content)) :]
            touched = None
        case "longer":
            content += chance.randbytes(chance.choice([1, 16, 4096]))
            touched = None
        case "removed":
            at = chance.randrange(len(content))
            del content[at : at + chance.choice([1, 8, 64])]
            touched = None
    file.write_bytes(content)
    rows = RowReader(copied, access=access)
    first, stop = (0, SHARD) if name == "0" else (SHARD, ROWS)
    try:
        found = rows.read(first, stop)
    except DamagedArtifactError as error:
        assert str(file) in str(error)
        return
    assert touched is not None, "what the index does not describe was read"
    assert found.shape == (stop - first, BINS)
    if not compressed:  # no checksum covers them: one value differs, in its place
        different = np.flatnonzero((found != values[first:stop]).ravel())
        assert set(different) <= {touched // 4}


@examples(80)
@given(WRONG, st.data())
def test_a_damaged_description_gives_values_or_an_error(array, value, data):
    folder, _, _ = array
    copied = folder.with_name("described")
    shutil.copytree(folder, copied, dirs_exist_ok=True)
    described = json.loads((folder / "zarr.json").read_text())
    *outer, last = data.draw(st.sampled_from(paths(described)[1:]))
    inner = described
    for key in outer:
        inner = inner[key]
    if isinstance(inner, dict) and data.draw(st.booleans()):
        del inner[last]
    else:
        inner[last] = value
    try:
        (copied / "zarr.json").write_text(json.dumps(described))
    except TypeError:  # a date
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # that zarr-python reads it
            rows = RowReader(copied)
        if rows.access != "zarr":
            found = rows.read(0, min(10, rows.shape[0]))
            assert found.shape == (min(10, rows.shape[0]), rows.shape[1])
    except DamagedArtifactError as error:
        assert str(copied) in str(error)


def test_a_file_that_is_cut_after_it_was_checked_ends_its_process_and_no_other(array, tmp_path):
    """Shard files are never cut in place; who does so to a mapped one has SIGBUS."""
    folder, _, compressed = array
    if compressed:
        return
    shutil.copytree(folder, tmp_path / "features")
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from basilar.pipeline.store.reader import RowReader\n"
        "folder, when = Path(sys.argv[1]), sys.argv[2]\n"
        "if when == 'before': os.truncate(folder / 'c' / '0' / '0', 100)\n"
        "rows = RowReader(folder, access='map')\n"
        "rows.read(0, 1)\n"
        "os.truncate(folder / 'c' / '0' / '0', 0)\n"
        "rows.read(0, 64).sum()\n"
    )
    for when, expected in (("before", 1), ("after", -signal.SIGBUS)):
        shutil.copytree(folder, tmp_path / when)
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / when), when],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
        )
        assert done.returncode == expected
        assert ("DamagedArtifactError" in done.stderr) == (when == "before")
