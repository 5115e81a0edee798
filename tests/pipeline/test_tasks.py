import json
from dataclasses import replace

import pytest

from pipeline import artifacts, statistics, store, tasks
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
    return Build(tmp_path / "root", plan, "sqlite:///nowhere.db", (), 0.5)


def test_a_build_survives_as_text(planned):
    again = build_of(planned.register())
    assert again.plan.key == planned.plan.key
    assert again.plan.shards == planned.plan.shards
    for name in ("root", "tracking_uri", "keep", "max_bad", "clip_timeout", "store"):
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
        for task, stage in zip(chain, STAGES, strict=True):
            assert task.key.split(".")[0] == shard.keys[stage]


def test_a_run_whose_output_exists_does_nothing(planned, monkeypatch):
    text = planned.register()
    shard = planned.plan.shards[0]
    tasks_of_the_build = [
        *(task.of(text, shard) for task in (Decode, Resample, Represent)),
        *(FitNormalization.of(text), Publish.of(text)),
    ]

    def fail(*_, **__):
        raise AssertionError("worked although the output is there")

    for module, name in (
        *((tasks.stages, name) for name in ("decode", "resample", "represent")),
        *((statistics, "fit"), (store, "publish")),
    ):
        monkeypatch.setattr(module, name, fail)
    for task in reversed(tasks_of_the_build):
        task.path().mkdir(parents=True)
        task.run()


def test_what_is_not_kept_goes_even_if_another_build_was_faster(planned):
    """Two builds of one recipe: the slower finds its output there, and cleans up behind itself."""
    text = planned.register()
    shard = planned.plan.shards[0]
    decode, resample = Decode.of(text, shard), Resample.of(text, shard)
    decode.run()
    resample.run()
    assert not decode.path().exists()
    decode.run()
    resample.run()
    assert not decode.path().exists()


@pytest.mark.parametrize("loss", ["missing", "empty", "flipped"])
def test_a_temporary_artifact_that_is_lost_is_made_again(planned, loss):
    """Another build may have removed it, or a power cut emptied it: it was never fsynced."""
    text = planned.register()
    shard = planned.plan.shards[0]
    decode, resample, represent = (t.of(text, shard) for t in (Decode, Resample, Represent))
    decode.run()
    resample.run()
    expected = [y.tobytes() for y in artifacts.read_waveforms(resample.path()).signals]
    samples = resample.path() / "samples.f32"
    if loss == "missing":
        artifacts.remove(resample.path())
    elif loss == "empty":
        samples.write_bytes(b"")
    else:
        samples.write_bytes(b"x" + samples.read_bytes()[1:])
    assert [y.tobytes() for y in resample.made().signals] == expected
    represent.run()
    assert represent.path().exists()


def test_a_run_is_complete_with_its_feature_set_once_it_is_logged(planned):
    run = LogRun.of(planned.register())
    assert not run.complete()
    run.path().parent.mkdir(parents=True)
    run.path().write_text('{"run_id": "r", "attempt": "x"}')
    assert not run.complete()
    run.requires().path().mkdir(parents=True)
    assert run.complete()


def test_a_run_that_could_not_be_logged_is_tried_once_a_build(planned):
    run = LogRun.of(planned.register())
    run.requires().path().mkdir(parents=True)
    run.path().parent.mkdir(parents=True)
    run.path().write_text(json.dumps({"run_id": None, "attempt": tasks._attempt["id"]}))
    assert run.complete()
    tasks.new_attempt()
    assert not run.complete()


def test_a_run_is_gone_with_the_database_it_was_in(planned):
    uri = tasks.embedded_tracking_uri(planned.root)
    embedded = Build(planned.root, planned.plan, uri)
    run = LogRun.of(embedded.register())
    run.requires().path().mkdir(parents=True)
    run.path().parent.mkdir(parents=True)
    run.path().write_text('{"run_id": "r", "attempt": "x"}')
    assert not run.complete()
    (planned.root / "mlflow").mkdir()
    (planned.root / "mlflow" / "mlflow.db").touch()
    assert run.complete()


def test_two_layouts_of_one_set_are_different_tasks(planned, tmp_path):
    compact = recipe_of(LOG_MEL, codec="compact")
    other = Build(planned.root, Plan(compact, planned.plan.manifest, 2.0), planned.tracking_uri)
    one, two = planned.register(), other.register()
    shard = planned.plan.shards[0]
    assert Represent.of(one, shard).task_id != Represent.of(two, shard).task_id
    assert FitNormalization.of(one).task_id != FitNormalization.of(two).task_id
    assert Publish.of(one).task_id != Publish.of(two).task_id
    assert Resample.of(one, shard).task_id == Resample.of(two, shard).task_id


def test_only_stages_can_be_kept(planned):
    with pytest.raises(ValueError, match="keep: resmple: allowed are decode, resample, represent"):
        Build(planned.root, planned.plan, "", ("resmple",))


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("inf"), float("nan")])
def test_a_clip_must_have_some_time(planned, seconds):
    with pytest.raises(ValueError, match=r"clip timeout: .* must be above 0 and finite"):
        replace(planned, clip_timeout=seconds)


def test_the_time_of_a_clip_is_part_of_no_key(planned):
    hasty = replace(planned, clip_timeout=0.5)
    assert build_of(hasty.register()).clip_timeout == 0.5
    assert hasty.plan.key == planned.plan.key
    assert LogRun.of(hasty.register()).task_id == LogRun.of(planned.register()).task_id


def test_a_model_that_is_to_be_registered_is_part_of_no_key(planned):
    named = replace(planned, register_as="birds@champion")
    text = named.register()
    assert build_of(text).register_as == "birds@champion"
    assert named.plan.key == planned.plan.key
    assert LogRun.of(text).task_id == LogRun.of(planned.register()).task_id


def test_a_run_without_the_model_that_is_asked_for_is_not_done(planned):
    run = LogRun.of(replace(planned, register_as="birds").register())
    run.requires().path().mkdir(parents=True)
    run.path().parent.mkdir(parents=True)
    marker = {"run_id": "r", "attempt": "x", "registered_as": ""}
    for registered_as, done in (("", False), ("parrots", False), ("birds", True)):
        run.path().write_text(json.dumps({**marker, "registered_as": registered_as}))
        assert run.complete() is done
        assert LogRun.of(planned.register()).complete()


@pytest.mark.parametrize("name", ["a/b", "birds@", "@champion", "a@b@c", "models:/x", "it's"])
def test_names_that_no_model_can_have(planned, name):
    with pytest.raises(ValueError, match=r"register: .* write NAME or NAME@ALIAS"):
        replace(planned, register_as=name)


def test_another_tracker_wants_a_run_of_its_own(planned):
    other = Build(planned.root, planned.plan, "sqlite:///elsewhere.db")
    one, two = LogRun.of(planned.register()), LogRun.of(other.register())
    assert one.path() != two.path()
