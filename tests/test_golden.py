"""Feature sets of every store schema there has been are read, verified and built again.

`tests/golden/store-N` is a root as it was published under schema N: it is never made anew.
"""

import shutil

import numpy as np
import pytest

from basilar import FeatureSet
from basilar.pipeline.hashing import digest, values_hash
from basilar.pipeline.store import schema
from tests.conftest import REPOSITORY

ROOTS = {int(path.name[6:]): path for path in (REPOSITORY / "tests" / "golden").glob("store-*")}
DIGESTS = {1: "7c97958d1ae60c52adec1d5ff2ab6252"}


def test_every_schema_has_a_golden_root():
    assert set(ROOTS) == set(DIGESTS) == set(range(1, schema.STORE_SCHEMA + 1)), (
        "the schema of stores was raised: python -m tests.golden"
    )


@pytest.fixture(params=ROOTS)
def golden(request, tmp_path):
    """A copy of a root, its schema, and the key of the one set in it."""
    root = tmp_path / "root"
    shutil.copytree(ROOTS[request.param], root)
    (path,) = (root / "features").glob("*.zarr")
    return root, request.param, path.stem


def test_it_opens_and_its_values_have_its_digest(golden):
    root, schema, key = golden
    fs = FeatureSet.open(root / "features" / f"{key}.zarr")
    assert (fs.attributes["schema"], fs.key, fs.digest) == (schema, key, DIGESTS[schema])
    assert sorted(fs.clips["id"]) == ["0.wav", "1.wav", "2.wav"]
    assert set(fs.clips["split"]) == {"train", "test"}
    assert list(fs.quarantine["reason"]) == ["not_audio"]
    rows = zip(fs.clips["content"], map(values_hash, fs), map(len, fs), strict=True)
    assert digest(rows, n_bins=fs.n_bins, dtype=str(fs.dtype)) == fs.digest
    frames = np.concatenate([x.astype(np.float64) for x in fs.select(split="train")])
    np.testing.assert_allclose(fs.stats["mean"], frames.mean(axis=0), rtol=1e-12)
    per_clip = np.stack([x.max(axis=0) for x in fs])
    np.testing.assert_array_equal(fs.pooled("max"), per_clip)


def test_it_is_verified_and_built_again_to_the_bit(golden, as_json):
    root, schema, key = golden
    moved = ("--audio-root", root / "audio")
    code, found = as_json("verify", key, "--root", root, "--sample", 3, *moved)
    assert (code, found["problems"]) == (0, [])
    code, found = as_json("reproduce", key, "--root", root, *moved)
    assert (code, found["verdict"], found["digest_now"]) == (0, "identical", DIGESTS[schema])
