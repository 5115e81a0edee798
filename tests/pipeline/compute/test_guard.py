"""Bits of an installation's own have keys of their own."""

import json
import platform

import numpy as np
import pytest
import soundfile as sf

from basilar import FeatureSet
from basilar.dsp import framing
from basilar.pipeline.audio import decoders
from basilar.pipeline.build import luigi_engine
from basilar.pipeline.build.build import Build, build_of
from basilar.pipeline.build.shard_tasks import Decode
from basilar.pipeline.compute import canary
from basilar.pipeline.compute.guard import deviations, guard
from basilar.pipeline.compute.here import plan_here
from basilar.pipeline.errors import CanaryError
from basilar.pipeline.manifests.scan import scan
from basilar.pipeline.recipes.recipe import Recipe
from basilar.pipeline.records.explain import Side, why
from basilar.pipeline.records.record import find_record, recorded_keys
from tests.pipeline.compute.test_canary import an_ulp_more, changing, clear_caches
from tests.pipeline.store.test_publish import LOG_MEL, recipe_of


@pytest.fixture(autouse=True)
def forget():
    """What this process found out before a function was patched, or after."""
    clear_caches()
    yield
    clear_caches()


@pytest.fixture
def folder(tmp_path, noise):
    """A WAV and an MP3."""
    for name in ("a.wav", "b.mp3"):
        sf.write(tmp_path / name, noise(16_000) / 8, 16_000)
    return tmp_path


def decoding_otherwise(patched):
    """As a processor that decodes MP3 with other last bits."""
    original = decoders.SoundFile.read

    def read(self, count):
        block = original(self, count)
        return an_ulp_more(block) if self.codec == "mp3" else block

    patched.setattr(decoders.SoundFile, "read", read)


def windowing_otherwise(patched):
    """As a processor whose library has another cosine."""
    patched.setattr(framing, "window", changing(framing.window, an_ulp_more))


MACHINES = {
    "decoder": (decoding_otherwise, "decode soundfile mp3", "decode mp3"),
    "stage": (windowing_otherwise, "representation log_mel", "representation log_mel"),
}


def built(folder, tracker):
    """The build of a set on this machine, done."""
    root = folder / "root"
    plan = plan_here(recipe_of(LOG_MEL), scan(folder), 600.0, root=root)
    build = Build(root=root, plan=plan, tracking_uri=tracker)
    assert luigi_engine.run(build, workers=1).succeeded
    return build


@pytest.mark.slow
@pytest.mark.parametrize("name", MACHINES)
def test_two_machines_build_one_root_and_nothing_is_mixed(folder, tracker, monkeypatch, name):
    otherwise, deviating, canary_name = MACHINES[name]
    one = built(folder, tracker)
    with monkeypatch.context() as patched:
        otherwise(patched)
        clear_caches()
        two = built(folder, tracker)
    clear_caches()
    assert two.plan.deviations.keys() >= {deviating}
    assert one.plan.deviations == {}
    keys = [build.plan.shards[0].keys for build in (one, two)]
    same = [stage for stage in keys[0] if keys[0][stage] == keys[1][stage]]
    assert same == ([] if name == "decoder" else ["decode", "resample"])
    assert recorded_keys(folder / "root") == sorted([one.plan.key, two.plan.key])
    sets = [FeatureSet.open(build.store) for build in (one, two)]
    assert sets[0].attributes["digest"] != sets[1].attributes["digest"]
    assert sets[0].attributes["canary"] == []
    (warning,) = sets[1].attributes["canary"]
    assert warning.startswith(f"{canary_name}: it computes other numbers")
    then, here = canary._packaged()["versions"], canary.library_versions()
    same = all(here[name] == then[name] for name in canary._LIBRARIES)
    cause = "no library is another, so that the processor, or a patch, is the cause"
    assert (cause in warning) == same
    assert same or "(then " in warning
    # The record of either can be read by both, and says what is different.
    records = [find_record(folder / "root", build.plan.key) for build in (one, two)]
    assert [record.key for record in records] == [one.plan.key, two.plan.key]
    said = "\n".join(why(*map(Side.of_record, records)).lines())
    assert "bits " in said
    # A build on the first machine again is cached, and makes no third set.
    assert built(folder, tracker).plan.key == one.plan.key
    assert len(recorded_keys(folder / "root")) == 2


def test_a_lossless_file_has_the_same_key_wherever_lossy_ones_differ(tmp_path, noise, monkeypatch):
    sf.write(tmp_path / "a.wav", noise(8000) / 8, 16_000)
    manifest = scan(tmp_path)
    before = plan_here(recipe_of(LOG_MEL), manifest)
    decoding_otherwise(monkeypatch)
    clear_caches()
    after = plan_here(recipe_of(LOG_MEL), manifest)
    assert after.deviations  # which are of no file here
    assert (after.key, after.shards[0].keys) == (before.key, before.shards[0].keys)


def test_a_worker_of_another_kind_computes_nothing_for_a_key(folder, tracker, monkeypatch):
    root = folder / "root"
    plan = plan_here(recipe_of(LOG_MEL), scan(folder), 600.0, root=root)
    text = Build(root=root, plan=plan, tracking_uri=tracker).register()
    decoding_otherwise(monkeypatch)
    clear_caches()
    task = Decode.of(text, build_of(text).plan.shards[0])
    with pytest.raises(
        CanaryError, match="decode soundfile mp3: here it has other bits than where"
    ):
        task.run()
    assert not task.path().exists()


def test_what_a_task_is_told_holds_the_deviations(folder, tracker, monkeypatch):
    windowing_otherwise(monkeypatch)
    root = folder / "root"
    plan = plan_here(recipe_of(LOG_MEL), scan(folder), 600.0, root=root)
    text = Build(root=root, plan=plan, tracking_uri=tracker).register()
    assert json.loads(text)["deviations"] == plan.deviations
    from basilar.pipeline.build import build as module

    monkeypatch.setattr(module, "_builds", {})
    assert build_of(text).plan.key == plan.key
    assert build_of(text).guard()  # the warning, and no error


def test_what_a_root_has_kept_gives_another_identity(folder, tracker, monkeypatch):
    """A difference that no default reaches, within the tolerance."""
    recipe = recipe_of({**LOG_MEL, "win_length": 200})
    root = folder / "root"
    first = plan_here(recipe, scan(folder), 600.0, root=root)
    Build(root=root, plan=first, tracking_uri=tracker).register()
    original = framing.window
    monkeypatch.setattr(
        framing,
        "window",
        lambda *a, **o: (
            an_ulp_more(original(*a, **o)) if o["win_length"] == 200 else original(*a, **o)
        ),
    )
    clear_caches()
    assert deviations(recipe) == {}
    second = plan_here(recipe, scan(folder), 600.0, root=root)
    assert second.deviations.keys() == {"representation log_mel"}
    assert second.key != first.key


@pytest.mark.parametrize(("machine", "found"), [("aarch64", {"resample soxr"}), ("x86_64", set())])
def test_soxr_elsewhere_says_where(monkeypatch, machine, found):
    monkeypatch.setattr(platform, "machine", lambda: machine)
    soxr, ours = (
        Recipe.from_dict({"resample": {"method": method}, "representation": {"kind": "mel"}})
        for method in ("soxr", "sinc_kaiser")
    )
    said = deviations(soxr)
    assert said.keys() == found
    assert all(deviation == (machine, "") for deviation in said.values())
    assert deviations(ours) == {}


def test_what_is_beyond_the_tolerance_is_refused_or_another_identity(monkeypatch):
    recipe = recipe_of(LOG_MEL)
    monkeypatch.setattr(framing, "window", changing(framing.window, lambda x: x * np.float32(1.5)))
    with pytest.raises(CanaryError, match="representation log_mel"):
        deviations(recipe)
    found = deviations(recipe, strict=False)
    assert found.keys() == {"representation log_mel"}
    assert found["representation log_mel"].identity.startswith("bits ")


def test_an_installation_that_is_refused_keeps_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(framing, "window", changing(framing.window, lambda x: x * np.float32(1.5)))
    with pytest.raises(CanaryError, match="representation log_mel"):
        guard(recipe_of(LOG_MEL), catalogue=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_every_file_of_the_canary_is_a_path_of_a_decoder():
    from basilar.pipeline import audio

    assert set(canary.PATHS) == set(sum(canary.FILES.values(), ()))
    assert set(canary.PATHS.values()) < audio.VERSIONS.keys()
