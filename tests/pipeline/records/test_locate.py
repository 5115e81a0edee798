import shutil

import pytest

from basilar.pipeline.manifests.file_cache import FileCache
from basilar.pipeline.records.locate import MissingAudioError, locate
from tests.damage import flip
from tests.pipeline.manifests.test_scan import settle


@pytest.fixture
def audio(built, tmp_path):
    return shutil.copytree(built.plan.manifest.root, tmp_path / "audio")


def test_audio_is_found_where_it_is(built, audio):
    manifest = built.plan.manifest
    assert locate(manifest) == manifest
    moved = locate(manifest, audio)
    assert moved.root == audio
    assert moved.table.equals(manifest.table)


def test_audio_is_found_by_content_under_other_names(built, audio):
    (audio / "a" / "00.wav").rename(audio / "first.wav")
    (audio / "b" / "01.wav").rename(audio / "a" / "00.wav")
    (audio / "b").rename(audio / "deep")
    moved = locate(built.plan.manifest, audio)
    paths = dict(zip(moved.column("id"), moved.column("path"), strict=True))
    assert paths["a/00.wav"] in ("first.wav", "a/09.wav")  # which are equal
    assert paths["b/01.wav"] == "a/00.wav"
    assert paths["b/04.wav"] == "deep/04.wav"
    assert paths["c/02.wav"] == "c/02.wav"
    assert moved.hash == built.plan.manifest.hash


def test_audio_that_moved_is_read_whatever_is_remembered(built, audio):
    moved = audio / "moved.wav"
    (audio / "c" / "02.wav").rename(moved)
    flip(moved)
    settle(audio)
    with FileCache() as cache:
        facts = {"sha256": dict(built.plan.manifest.rows("id", "sha256"))["c/02.wav"]}
        cache.put(moved, moved.stat(), facts)
        assert cache.get(moved) == facts
    with pytest.raises(MissingAudioError, match=r"c/02\.wav: no file holds it"):
        locate(built.plan.manifest, audio)


def test_missing_and_changed_audio_is_named_by_clip(built, audio):
    (audio / "c" / "02.wav").unlink()
    flip(audio / "a" / "03.wav")
    with pytest.raises(MissingAudioError) as raised:
        locate(built.plan.manifest, audio)
    assert (raised.value.missing, raised.value.changed) == (["c/02.wav"], ["a/03.wav"])
    assert "a/03.wav: its file has changed" in str(raised.value)
    assert "c/02.wav: no file holds it" in str(raised.value)
    needed = set(built.plan.manifest.contents)
    ids = dict(zip(built.plan.manifest.column("id"), built.plan.manifest.contents, strict=True))
    assert locate(built.plan.manifest, audio, needed=needed - {ids["c/02.wav"], ids["a/03.wav"]})


def test_a_folder_of_audio_that_is_gone_names_every_clip_up_to_fifty(built, tmp_path):
    with pytest.raises(MissingAudioError, match="the audio of 13 clips is not there") as raised:
        locate(built.plan.manifest, tmp_path / "gone")
    assert len(raised.value.missing) == 13
    many = MissingAudioError(tmp_path, [f"{i}" for i in range(60)], [])
    assert str(many).endswith("… and 10 more")
