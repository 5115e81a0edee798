import shutil

import numpy as np
import pytest

from basilar import FeatureSet
from basilar.pipeline import audio, errors
from basilar.pipeline.audit.reproduce import changes, reproduce
from basilar.pipeline.compute import stages
from basilar.pipeline.compute.transform import Transform
from basilar.pipeline.errors import BuildFailedError, NoRecordError
from basilar.pipeline.hashing import values_hash
from basilar.pipeline.records.locate import MissingAudioError
from basilar.pipeline.records.record import find_record
from tests.damage import flip, store_of


@pytest.fixture
def record(root, built):
    return find_record(root, built.plan.key)


def test_a_set_is_identical_whatever_the_workers_and_the_shards(record, built, tmp_path):
    found = reproduce(record, into=tmp_path / "new", workers=2, shard_seconds=2.5)
    assert (found.verdict, found.source) == ("identical", "store")
    assert found.key == found.key_now == built.plan.key
    assert found.digest == found.digest_now == FeatureSet.open(built.store).digest
    assert (found.largest, found.differing, found.changes) == (0.0, [], {})
    made = FeatureSet.open(tmp_path / "new" / "features" / built.store.name)
    assert made.digest == found.digest
    assert made.attributes["shard_seconds"] == 2.5
    assert not (tmp_path / "new" / "mlflow").exists()


def test_a_temporary_folder_is_removed(record, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = set(tmp_path.iterdir())
    assert reproduce(record).verdict == "identical"
    assert set(tmp_path.iterdir()) == before


def test_the_catalogue_is_enough_with_audio_moved_and_renamed(root, built, tmp_path):
    shutil.rmtree(root / "features")
    shutil.rmtree(root / "artifacts")
    moved = shutil.copytree(built.plan.manifest.root, tmp_path / "moved")
    for i, file in enumerate(sorted(moved.rglob("*.wav"))[:5]):
        file.rename(moved / f"renamed{i}.bin")
    found = reproduce(find_record(root, built.plan.key), audio_root=moved)
    assert (found.verdict, found.source, found.found_elsewhere) == ("identical", "catalogue", 5)


def test_audio_that_is_gone_ends_before_anything_is_built(record, built, tmp_path):
    moved = shutil.copytree(built.plan.manifest.root, tmp_path / "moved")
    flip(moved / "b" / "01.wav")
    with pytest.raises(MissingAudioError, match=r"b/01\.wav: its file has changed"):
        reproduce(record, audio_root=moved, into=tmp_path / "new")
    assert not (tmp_path / "new").exists()


def louder(monkeypatch, stage, by):
    """Let a stage compute something else, from the second sample or frame on."""
    name = stage if stage == "represent" else f"{stage}_blocks"
    original = getattr(Transform, name)

    def changed(y):
        y = np.array(y)
        y[1:] += np.float32(by)
        return y

    def patched(self, *arguments, **options):
        for made in original(self, *arguments, **options):
            yield (changed(made[0]), made[1]) if stage == "decode" else changed(made)

    monkeypatch.setattr(Transform, name, lambda *a, **o: list(patched(*a, **o)))


def test_a_small_difference_is_within_the_tolerance(record, monkeypatch):
    louder(monkeypatch, "represent", 1e-4)
    found = reproduce(record)
    assert found.verdict == "within_tolerance"
    stats = FeatureSet.open(record.store).stats
    expected = 1e-4 / (stats["max"].max() - stats["min"].min())
    assert found.largest == pytest.approx(expected, rel=0.1)
    assert len(found.differing) == 12
    assert {clip.stage for clip in found.differing} == {"representation"}
    assert reproduce(record, tolerance=1e-9).verdict == "different"


@pytest.mark.parametrize("stage", ["decode", "resample", "represent"])
def test_a_large_difference_names_clips_and_the_first_stage(record, monkeypatch, stage):
    louder(monkeypatch, stage, 0.3)
    found = reproduce(record)
    assert found.verdict == "different"
    assert found.largest > 1e-4
    name = "representation" if stage == "represent" else stage
    assert {clip.stage for clip in found.differing} == {name}
    assert [clip.id for clip in found.differing] == [clip["id"] for clip in record.clips]


def test_one_clip_of_another_value_is_the_only_one_named(record, monkeypatch):
    original, target = Transform.represent, FeatureSet.open(record.store)["b/04.wav"]

    def patched(self, signals, **options):
        made = original(self, signals)
        return [x + np.float32(3) if values_hash(x) == values_hash(target) else x for x in made]

    monkeypatch.setattr(Transform, "represent", patched)
    found = reproduce(record)
    assert [clip.id for clip in found.differing] == ["b/04.wav"]
    span = np.ptp([FeatureSet.open(record.store).stats[name] for name in ("min", "max")])
    assert found.largest == pytest.approx(3 / span, rel=0.2)


def test_without_the_old_values_a_difference_cannot_be_tolerated(root, built, monkeypatch):
    louder(monkeypatch, "represent", 1e-4)
    shutil.rmtree(root / "features")
    found = reproduce(find_record(root, built.plan.key))
    assert (found.verdict, found.largest) == ("different", None)
    assert {clip.reason for clip in found.differing} == {"its old values are not available"}


def test_a_damaged_store_is_reproduced_by_what_is_recorded_and_not_compared_with(
    root, record, monkeypatch
):
    for i in range(4):
        flip(store_of(root) / "features" / "c" / str(i) / "0", 0.01)
    assert reproduce(record).verdict == "identical"
    louder(monkeypatch, "represent", 1e-4)
    found = reproduce(record)
    assert (found.verdict, found.largest) == ("different", None)
    assert {clip.largest is None for clip in found.differing} == {True, False}


def test_clips_that_can_be_read_no_more_or_only_now_are_named(record, monkeypatch):
    original = Transform.decode_blocks

    def patched(self, path, **options):
        if path.name == "04.wav":
            raise audio.AudioError("unsupported", "not by this version")
        if path.name == "broken.wav":
            return [(np.ones(4000, np.float32), 8000)]
        return original(self, path, **options)

    monkeypatch.setattr(Transform, "decode_blocks", patched)
    found = reproduce(record)
    assert found.verdict == "different"
    assert {(clip.id, clip.reason) for clip in found.differing} == {
        ("b/04.wav", "cannot be used: not by this version"),
        ("broken.wav", "could not be used then"),
    }


def test_clips_of_another_length_are_named(record, monkeypatch):
    original = Transform.resample_blocks
    monkeypatch.setattr(
        Transform, "resample_blocks", lambda *a, **o: [*original(*a, **o), np.zeros(64, "f4")]
    )
    reasons = {clip.reason for clip in reproduce(record).differing}
    assert "38 frames then, 39 now" in reasons


def test_a_build_that_fails_is_no_verdict(record, monkeypatch):
    monkeypatch.setattr(stages, "represent", lambda *_, **__: 1 / 0)
    with pytest.raises(BuildFailedError, match=r"could not be built again.*\n  .*ZeroDiv"):
        reproduce(record)


def test_keys_may_differ_where_versions_do_and_the_digest_decides(record, monkeypatch):
    from basilar.dsp import resample

    monkeypatch.setitem(resample.VERSIONS, "sinc_kaiser", 99)
    found = reproduce(record)
    assert found.verdict == "identical"
    assert found.key_now != found.key
    assert found.changes == {"op resample": (1, 99)}


def test_what_may_explain_a_difference():
    then = {
        "versions": {"numpy": "2.2", "scipy": "1.15", "old": "1"},
        "op_versions": {"decode": 1},
        **{"decoders": ["libsndfile 1.2.1"], "machine": "x86_64", "cpu": "a"},
    }
    now = {**then, "versions": {"numpy": "2.4", "scipy": "1.15"}, "cpu": "b", "decoders": []}
    assert changes(then, then) == {}
    assert changes(then, now) == {
        **{"numpy": ("2.2", "2.4"), "old": ("1", None), "cpu": ("a", "b")},
        "decoders": (["libsndfile 1.2.1"], []),
    }


def test_an_mlflow_run_alone_is_enough(root, built, tmp_path, tracker):
    from basilar.pipeline.tracking import runs
    from basilar.pipeline.tracking.fetch import fetch_record

    store, key = store_of(root), built.plan.key
    runs.log_run(store, built.plan.manifest, tracker, folder=tmp_path / "mlflow")
    shutil.rmtree(root)
    record = fetch_record(tracker, key[:7], tmp_path / "run")
    assert (record.source, record.key, record.store) == ("mlflow", key, None)
    assert reproduce(record).verdict == "identical"
    with pytest.raises(NoRecordError, match="of its runs begins with 'ffff'; there is none"):
        fetch_record(tracker, "ffff", tmp_path / "none")
    with pytest.raises(NoRecordError, match="x%: it is not a key"):
        fetch_record(tracker, "x%", tmp_path / "none")
    with pytest.raises(errors.TrackerError, match="nonsense://x"):
        fetch_record("nonsense://x", key, tmp_path / "none")
