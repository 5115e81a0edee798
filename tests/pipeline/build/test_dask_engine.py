import sys

import pytest

from basilar.pipeline import errors
from basilar.pipeline.build import dask_engine, luigi_engine
from basilar.pipeline.build.build import Build, build_of
from basilar.pipeline.manifests.scan import scan
from basilar.pipeline.plan import Plan
from basilar.pipeline.recipes.recipe import Recipe
from basilar.pipeline.storage import files
from tests.conftest import SMALL
from tests.pipeline.clusters import Processes, dask


@pytest.fixture
def plan(audio_folder):
    return Plan(Recipe.from_dict(SMALL), scan(audio_folder), 0.7)


@pytest.fixture
def clean(plan, tmp_path):
    """The digest of the plan's set, built here."""
    build = Build(root=tmp_path / "clean", plan=plan, tracking_uri="")
    assert luigi_engine.run(build, workers=1, log=False).succeeded
    return digest(build)


def digest(build):
    return files.read_json(build.store / "zarr.json")["attributes"]["basilar"]["digest"]


def kept(build):
    return {path.parent.name for path in (build.root / "artifacts").glob("[dr]e*/[!.]*")}


def test_one_call_makes_a_shard_and_writes_what_is_kept(plan, tmp_path):
    for keep in (("representation",), ("resample",), ("decode", "resample", "representation")):
        build = Build(root=tmp_path / "-".join(keep), plan=plan, tracking_uri="", keep=keep)
        text = build.register()
        dask_engine.compute(text, 0)
        assert kept(build_of(text)) == {*keep, "representation"}
        assert [len(build.work().pending[s]) for s in keep] == [len(plan.shards) - 1] * len(keep)


@pytest.mark.slow
def test_a_dask_cluster_builds_the_same_set(plan, clean, tmp_path):
    with Processes() as processes:
        file, _ = dask(processes, tmp_path / "dask")
        build = Build(root=tmp_path / "root", plan=plan, tracking_uri="", dask=str(file))
        outcome = luigi_engine.run(build, workers=1, log=False)
        assert outcome.succeeded
        assert outcome.computed["representation"] == len(plan.shards) > 4
        assert digest(build) == clean
        # An error is that of the shard, and the others are made.
        other = Build(root=tmp_path / "other", plan=plan, tracking_uri="", dask=str(file))
        (plan.manifest.root / plan.shards[1].sources[0].path).unlink()
        text = other.register()
        with pytest.raises(FileNotFoundError):
            dask_engine.map_shards(text, plan.shards, address=str(file))
        assert [s.index for s in other.work().pending["representation"]] == [1]


def test_without_dask_the_message_says_what_to_install(plan, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(errors.ClusterError, match=r"pip install 'basilar\[dask\]'"):
        dask_engine.map_shards("", plan.shards, address="tcp://127.0.0.1:9")


def test_without_a_cluster_the_message_says_where_it_was_looked_for(plan, tmp_path, monkeypatch):
    with pytest.raises(errors.ClusterError, match=r"none\.json: no such scheduler file"):
        dask_engine.map_shards("", plan.shards, address=str(tmp_path / "none.json"))
    monkeypatch.setattr(dask_engine, "_TIMEOUT", 0.5)
    with pytest.raises(errors.ClusterError, match=r"127\.0\.0\.1:9: no Dask scheduler"):
        dask_engine.map_shards("", plan.shards, address="tcp://127.0.0.1:9")
