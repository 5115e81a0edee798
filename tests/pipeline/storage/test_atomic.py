import errno
import os
from pathlib import Path

import pytest

from basilar.pipeline.storage import atomic
from basilar.pipeline.storage.atomic import replacing


def left_over(folder):
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def test_a_file_appears_when_it_is_complete(tmp_path):
    target = tmp_path / "deep" / "file.txt"
    with replacing(target) as temporary:
        temporary.write_text("new")
        assert not target.exists()
    assert target.read_text() == "new"
    assert left_over(target.parent) == []


def test_a_failed_write_leaves_what_was_there(tmp_path):
    target = tmp_path / "file.txt"
    target.write_text("old")

    def fail():
        with replacing(target) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert target.read_text() == "old"
    assert left_over(tmp_path) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_or_a_quota_that_is_full_names_what_was_to_be_written(tmp_path, number):
    target = tmp_path / "file.txt"

    def fail():
        with replacing(target) as temporary:
            raise OSError(number, "as the writer says it", str(temporary))

    with pytest.raises(OSError, match=os.strerror(number)) as failed:
        fail()
    assert (failed.value.errno, failed.value.filename) == (number, str(target))


def test_an_error_that_names_another_file_names_it_still(tmp_path):
    def fail():
        with replacing(tmp_path / "file.txt"):
            raise OSError(errno.EACCES, "denied", "/some/audio.wav")

    with pytest.raises(PermissionError) as failed:
        fail()
    assert failed.value.filename == "/some/audio.wav"


def test_the_later_writer_of_a_folder_discards_its_copy(tmp_path):
    target = tmp_path / "folder"
    with replacing(target) as first, replacing(target) as second:
        for temporary, text in ((first, "first"), (second, "second")):
            temporary.mkdir()
            (temporary / "file").write_text(text)
    assert (target / "file").read_text() == "second"  # the inner block ends first
    assert left_over(tmp_path) == []


def test_data_is_on_the_disk_before_the_rename_and_the_folder_after_it(tmp_path, monkeypatch):
    events = []
    fsync, replace = os.fsync, os.replace

    def log_fsync(descriptor):
        events.append(("fsync", Path(f"/proc/self/fd/{descriptor}").readlink().name))
        fsync(descriptor)

    def log_replace(source, target):
        events.append(("rename", Path(target).name))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", log_fsync)
    monkeypatch.setattr(os, "replace", log_replace)
    with replacing(tmp_path / "folder") as temporary:
        (temporary / "inner").mkdir(parents=True)
        (temporary / "inner" / "file").write_text("x")
    names = [name for _, name in events]
    assert names[:2] == ["file", "inner"]
    assert events[3] == ("rename", "folder")
    assert events[4] == ("fsync", tmp_path.name)
    events.clear()
    with replacing(tmp_path / "temporary", durable=False) as temporary:
        temporary.write_text("x")
    assert [event for event, _ in events] == ["rename"]


def test_removing_what_is_not_there_is_no_error(tmp_path):
    atomic.remove(tmp_path / "missing")
    (tmp_path / "folder" / "inner").mkdir(parents=True)
    atomic.remove(tmp_path / "folder")
    assert list(tmp_path.iterdir()) == []


def test_linking_replaces_and_copies_where_it_must(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"new")
    (tmp_path / "b").write_bytes(b"old")
    atomic.link(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").samefile(tmp_path / "a")

    def refuse(*_):
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    atomic.link(tmp_path / "a", tmp_path / "inner" / "c")
    assert (tmp_path / "inner" / "c").read_bytes() == b"new"
