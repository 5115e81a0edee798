import errno
import os
import signal
from contextlib import closing

import pytest

from basilar.pipeline import audio
from basilar.pipeline.manifests import file_cache
from basilar.pipeline.manifests import probe as facts_module
from basilar.pipeline.manifests.file_cache import hash_file
from basilar.pipeline.manifests.probe import inspect_files, status_reader
from basilar.pipeline.manifests.scan import contents, scan
from tests.pipeline.manifests.test_scan import settle


def inspect(folder, rows, *, rehash):
    with closing(inspect_files(folder, iter(rows), status_reader(folder), rehash=rehash)) as seen:
        return list(seen)


@pytest.fixture
def windows(monkeypatch):
    """Five rows at once."""
    monkeypatch.setattr(facts_module, "_AT_ONCE", 5)


def test_rows_come_in_order_and_a_file_of_many_is_looked_at_once(audio_folder, looks, windows):
    settle(audio_folder)
    paths = sorted(str(path.relative_to(audio_folder)) for path in audio_folder.rglob("*.wav"))
    paths = [*paths, *paths, "b/01.wav", "b/01.wav", *paths]
    rows = [({"path": path, "offset": i}, None) for i, path in enumerate(paths)]
    for looked, rehash in ((12, True), (12, False), (24, True)):
        found = inspect(audio_folder, rows, rehash=rehash)
        assert looks() == looked
        assert [row for row, _ in found] == [row for row, _ in rows]
        hashes = [hash_file(audio_folder / path) for path in paths]
        assert [facts["sha256"] for _, facts in found] == hashes


@pytest.mark.parametrize("rehash", [False, True])
def test_what_the_cache_does_not_remember_is_looked_at_once_too(
    audio_folder, looks, windows, rehash
):
    rows = [({"path": path}, None) for path in ("a/00.wav", "b/01.wav") for _ in range(4)]
    found = inspect(audio_folder, 3 * rows, rehash=rehash)  # files have just been written
    assert looks() == 2
    assert len({facts["sha256"] for _, facts in found}) == 2


def test_a_file_that_killed_its_child_is_not_tried_again(
    audio_folder, windows, monkeypatch, tmp_path
):
    """Else rows of one file would contradict each other."""
    settle(audio_folder)
    original = audio.probe

    def probe(path, **options):
        if path.name == "00.wav":
            with (tmp_path / "deaths").open("a") as deaths:
                deaths.write("x")
            os.kill(os.getpid(), signal.SIGKILL)
        return original(path, **options)

    monkeypatch.setattr(audio, "probe", probe)
    found = inspect(audio_folder, [({"path": "a/00.wav"}, None)] * 12, rehash=False)
    assert (tmp_path / "deaths").read_text() == "xx"
    assert {facts["problem"][:8] for _, facts in found} == {"crashed:"}


def test_what_rows_state_is_not_looked_at(audio_folder, looks):
    rows = [({"path": "missing.wav"}, {"sha256": "0" * 64}), ({"path": "a/00.wav"}, None)]
    stated, looked = inspect(audio_folder, rows, rehash=True)
    assert (stated, looks()) == (rows[0], 1)
    assert looked[1]["n_samples"] > 0


def test_who_stops_reading_leaves_no_child(audio_folder, monkeypatch):
    forked, fork = [], os.fork
    monkeypatch.setattr(os, "fork", lambda: forked.append(fork()) or forked[-1])
    rows = [({"path": path}, None) for path in ("a/00.wav", "b/01.wav", "c/02.wav")]
    reader = inspect_files(audio_folder, iter(rows), status_reader(audio_folder), rehash=True)
    next(reader)
    reader.close()
    assert forked
    for pid in forked:
        with pytest.raises(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)


def test_contents_are_looked_at_again_only_if_asked_to(audio_folder, looks):
    settle(audio_folder)
    scan(audio_folder)
    contents(audio_folder)
    assert looks() == 12
    contents(audio_folder, rehash=True)
    assert looks() == 24


def test_a_file_that_kills_the_prober_costs_itself_only(audio_folder, monkeypatch):
    settle(audio_folder)
    original = audio.probe

    def probe(path, **options):
        if path.name == "05.wav":
            os.kill(os.getpid(), signal.SIGKILL)
        return original(path, **options)

    monkeypatch.setattr(audio, "probe", probe)
    hurt = scan(audio_folder)
    (row,) = (row for row in hurt.table.to_pylist() if row["problem"])
    assert row["path"] == "c/05.wav"
    assert row["problem"] == "crashed: the decoder died of signal 9 (SIGKILL), twice"
    monkeypatch.undo()
    whole = scan(audio_folder)  # what happened is not remembered
    assert whole.column("problem") == [None] * 12
    assert hurt.contents == whole.contents


def test_a_disk_that_fails_for_a_moment_is_read_again(audio_folder, monkeypatch, tmp_path):
    original = file_cache.hash_file

    def hash_file(file):
        if file.name == "05.wav" and not (tmp_path / "failed").exists():
            (tmp_path / "failed").touch()
            raise OSError(errno.EIO, os.strerror(errno.EIO), os.fspath(file))
        return original(file)

    monkeypatch.setattr(facts_module, "hash_file", hash_file)
    assert scan(audio_folder).column("problem") == [None] * 12
    assert (tmp_path / "failed").exists()
