import json
from dataclasses import replace
from unittest.mock import Mock

import pytest

from basilar.pipeline import errors
from basilar.pipeline.build import shard_tasks
from basilar.pipeline.build.build import Build, build_of
from basilar.pipeline.build.set_tasks import FitNormalization, LogRun, Publish
from basilar.pipeline.build.shard_tasks import Decode, Represent, Resample
from basilar.pipeline.compute import stages
from basilar.pipeline.defaults import KEEP
from basilar.pipeline.plan import Plan
from basilar.pipeline.recipes.hashes import STAGES
from basilar.pipeline.storage import files
from basilar.pipeline.store import publish as publish_module
from basilar.pipeline.store import shard_tables, statistics
from basilar.pipeline.tracking.location import embedded_tracking_uri
from tests.pipeline.build.test_build import planned_in
from tests.pipeline.store.test_publish import LOG_MEL, recipe_of


@pytest.fixture
def planned(audio_folder, tmp_path):
    return planned_in(tmp_path, audio_folder)


def test_tasks_are_identified_by_root_and_key_alone(planned):
    text = planned.register()
    shard = planned.plan.shards[0]
    task = Represent.of(text, shard)
    other = Represent(root=task.root, key=task.key, build="another build", shard=7)
    assert task.task_id == other.task_id
    assert task.to_str_params(only_significant=True) == {"root": task.root, "key": task.key}
    assert Represent(root="x", key=task.key, build=text, shard=0).task_id != task.task_id


def test_what_people_are_told_is_no_part_of_an_identity(planned):
    text, n = planned.register(), len(planned.plan.shards)
    clips = [len(shard.sources) for shard in planned.plan.shards]
    for task, about in (
        (Resample.of(text, planned.plan.shards[1]), f"shard 2 of {n}, {clips[1]} clips"),
        (FitNormalization.of(text), f"{len(planned.plan.manifest)} clips in {n} shards"),
        (LogRun.of(text), f"{len(planned.plan.manifest)} clips in {n} shards"),
    ):
        shown = task.to_str_params(only_public=True)
        assert list(shown) == ["about", "root", "key"]
        assert shown["about"] == f"log_mel, {about}"
        assert task.clone(about="else").task_id == task.task_id


def test_tasks_say_how_far_they_are_in_counts(planned):
    text, said = planned.register(), []
    shard = planned.plan.shards[0]
    n = len(shard.sources)
    for task in (Resample.of(text, shard), Represent.of(text, shard)):
        task.set_status_message = lambda message: said.append(message)
        task.set_progress_percentage = lambda percentage: said.append(percentage)
        task.run()
        assert said[-2:] == [f"{n} of {n} clips, 0 quarantined", 100]
        said.clear()


@pytest.mark.parametrize("keep", [(), KEEP, STAGES, ("decode",)])
def test_the_dag_is_as_designed(planned, keep):
    text = replace(planned, keep=keep).register()
    run = LogRun.of(text)
    publish = run.requires()
    assert isinstance(publish, Publish)
    fit, *represents = publish.requires()
    assert isinstance(fit, FitNormalization)
    assert fit.requires() == represents
    assert len(represents) == len(planned.plan.shards) > 2
    kept = [task for task in (Decode, Resample) if task.stage in keep]
    for shard, represent in zip(planned.plan.shards, represents, strict=True):
        chain = [represent]
        while above := chain[0].requires():
            chain = [*above, *chain]
        assert [type(task) for task in chain] == [*kept, Represent]
        for task in chain:
            assert task.key.split(".")[0] == shard.keys[task.stage]


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
        *((stages, name) for name in ("decode", "resample", "represent")),
        *((statistics, "fit_statistics"), (publish_module, "publish")),
    ):
        monkeypatch.setattr(module, name, fail)
    monkeypatch.setattr(shard_tables, "read_shard", lambda folder: None)  # it is whole
    for task in reversed(tasks_of_the_build):
        task.path().mkdir(parents=True)
        task.run()


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
    run.path().write_text(json.dumps({"run_id": None, "attempt": shard_tasks.attempt()}))
    assert run.complete()
    shard_tasks.new_attempt()
    assert not run.complete()


def test_the_record_of_a_run_has_no_password(planned, monkeypatch, caplog):
    from basilar.pipeline.tracking import runs

    uri = "http://me:secret@127.0.0.1:9"
    run = LogRun.of(replace(planned, tracking_uri=uri).register())
    error = errors.TrackerError("no answer")
    monkeypatch.setattr(runs, "log_run", Mock(side_effect=error))
    run.make()
    assert runs.log_run.call_args.args[2] == uri
    assert files.read_json(run.path())["uri"] == "http://127.0.0.1:9"
    assert "secret" not in run.path().read_text() + caplog.text


def test_a_run_is_gone_with_the_database_it_was_in(planned):
    uri = embedded_tracking_uri(planned.root)
    embedded = Build(root=planned.root, plan=planned.plan, tracking_uri=uri)
    run = LogRun.of(embedded.register())
    run.requires().path().mkdir(parents=True)
    run.path().parent.mkdir(parents=True)
    run.path().write_text('{"run_id": "r", "attempt": "x"}')
    assert not run.complete()
    (planned.root / "mlflow").mkdir()
    (planned.root / "mlflow" / "mlflow.db").touch()
    assert run.complete()


def test_two_layouts_of_one_set_are_different_tasks(planned):
    compact = recipe_of(LOG_MEL, codec="compact")
    other = Build(
        root=planned.root,
        plan=Plan(compact, planned.plan.manifest, 2.0),
        tracking_uri=planned.tracking_uri,
    )
    one, two = planned.register(), other.register()
    shard = planned.plan.shards[0]
    assert Represent.of(one, shard).task_id != Represent.of(two, shard).task_id
    assert FitNormalization.of(one).task_id != FitNormalization.of(two).task_id
    assert Publish.of(one).task_id != Publish.of(two).task_id
    assert Resample.of(one, shard).task_id == Resample.of(two, shard).task_id


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


def test_another_tracker_wants_a_run_of_its_own(planned):
    other = Build(root=planned.root, plan=planned.plan, tracking_uri="sqlite:///elsewhere.db")
    one, two = LogRun.of(planned.register()), LogRun.of(other.register())
    assert one.path() != two.path()
