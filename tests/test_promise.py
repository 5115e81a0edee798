"""The promise as a whole: built by Luigi here, rebuilt from its hash elsewhere, to the bit."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from basilar.pipeline.manifests.scan import scan
from tests.conftest import REPOSITORY
from tests.test_bits import CORES, DISPATCHED

RECIPE = str(REPOSITORY / "params" / "log_mel.toml")


def run(folder, *command, **environment):
    return subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture(scope="module")
def published(built, tmp_path_factory, tracker):
    """A set built by `python -m luigi` in one environment: its attributes, and its folder."""
    folder = tmp_path_factory.mktemp("promise")
    audio = shutil.copytree(built.plan.manifest.root, folder / "audio")
    scan(audio, label="parent").write(folder / "m.parquet")
    done = run(
        REPOSITORY,
        *(
            sys.executable,
            "-m",
            "luigi",
            "--module",
            "workflows.build_feature_set",
            "BuildFeatureSet",
        ),
        *("--recipe", RECIPE, "--manifest", folder / "m.parquet", "--root", folder / "root"),
        *("--tracking-uri", tracker, "--local-scheduler", "--workers", "2"),
        OPENBLAS_CORETYPE=CORES[0],
        OPENBLAS_NUM_THREADS="2",
    )
    assert done.returncode == 0, done.stderr
    (file,) = (folder / "root" / "catalogue" / "features").glob("*.json")
    return json.loads(file.read_text()), folder


def elsewhere(folder, key, *options, **environment):
    """Reproduce in another environment, from another folder."""
    cpu = {"NPY_DISABLE_CPU_FEATURES": " ".join(DISPATCHED)} if DISPATCHED else {}
    done = run(
        folder,
        *(Path(sys.executable).with_name("basilar"), "reproduce", key, *options, "--json"),
        OPENBLAS_CORETYPE=CORES[-1],
        OPENBLAS_NUM_THREADS="1",
        **cpu,
        **environment,
    )
    return done.returncode, json.loads(done.stdout)


@pytest.mark.slow
def test_a_set_built_by_luigi_is_reproduced_elsewhere_from_its_mlflow_run_alone(
    published, tmp_path, tracker
):
    attributes, folder = published
    audio = tmp_path / "moved"
    for i, file in enumerate(sorted((folder / "audio").rglob("*.wav"))):
        audio.mkdir(exist_ok=True)
        shutil.copy(file, audio / f"{i}.renamed.wav")
    shutil.move(folder, gone := tmp_path / "gone")
    try:
        code, found = elsewhere(
            tmp_path,
            attributes["key"][:10],
            *("--tracking-uri", tracker, "--audio-root", audio, "--into", tmp_path / "new"),
            *("--workers", 1, "--shard-seconds", 1.5),
        )
    finally:
        shutil.move(gone, folder)
    assert (code, found["verdict"], found["source"]) == (0, "identical", "mlflow")
    assert found["digest"] == found["digest_now"] == attributes["digest"]
    assert found["found_elsewhere"] == 13
    made = json.loads((Path(found["path"]) / "zarr.json").read_text())["attributes"]["basilar"]
    assert len(made["shards"]) > len(attributes["shards"]) == 1


@pytest.mark.slow
def test_a_set_built_by_luigi_is_reproduced_from_the_catalogue_when_the_store_is_gone(published):
    attributes, folder = published
    shutil.rmtree(folder / "root" / "features")
    code, found = elsewhere(folder, attributes["key"], "--root", "root", "--workers", 2)
    assert (code, found["verdict"], found["source"]) == (0, "identical", "catalogue")
