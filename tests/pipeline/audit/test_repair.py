import shutil

import numpy as np
import pytest
import zarr

from basilar import FeatureSet
from basilar.pipeline.audit.repair import repair
from basilar.pipeline.audit.verify import verify
from basilar.pipeline.compute import stages
from basilar.pipeline.errors import RepairError
from basilar.pipeline.records.locate import MissingAudioError
from basilar.pipeline.records.record import find_record, recorded_keys
from basilar.pipeline.storage.atomic import leftovers
from tests.damage import edit_json, flip, seal, store_of


def check(root):
    (key,) = recorded_keys(root)
    return verify(root, key)


def shards_of(root):
    """The artifact of each shard, in order, with its inode."""
    (key,) = recorded_keys(root)
    names = find_record(root, key).attributes["shards"]
    return [root / "artifacts" / "representation" / name for name in names]


def inodes(root):
    return [
        [(folder / "features" / "c" / "0" / "0").stat().st_ino for folder in shards_of(root)],
        [
            (store_of(root) / "features" / "c" / str(i) / "0").stat().st_ino
            for i in range(len(shards_of(root)))
        ],
    ]


@pytest.fixture
def represented(monkeypatch):
    """How many clips each call of the representation stage got."""
    calls, original = [], stages.represent

    def count(waveforms, *arguments, **options):
        calls.append(len(waveforms.contents))
        return original(waveforms, *arguments, **options)

    monkeypatch.setattr(stages, "represent", count)
    return calls


def test_exactly_the_broken_shards_are_made_again(root, represented):
    before, digest = inodes(root), FeatureSet.open(store_of(root)).digest
    assert before[0] == before[1]  # what is linked was copied linked
    shards = shards_of(root)
    flip(store_of(root) / "features" / "c" / "1" / "0")
    flip(shards[3] / "clips.parquet")
    found = check(root)
    assert not found.sound
    done = repair(root, found)
    assert done.computed == [shards[1].name, shards[3].name]
    assert (done.linked, done.digest) == (2, digest)
    assert len(represented) == 2
    assert check(root).problems == []
    after = inodes(root)
    assert after[0] == after[1]
    assert [a == b for a, b in zip(after[0], before[0], strict=True)] == [True, False, True, False]
    assert FeatureSet.open(store_of(root)).digest == digest
    assert not list(leftovers(root))


def test_what_was_counted_of_a_damaged_set_is_counted_again(root):
    counted = [*root.glob("artifacts/histogram/*"), *root.glob("artifacts/statistics/*")]
    other = root / "artifacts" / "histogram" / f"{'0' * 32}-{'0' * 32}.npz"
    other.touch()
    flip(store_of(root) / "stats" / "histogram" / "c" / "0" / "0")
    assert counted
    repair(root, check(root))
    assert not any(file.exists() for file in counted)
    assert other.exists()


@pytest.mark.parametrize("name", ["zarr.json", "clips.parquet", "files.json", "start/c/0"])
def test_a_store_with_sound_shards_is_linked_again_and_nothing_computed(root, represented, name):
    flip(store_of(root) / name)
    assert repair(root, check(root)).computed == []
    assert represented == []
    assert check(root).sound


def test_a_store_without_its_shards_is_computed(root):
    shutil.rmtree(root / "artifacts")
    flip(store_of(root) / "features" / "c" / "1" / "0")
    assert len(repair(root, check(root)).computed) == 4
    assert check(root).sound


def test_a_damaged_resample_artifact_is_computed_from_audio(root):
    flip(shards_of(root)[2] / "features" / "c" / "0" / "0")
    for file in (root / "artifacts" / "resample").glob("*/samples.f32"):
        flip(file)
    assert len(repair(root, check(root)).computed) == 1
    assert check(root).sound


def test_what_was_written_wrong_is_computed_though_its_checksums_fit(root):
    store, shards = store_of(root), shards_of(root)
    flip(store / "features" / "c" / "2" / "0", 0.0)
    seal(store)
    seal(shards[2])
    assert repair(root, check(root)).computed == [shards[2].name]
    assert check(root).sound


def test_moments_that_were_written_wrong_may_be_those_of_any_shard(root):
    array = zarr.open_array(store_of(root) / "moments" / "max", mode="r+")
    array[0] = np.float64(0)
    seal(store_of(root))
    assert len(repair(root, check(root)).computed) == 4
    assert check(root).sound


@pytest.mark.parametrize("name", ["features/*.json", "features/*.parquet", "recipes/*.json"])
def test_the_catalogue_is_written_again(root, name):
    (file,) = (root / "catalogue").glob(name)
    file.unlink()
    assert repair(root, check(root)).computed == []
    assert check(root).sound


def everything(root):
    return {f: f.read_bytes() for f in root.rglob("*") if f.is_file()}


def test_without_audio_nothing_is_touched(root, tmp_path):
    flip(store_of(root) / "features" / "c" / "1" / "0")
    shutil.rmtree(root / "artifacts" / "resample")
    before = everything(root)
    with pytest.raises(MissingAudioError, match="no file holds it"):
        repair(root, check(root), audio_root=tmp_path / "gone")
    assert everything(root) == before
    assert repair(root, check(root)).computed


def test_an_installation_that_computes_something_else_touches_nothing(root, monkeypatch):
    from basilar.pipeline.compute.transform import Transform

    flip(store_of(root) / "features" / "c" / "1" / "0")
    before = everything(root)
    original = Transform.represent
    with monkeypatch.context() as patched:
        patched.setattr(
            Transform, "represent", lambda *a, **o: [x + np.float32(1) for x in original(*a, **o)]
        )
        with pytest.raises(RepairError, match="built again, its digest is"):
            repair(root, check(root))
        patched.setattr(Transform, "represent", lambda *_, **__: 1 / 0)
        with pytest.raises(RepairError, match=r"shards could not be built.*\n  .*ZeroDivision"):
            repair(root, check(root))
    assert everything(root) == before


def test_a_set_of_other_op_versions_is_not_repaired(root, monkeypatch):
    from basilar.dsp import resample

    flip(store_of(root) / "features" / "c" / "1" / "0")
    found = check(root)
    monkeypatch.setitem(resample.VERSIONS, "sinc_kaiser", 99)
    with pytest.raises(RepairError, match="would make another key"):
        repair(root, found)


def test_a_repair_that_was_cut_off_is_done_again(root, monkeypatch):
    flip(store_of(root) / "features" / "c" / "1" / "0")
    from basilar.pipeline.audit import repair as module

    def cut_off(new, old):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(module, "_replace", cut_off)
        with pytest.raises(KeyboardInterrupt):
            repair(root, check(root))
    repair(root, check(root))
    assert check(root).sound


def test_an_inconsistent_store_is_made_from_the_catalogue(root):
    edit_json(
        store_of(root) / "zarr.json", lambda v: v["attributes"]["basilar"].update(decoders=["x"])
    )
    seal(store_of(root))
    found = check(root)
    assert not found.sound
    assert repair(root, found).computed == []
    assert check(root).sound
