import errno
import json
from dataclasses import replace

import pytest

from basilar.pipeline import storage
from basilar.pipeline.build import build, registry
from basilar.pipeline.build.build import Build, build_of
from basilar.pipeline.manifests.manifest import Manifest
from basilar.pipeline.manifests.scan import scan
from basilar.pipeline.plan import Plan
from basilar.pipeline.tracking import location
from tests.damage import flip
from tests.pipeline.store.test_publish import LOG_MEL, recipe_of


def planned_in(folder, audio_folder):
    plan = Plan(recipe_of(LOG_MEL), scan(audio_folder), 2.0)
    return Build(
        root=folder / "root", plan=plan, tracking_uri="sqlite:///nowhere.db", keep=(), max_bad=0.5
    )


@pytest.fixture
def planned(audio_folder, tmp_path):
    return planned_in(tmp_path, audio_folder)


def test_a_build_survives_as_text(planned):
    text = planned.register()
    assert build_of(text) is planned
    build._builds.clear()
    again = build_of(text)
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
    elsewhere = Build(
        root=planned.root, plan=Plan(planned.plan.recipe, moved, 2.0), tracking_uri="sqlite:///x.db"
    )
    assert build_of(elsewhere.register()).plan.manifest.root == tmp_path / "moved"
    file = catalogue / "manifests" / f"{moved.hash}.parquet"
    assert Manifest.read(file).root == tmp_path / "moved"


def test_the_catalogue_is_mended_by_who_has_the_manifest(planned):
    planned.register()
    (file,) = (planned.root / "catalogue" / "manifests").iterdir()
    entered = file.read_bytes()
    flip(file, 0.999)
    planned.register()
    assert file.read_bytes() == entered


def test_a_catalogue_that_cannot_be_written_hinders_no_build_over_audio_that_moved(
    planned, tmp_path, monkeypatch
):
    planned.register()
    moved = replace(planned.plan.manifest, root=tmp_path / "moved")
    elsewhere = replace(planned, plan=Plan(planned.plan.recipe, moved, 2.0))

    def refuse(*_):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Manifest, "write", refuse)
    assert build_of(elsewhere.register()).plan.manifest.root == tmp_path / "moved"
    (planned.root / "catalogue" / "manifests" / f"{moved.hash}.parquet").unlink()
    with pytest.raises(OSError, match="Read-only"):
        elsewhere.register()


def test_only_stages_can_be_kept(planned):
    with pytest.raises(ValueError, match="keep: resmple are no stages; allowed are decode, resam"):
        Build(root=planned.root, plan=planned.plan, tracking_uri="", keep=("resmple",))


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("inf"), float("nan")])
def test_a_clip_must_have_some_time(planned, seconds):
    with pytest.raises(ValueError, match=r"clip timeout: .* must be above 0 and finite"):
        replace(planned, clip_timeout=seconds)


@pytest.mark.parametrize("root", ["r%", "memory://bucket/root"])
def test_a_root_that_can_have_no_tracker_of_its_own_takes_another(planned, root):
    elsewhere = replace(planned, root=storage.place(root))
    assert build.logged_run(elsewhere) is None
    with pytest.raises(ValueError, match="name a tracker"):
        location.embedded_tracking_uri(elsewhere.root)


@pytest.mark.parametrize("name", ["a/b", "birds@", "@champion", "a@b@c", "models:/x", "it's"])
def test_names_that_no_model_can_have(planned, name):
    with pytest.raises(ValueError, match=r"register: .* write NAME or NAME@ALIAS"):
        replace(planned, register_as=name)


def test_losses_are_forgotten_once_a_build_by_who_begins_it(planned):
    """Hosts that join it, and workers, register it again."""
    artifact = planned.artifact("resample", planned.plan.shards[0])

    def is_left_by(build):
        artifact.mkdir(parents=True, exist_ok=True)
        planned.note_loss(artifact)
        build.register()
        return artifact.exists()

    assert not is_left_by(planned)
    assert is_left_by(planned)
    assert not is_left_by(replace(planned, clip_timeout=1.0))
    registry.end(planned.root)
    planned.store.mkdir(parents=True)
    assert is_left_by(planned)
    registry.end(planned.root)
    planned.store.rmdir()
    assert planned.work().pending["resample"][0].index == 1
    assert planned.work(begun=False).pending["resample"][0].index == 0
    assert not is_left_by(planned)
    assert not any((planned.root / "artifacts" / "lost").iterdir())
