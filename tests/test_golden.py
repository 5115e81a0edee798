"""What users have stored: feature sets of every schema, a bundle, and a model logged to MLflow.

`tests/golden/store-N` is a root as it was once published, `bundle-N` a bundle of its set, and
`model-N` an MLflow model of that bundle, without the copy of the bundle that it holds. They are
never made again. Number 1 was made when modules lay in other places and SciPy computed spectra,
number 2 when `dsp.kernel` had come.
"""

import hashlib
import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from basilar import Bundle, FeatureSet, Loader
from basilar.errors import BundleError
from basilar.pipeline.hashing import digest, values_hash
from basilar.pipeline.store import schema
from tests.conftest import REPOSITORY

ROOTS = {int(path.name[6:]): path for path in (REPOSITORY / "tests" / "golden").glob("store-*")}
DIGESTS = {1: "7c97958d1ae60c52adec1d5ff2ab6252", 2: "8d0e1b2d9cf526a4b529e46b8d0a3359"}
LATEST = max(DIGESTS)
GOLDEN = REPOSITORY / "tests" / "golden"
BUNDLE, OLD_BUNDLE = GOLDEN / f"bundle-{LATEST}", GOLDEN / "bundle-1"
FILES = {  # SHA-256 of the paths and bytes of all files
    "store-1": "3c67131453474a8f92dd5b516e82310d",
    "bundle-1": "387f65c239fae496e605aa19ca8403a0",
    "store-2": "2876e0519ce6cc6af837c75068bfe804",
    "bundle-2": "77509e083a5a2420a84815f6b71e3750",
    "model-1": "5780d73df465e72b40649310c0ff6f7c",
}


def test_every_schema_has_a_golden_root():
    schemas = {FeatureSet.open(path).attributes["schema"] for path in stores()}
    assert schemas == set(range(1, schema.STORE_SCHEMA + 1)), (
        "the schema of stores was raised: python -m tests.golden N"
    )
    assert set(ROOTS) == set(DIGESTS)


def stores():
    return [path for root in ROOTS.values() for path in (root / "features").glob("*.zarr")]


@pytest.fixture(params=ROOTS)
def golden(request, tmp_path):
    """A copy of a root, its number, and the key of the one set in it."""
    root = tmp_path / "root"
    shutil.copytree(ROOTS[request.param], root)
    (path,) = (root / "features").glob("*.zarr")
    return root, request.param, path.stem


def test_it_opens_and_its_values_have_its_digest(golden):
    root, number, key = golden
    fs = FeatureSet.open(root / "features" / f"{key}.zarr")
    assert (fs.key, fs.digest) == (key, DIGESTS[number])
    assert sorted(fs.clips["id"]) == ["0.wav", "1.wav", "2.wav"]
    assert set(fs.clips["split"]) == {"train", "test"}
    assert list(fs.quarantine["reason"]) == ["not_audio"]
    rows = zip(fs.clips["content"], map(values_hash, fs), map(len, fs), strict=True)
    assert digest(rows, n_bins=fs.n_bins, dtype=str(fs.dtype)) == fs.digest
    frames = np.concatenate([x.astype(np.float64) for x in fs.select(split="train")])
    np.testing.assert_allclose(fs.stats["mean"], frames.mean(axis=0), rtol=1e-12)
    per_clip = np.stack([x.max(axis=0) for x in fs])
    np.testing.assert_array_equal(fs.pooled("max"), per_clip)


def test_it_is_verified_and_built_again(golden, as_json):
    root, number, key = golden
    moved = ("--audio-root", root / "audio")
    code, found = as_json("verify", key, "--root", root)
    assert (code, found["problems"]) == (0, [])
    code, found = as_json("verify", key, "--root", root, "--sample", 3, *moved)
    code_now, now = as_json("reproduce", key, "--root", root, *moved)
    if number == LATEST:
        assert (code, found["problems"]) == (0, [])
        assert (code_now, now["verdict"], now["digest_now"]) == (0, "identical", DIGESTS[number])
        return
    (problem,) = found["problems"]
    assert (code, "cannot be compared with their audio" in problem["problem"]) == (1, True)
    assert (code_now, now["verdict"]) == (3, "within_tolerance")
    assert now["changes"]["op representation"] == [2, 3]


def test_it_is_trained_on(golden):
    root, _, key = golden
    fs = FeatureSet.open(root / "features" / f"{key}.zarr")
    batches = list(Loader(fs, n_frames=8, batch_size=2, shuffle=False))
    assert sum(len(batch["features"]) for batch in batches) >= 2


@pytest.mark.parametrize("name", FILES)
def test_no_file_has_changed_since(name):
    sha256 = hashlib.sha256()
    for path in sorted((GOLDEN / name).rglob("*")):
        if path.is_file():
            sha256.update(path.relative_to(GOLDEN).as_posix().encode() + b"\0")
            sha256.update(hashlib.sha256(path.read_bytes()).digest())
    assert sha256.hexdigest()[:32] == FILES[name], f"{name} is never made again: restore it"
    assert {path.name for path in GOLDEN.glob("*-*")} == FILES.keys()


def in_a_clone(*arguments):
    """What Python prints where the folders of the repository are on the path."""
    command = [sys.executable, "-W", "ignore", *map(str, arguments)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_bundle_computes_what_it_computed():
    bundle = Bundle.load(BUNDLE)
    found = bundle.check()
    assert len(found) == 6
    assert all(golden.identical for golden in found), found
    (path,) = (GOLDEN / f"store-{LATEST}" / "features").glob("*.zarr")
    assert bundle.key == path.stem


def test_a_bundle_of_before_is_refused_with_what_it_needs():
    with pytest.raises(BundleError, match=r"representation': 2.*'representation': 3.*basilar 0\.1"):
        Bundle.load(OLD_BUNDLE)


def test_a_bundle_is_checked_by_the_command_that_it_prints():
    assert "python -m pipeline.bundle DIR" in (OLD_BUNDLE / "README.md").read_text("utf-8")
    said = in_a_clone("-m", "pipeline.bundle", BUNDLE).splitlines()
    assert said[0] == f"{BUNDLE}: the bundle of {Bundle.load(BUNDLE).key}"
    assert len(said) == 7
    assert all("identical" in line for line in said[1:])
    assert in_a_clone("-m", "basilar.pipeline.deployment.bundle", BUNDLE).splitlines() == said


USE = """
import sys
{code}
import basilar
bundle = {load}
assert Bundle is basilar.Bundle
twice = [name for name in sys.modules if name.startswith(("pipeline.", "dsp"))]
print(bundle.key, *twice, *{{"luigi", "mlflow", "zarr", "pandas"}} & sys.modules.keys())
"""


def test_a_bundle_is_loaded_as_its_own_readme_says():
    """Without loading a module twice, or the libraries of builds."""
    readme = (OLD_BUNDLE / "README.md").read_text("utf-8")
    (code,) = re.findall(r"^    (from .* import Bundle)$", readme, re.M)
    (load,) = re.findall(r"^    bundle = (Bundle.load\(.*\))$", readme, re.M)
    load = load.replace('"this folder"', repr(str(BUNDLE)))
    said = in_a_clone("-c", USE.format(code=code, load=load))
    assert said.split() == [Bundle.load(BUNDLE).key]
    light = "import sys, pipeline; print('numpy' in sys.modules, hasattr(pipeline, 'Other'))"
    assert in_a_clone("-c", light).split() == ["False", "False"]


PREDICT = """
import base64, json, sys
import numpy as np, pandas as pd
from mlflow import pyfunc
model, audio = sys.argv[1:]
rows = pd.DataFrame({"audio": [base64.b64encode(open(audio, "rb").read()).decode()]})
(found,) = pyfunc.load_model(model).predict(rows)
print(json.dumps([str(np.asarray(found).dtype), np.asarray(found).tolist()]))
"""


def test_a_model_that_was_logged_before_predicts_what_its_bundle_computes(tmp_path):
    model = shutil.copytree(GOLDEN / "model-1", tmp_path / "model")
    assert "from pipeline.bundle import Bundle" in (model / "served.py").read_text("utf-8")
    shutil.copytree(BUNDLE, model / "artifacts" / "bundle-1")
    audio = BUNDLE / "golden" / "canary.flac"
    said = in_a_clone("-c", PREDICT, model, audio)
    dtype, values = json.loads(said.splitlines()[-1])
    expected = Bundle.load(BUNDLE).transform_file(audio)
    found = np.asarray(values, dtype)  # JSON keeps every bit
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    assert found.tobytes() == expected.tobytes()
