import os
import sqlite3

from basilar.pipeline import audio
from basilar.pipeline.manifests.file_cache import FileCache
from basilar.pipeline.manifests.scan import scan
from tests.pipeline.manifests.test_scan import settle


def cache_file(folder, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    with FileCache():
        pass
    (file,) = (folder / "basilar").glob("*.sqlite")
    return file


def test_a_second_scan_opens_no_file(audio_folder, looks, monkeypatch):
    settle(audio_folder)
    first = scan(audio_folder)
    assert looks() == 12
    with monkeypatch.context() as patch:
        patch.setattr("os.fork", None)  # nothing is new: no process is started
        second = scan(audio_folder)
    assert looks() == 12
    assert first.table.equals(second.table)
    scan(audio_folder, rehash=True)
    assert looks() == 24


def test_a_file_that_has_just_changed_is_not_remembered(audio_folder, looks):
    for file in audio_folder.rglob("*.wav"):
        os.utime(file)
    scan(audio_folder)
    scan(audio_folder)
    assert looks() == 24


def test_a_cache_that_cannot_be_opened_is_done_without(audio_folder, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    settle(audio_folder)
    assert len(scan(audio_folder)) == 12
    with FileCache() as cache:
        assert len(cache.sha256(audio_folder / "a" / "00.wav")) == 64


def test_a_corrupt_cache_is_done_without(audio_folder, tmp_path, monkeypatch):
    cache_file(tmp_path / "cache", monkeypatch).write_bytes(b"no database" * 1000)
    settle(audio_folder)
    assert len(scan(audio_folder)) == 12


def test_a_locked_cache_is_done_without(audio_folder, tmp_path, monkeypatch):
    file = cache_file(tmp_path / "cache", monkeypatch)
    settle(audio_folder)
    holder = sqlite3.connect(file, isolation_level=None)
    holder.execute("PRAGMA locking_mode=EXCLUSIVE")
    holder.execute("BEGIN EXCLUSIVE")
    try:
        assert len(scan(audio_folder)) == 12
    finally:
        holder.close()


def test_a_scan_under_way_locks_no_other_out(audio_folder, tmp_path, monkeypatch):
    cache_file(tmp_path / "cache", monkeypatch)
    settle(audio_folder)
    file = audio_folder / "a" / "00.wav"
    with FileCache() as one, FileCache() as two:
        one.put(file, file.stat(), {"sha256": "1"})
        two.put(file, file.stat(), {"sha256": "2"})
        assert one.get(file) == two.get(file) == {"sha256": "2"}


def test_a_new_version_of_the_decoder_probes_again(audio_folder, looks, monkeypatch):
    settle(audio_folder)
    scan(audio_folder)
    monkeypatch.setitem(audio.VERSIONS, "soundfile mp3", 2)
    scan(audio_folder)
    assert looks() == 24
