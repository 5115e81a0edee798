import json
from pathlib import Path

import pytest

from pipeline import tasks
from pipeline.keys import STAGES
from pipeline.manifest import Manifest
from pipeline.scan import scan
from pipeline.shards import Plan
from pipeline.tasks import (
    Build,
    Decode,
    FitNormalization,
    LogRun,
    Publish,
    Represent,
    Resample,
    build_of,
)
from tests.pipeline.test_store import LOG_MEL, recipe_of


@pytest.fixture
def planned(audio_folder, tmp_path):
    plan = Plan(recipe_of(LOG_MEL), scan(audio_folder)[0], 2.0)
    return Build(tmp_path / "root", plan, "sqlite:///nowhere.db", ("representation",), 0.5)


def test_a_build_survives_as_text(planned):
    again = build_of(planned.register())
    assert again.plan.key == planned.plan.key
    assert again.plan.shards == planned.plan.shards
    for name in ("root", "tracking_uri", "keep", "max_bad", "store"):
        assert getattr(again, name) == getattr(planned, name)
    assert again.plan.manifest.root == planned.plan.manifest.root


def test_the_catalogue_holds_recipe_and_manifest_where_the_audio_is_now(planned, tmp_path):
    planned.register()
    catalogue = planned.root / "catalogue"
    recipe = catalogue / "recipes" / f"{planned.plan.hashes['normalization']}.json"
    assert json.loads(recipe.read_text()) == planned.plan.recipe.resolved()
    assert (catalogue / "manifests" / f"{planned.plan.manifest.hash}.parquet").exists()
    moved = Manifest(tmp_path / "moved", planned.plan.manifest.table)
    elsewhere = Build(planned.root, Plan(planned.plan.recipe, moved, 2.0), "sqlite:///x.db")
    assert build_of(elsewhere.register()).plan.manifest.root == tmp_path / "moved"


def test_tasks_are_identified_by_root_and_key_alone(planned):
    text = planned.register()
    shard = planned.plan.shards[0]
    task = Represent.of(text, shard)
    other = Represent(root=task.root, key=task.key, build="another build", shard=7)
    assert task.task_id == other.task_id
    assert task.to_str_params(only_significant=True) == {"root": task.root, "key": task.key}
    assert Represent(root="x", key=task.key, build=text, shard=0).task_id != task.task_id


def test_the_dag_is_as_designed(planned):
    text = planned.register()
    run = LogRun.of(text)
    publish = run.requires()
    assert isinstance(publish, Publish)
    fit, *represents = publish.requires()
    assert isinstance(fit, FitNormalization)
    assert fit.requires() == represents
    assert len(represents) == len(planned.plan.shards) > 2
    for shard, represent in zip(planned.plan.shards, represents, strict=True):
        chain = [represent.requires().requires(), represent.requires(), represent]
        assert [type(task) for task in chain] == [Decode, Resample, Represent]
        assert [task.key for task in chain] == [shard.keys[stage] for stage in STAGES]


def test_a_run_whose_output_exists_does_nothing(planned, monkeypatch):
    text = planned.register()
    run = LogRun.of(text)
    shard = planned.plan.shards[0]
    everything = [
        *(task.of(text, shard) for task in (Decode, Resample, Represent)),
        *(FitNormalization.of(text), Publish.of(text), run),
    ]

    def fail(*_, **__):
        raise AssertionError("worked although the output is there")

    for name in ("stages", "statistics", "store"):
        for function in ("decode", "resample", "represent", "fit", "publish"):
            if hasattr(getattr(tasks, name), function):
                monkeypatch.setattr(getattr(tasks, name), function, fail)
    for task in everything:
        task.path().mkdir(parents=True)
        task.run()


def test_a_run_is_complete_only_with_its_feature_set(planned):
    run = LogRun.of(planned.register())
    assert not run.complete()
    run.path().parent.mkdir(parents=True)
    run.path().write_text("{}")
    assert not run.complete()
    Path(run.requires().path()).mkdir(parents=True)
    assert run.complete()


def test_another_tracker_wants_a_run_of_its_own(planned):
    other = Build(planned.root, planned.plan, "sqlite:///elsewhere.db")
    one, two = LogRun.of(planned.register()), LogRun.of(other.register())
    assert one.path() != two.path()
