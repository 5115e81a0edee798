import random
import shutil

import pytest

from basilar.pipeline import audio
from basilar.pipeline.audit.verify import verify
from basilar.pipeline.errors import DamagedArtifactError
from basilar.pipeline.records.record import recorded_keys
from basilar.pipeline.storage.checksums import read_checksums
from tests.damage import edit_json, flip, seal, store_of


def check(root, **options):
    (key,) = recorded_keys(root)
    return verify(root, key, **options)


def files_of(root):
    """Every file of the store and of its shards' artifacts."""
    artifacts = root / "artifacts" / "representation"
    return [f for folder in (store_of(root), artifacts) for f in folder.rglob("*") if f.is_file()]


def test_what_was_built_is_sound(built):
    found = check(built.root, workers=2)
    assert found.problems == []
    assert found.clips == 12
    shards = [built.shard_folder(shard).name for shard in built.plan.shards]
    assert found.artifacts == dict.fromkeys(shards, True)
    files = files_of(built.root)
    assert found.files == sum(file.name != "files.json" for file in files)
    once = {file.stat().st_ino: file.stat().st_size for file in files if file.name != "files.json"}
    assert found.bytes == sum(once.values())


@pytest.mark.parametrize("place", [0.0, 0.3, 0.99, "random"])
def test_a_bit_flipped_in_any_file_is_found_and_the_file_named(root, place):
    rng = random.Random(0)
    files = [file for file in files_of(root) if file.name != "files.json"]
    for file in {file.stat().st_ino: file for file in files}.values():
        flip(file, rng.random() if place == "random" else place, rng.randrange(8))
    found = check(root)
    assert {p.file for p in found.problems if "CRC-32" in p.problem} == set(map(str, files))
    assert not any(found.artifacts.values())


def test_any_bit_flipped_in_a_list_of_checksums_is_found(root):
    file = store_of(root) / "files.json"
    whole = file.read_bytes()
    expected = read_checksums(file.parent)
    for i in range(0, 8 * len(whole), 7):
        flipped = bytearray(whole)
        flipped[i // 8] ^= 1 << i % 8
        file.write_bytes(flipped)
        with pytest.raises(DamagedArtifactError, match=r"files\.json: damaged"):
            assert read_checksums(file.parent) != expected
    assert [p.file for p in check(root).problems] == [str(file)]


def test_missing_and_foreign_files_are_named(root):
    store = store_of(root)
    (store / "start" / "zarr.json").unlink()
    (store / "moments" / "notes.txt").write_text("x")
    (store / "stats" / "nowhere").symlink_to("gone")
    shutil.rmtree(next((root / "artifacts" / "representation").iterdir()))
    found = check(root)
    assert set(found.problems) == {
        (str(store / "start" / "zarr.json"), "is missing"),
        (str(store / "moments" / "notes.txt"), "does not belong here"),
        (str(store / "stats" / "nowhere"), "does not belong here"),
    }
    assert len(found.artifacts) == 3
    (store / "files.json").unlink()
    assert check(root).problems == [(str(store / "files.json"), "is missing")]


def test_what_a_sound_store_says_is_checked(root):
    store = store_of(root)

    def forge(value):
        value["attributes"]["basilar"]["digest"] = "0" * 32

    edit_json(store / "zarr.json", forge)
    seal(store)
    assert any("digest is 0000" in p.problem for p in check(root).problems)


@pytest.mark.parametrize("name", ["key", "recipe_hash", "manifest_hash"])
def test_a_store_that_does_not_hash_to_its_name_is_named(root, name):
    store = store_of(root)
    edit_json(store / "zarr.json", lambda v: v["attributes"]["basilar"].update({name: "0" * 32}))
    seal(store)
    assert str(store / "zarr.json") in {p.file for p in check(root).problems}


def test_without_a_record_the_files_are_still_checked(root):
    flip(store_of(root) / "features" / "c" / "0" / "0")
    shutil.rmtree(root / "catalogue")
    problems = [p.file for p in check(root).problems]
    assert problems == [str(store_of(root) / "features" / "c" / "0" / "0"), str(root / "catalogue")]


def test_a_store_without_any_record_of_it(root):
    (store_of(root) / "zarr.json").unlink()
    (root / "catalogue").rename(root / "gone")
    (at_store, at_catalogue) = check(root).problems
    assert at_store == (str(store_of(root) / "zarr.json"), "is missing")
    assert "is neither in features nor in the catalogue" in at_catalogue.problem


def test_a_store_that_says_nothing_though_its_checksums_fit(root):
    edit_json(store_of(root) / "zarr.json", lambda v: v["attributes"]["basilar"].clear())
    seal(store_of(root))
    (problem,) = check(root).problems
    assert problem.file == str(store_of(root) / "zarr.json")
    assert "cannot be read" in problem.problem


def test_a_sample_is_computed_from_audio(root, built, tmp_path):
    found = check(root, sample=5)
    assert found.sound
    assert len(found.sampled) == len(set(found.sampled)) == 5
    assert check(root, sample=5).sampled == found.sampled
    assert len(check(root, sample=100).sampled) == 11  # contents: two clips are equal
    moved = shutil.copytree(built.plan.manifest.root, tmp_path / "moved")
    alone = next(name for name in found.sampled if name[-6:] not in ("00.wav", "09.wav"))
    (moved / alone).rename(moved / "renamed.wav")
    assert check(root, sample=5, audio_root=moved).sound
    (moved / "renamed.wav").unlink()
    (problem,) = check(root, sample=5, audio_root=moved).problems
    assert problem.file == str(moved)
    assert f"{alone}: no file holds it" in problem.problem


@pytest.mark.parametrize("stage", ["decode", "resample"])
def test_a_sample_names_the_first_stage_that_differs(root, built, monkeypatch, stage):
    from basilar.pipeline.compute.transform import Transform

    original = getattr(Transform, f"{stage}_blocks")

    def louder(*arguments, **options):
        for made in original(*arguments, **options):
            yield (made[0] * 2, made[1]) if stage == "decode" else made * 2

    monkeypatch.setattr(Transform, f"{stage}_blocks", louder)
    found = check(root, sample=3)
    root_of_audio = built.plan.manifest.root
    for clip_id, problem in zip(found.sampled, found.problems, strict=True):
        assert problem.file == str(root_of_audio / clip_id).replace("09", "00")  # which are equal
        assert (
            f"{clip_id}: computed from its audio, it differs from the stage {stage}"
            in problem.problem
        )


def test_a_sample_that_cannot_be_computed_any_more(root, monkeypatch):
    from basilar.pipeline.compute.transform import Transform

    def refuse(*_, **__):
        raise audio.AudioError("unsupported", "not this version")

    monkeypatch.setattr(Transform, "decode_blocks", refuse)
    (problem,) = check(root, sample=1).problems
    assert "decode: not this version" in problem.problem
