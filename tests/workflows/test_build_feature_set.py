"""The same feature set by all ways to build it, from outside, as users do."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from basilar.pipeline import storage
from basilar.pipeline.manifests.scan import scan
from basilar.pipeline.recipes.hashes import STAGES
from basilar.workflows.build_feature_set import BuildFeatureSet
from tests.conftest import REPOSITORY
from tests.pipeline.clusters import Processes, dask, done_by, luigid

RECIPE = str(REPOSITORY / "params" / "log_mel.toml")


@pytest.fixture(autouse=True)
def _tracker(monkeypatch, tracker):
    """What all processes log to: making the tables of another takes longer than their work."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracker)


def basilar(*arguments):
    return run(Path(sys.executable).with_name("basilar"), *arguments)


def run(*command):
    return subprocess.run(
        [str(part) for part in command],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=600,
    )


def luigi(manifest, root, *options):
    return run(
        *(
            sys.executable,
            "-m",
            "luigi",
            "--module",
            "workflows.build_feature_set",
            "BuildFeatureSet",
        ),
        *("--recipe", RECIPE, "--manifest", manifest, "--root", root, *options),
    )


def digests(root):
    done = basilar("ls", "--root", root, "--json")
    return {entry["key"]: entry["digest"] for entry in json.loads(done.stdout)["feature_sets"]}


@pytest.fixture
def manifest(audio_folder, tmp_path):
    scan(audio_folder).write(tmp_path / "m.parquet")
    return tmp_path / "m.parquet"


@pytest.mark.slow
def test_all_ways_give_the_same_keys_and_digests(manifest, tmp_path):
    built = basilar("build", RECIPE, manifest, "--root", tmp_path / "cli")
    assert built.returncode == 0, built.stderr
    local = luigi(manifest, tmp_path / "local", "--local-scheduler", "--shard-seconds", "2")
    assert local.returncode == 0, local.stderr
    with Processes() as processes:
        url = luigid(processes, tmp_path / "luigid")
        central = luigi(manifest, tmp_path / "central", "--scheduler-url", url, "--workers", "2")
        assert central.returncode == 0, central.stderr
        assert {name for name, _ in done_by(url)} >= {"Resample", "Represent", "LogRun"}
        cluster, _ = dask(processes, tmp_path / "cluster", workers=1)
        options = ("--local-scheduler", "--dask", cluster, "--workers", "2")
        mapped = luigi(manifest, tmp_path / "dask", *options)
    assert mapped.returncode == 0, mapped.stderr
    assert "MapShards" in mapped.stderr
    ways = [digests(tmp_path / way) for way in ("cli", "local", "central", "dask")]
    assert ways == [ways[0]] * 4
    assert len(ways[0]) == 1


@pytest.mark.slow
def test_exit_codes_of_luigis_own_command(manifest, audio_folder, tmp_path):
    assert luigi(manifest, tmp_path / "root", "--local-scheduler").returncode == 0
    again = luigi(manifest, tmp_path / "root", "--local-scheduler")
    assert again.returncode == 0
    assert "1 complete ones were encountered" in again.stderr
    shutil.rmtree(audio_folder)
    failed = luigi(manifest, tmp_path / "other", "--local-scheduler", "--workers", "2")
    assert failed.returncode == 1
    unknown = luigi(tmp_path / "missing.parquet", tmp_path / "root", "--local-scheduler")
    assert unknown.returncode != 0


@pytest.mark.slow
def test_a_dead_tracker_fails_no_workflow(manifest, tmp_path, tracker):
    root = tmp_path / "root"
    dead = luigi(manifest, root, "--local-scheduler", "--tracking-uri", "http://127.0.0.1:9")
    assert dead.returncode == 0, dead.stderr
    assert "not logged to MLflow" in dead.stderr
    assert len(digests(root)) == 1
    (marker,) = (root / "runs").glob("*.json")
    assert json.loads(marker.read_text())["run_id"] is None
    alive = luigi(manifest, root, "--local-scheduler", "--tracking-uri", tracker)
    assert alive.returncode == 0
    assert len(list((root / "runs").glob("*.json"))) == 2
    again = luigi(manifest, root, "--local-scheduler", "--tracking-uri", "http://127.0.0.1:9")
    assert "not logged to MLflow" in again.stderr  # it is tried at every build


@pytest.mark.slow
def test_the_environment_names_the_tracker(manifest, tmp_path, tracker):
    done = luigi(
        *(manifest, tmp_path / "root", "--local-scheduler", "--register-as", "workflow@latest-one")
    )
    assert done.returncode == 0
    (marker,) = (tmp_path / "root" / "runs").glob("*.json")
    known = json.loads(marker.read_text())
    assert (known["uri"], known["registered_as"]) == (tracker, "workflow@latest-one")
    assert known["run_id"]
    n_shards = known["built"]["shards"]
    assert known["built"]["pending"] == dict.fromkeys(STAGES, n_shards)
    assert 0 < known["built"]["seconds"] < time.time() - known["built"]["started"]


def test_a_url_is_a_root_by_its_name(manifest, tmp_path):
    said = {"recipe": RECIPE, "manifest": str(manifest), "tracking_uri": "http://127.0.0.1:9"}
    task = BuildFeatureSet(**said, root="memory://bucket/root", audio_root="memory://bucket/audio")
    assert task.to_str_params()["root"] == "memory://bucket/root"
    key = task.planned.plan.key
    assert task.output().path == f"memory://bucket/root/features/{key}.zarr"
    assert storage.name(task.planned.plan.manifest.root) == "memory://bucket/audio"
    again = BuildFeatureSet.from_str_params(task.to_str_params())
    assert (again.task_id, again.root) == (task.task_id, task.root)
    assert BuildFeatureSet(**{**said, "root": "root"}).root == Path("root").absolute()


def test_the_time_of_a_clip_is_no_part_of_the_workflows_identity(manifest, tmp_path):
    said = {"recipe": RECIPE, "manifest": str(manifest), "root": str(tmp_path / "root")}
    hasty = BuildFeatureSet(**said, clip_timeout=5.0)
    assert hasty.planned.clip_timeout == 5.0
    assert hasty.task_id == BuildFeatureSet(**said).task_id
