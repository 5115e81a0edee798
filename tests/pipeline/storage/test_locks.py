import logging
import multiprocessing
import os
import shutil
import signal
from pathlib import Path

import pytest

from basilar.pipeline import errors
from basilar.pipeline.storage import locks

FORKS = multiprocessing.get_context("fork")


class Other:
    """Another process that enters a root, or makes an artifact, until it is killed."""

    def __init__(self, root, name=""):
        said, child = FORKS.Pipe(duplex=False)
        self.process = FORKS.Process(target=self.work, args=(child, root, name))
        self.process.start()
        said.recv()

    def work(self, said, root, name):
        if name:
            with locks.sole(root, name):
                said.send(1)
                signal.pause()
        locks.enter(root)
        said.send(1)
        signal.pause()

    def kill(self):
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.join()


def test_who_is_at_work_is_known_until_it_is_killed(tmp_path):
    other = Other(tmp_path)
    message = f"process {other.process.pid} is at work there; try again when it has ended"
    with pytest.raises(errors.BusyError, match=message), locks.alone(tmp_path):
        pass
    assert locks.holder(tmp_path) == other.process.pid
    other.kill()
    with locks.alone(tmp_path):
        assert locks.holder(tmp_path) is None


def test_a_process_that_is_at_work_can_have_the_root_alone_for_a_while(tmp_path):
    with locks.session(tmp_path):
        locks.enter(tmp_path)
        with locks.alone(tmp_path):
            locks.enter(tmp_path)
        Other(tmp_path).kill()  # it is shared again
        assert not another_may_be_alone(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    assert another_may_be_alone(tmp_path)


def test_a_forked_process_is_at_work_of_its_own(tmp_path):
    with locks.session(tmp_path):
        locks.enter(tmp_path)
        other = Other(tmp_path)
    with pytest.raises(errors.BusyError), locks.alone(tmp_path):  # its parent has left
        pass
    other.kill()
    assert try_alone(tmp_path)


def try_alone(root):
    with locks.alone(root):
        return True


def another_may_be_alone(root):
    process = FORKS.Process(target=exit_with, args=(root,))
    process.start()
    process.join()
    return process.exitcode == 0


def exit_with(root):
    try:
        try_alone(root)
    except errors.BusyError:
        os._exit(1)


def test_who_waits_for_an_artifact_says_so_and_goes_on_in_the_end(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(locks, "_PATIENCE", 0.4)
    monkeypatch.setattr(locks, "_SAY_AFTER", 0.1)
    other = Other(tmp_path, "decode/key")
    with caplog.at_level(logging.WARNING, "basilar"):
        with locks.sole(tmp_path, "decode/another"):
            assert caplog.text == ""
        with locks.sole(tmp_path, "decode/key"):  # who holds it seems to be stuck
            said = f"waiting for process {other.process.pid} to make {tmp_path}/decode/key"
            assert said in caplog.text
    other.kill()
    caplog.clear()
    with locks.sole(tmp_path, "decode/key"):
        assert caplog.text == ""


def test_a_root_that_is_made_again_is_locked_again(tmp_path):
    root = tmp_path / "root"
    with locks.session(root):
        locks.enter(root)
        shutil.rmtree(root)
        locks.enter(root)
        assert not another_may_be_alone(root)


def test_a_root_has_one_lock_under_all_its_names(tmp_path, monkeypatch):
    root, link = tmp_path / "root", tmp_path / "link"
    root.mkdir()
    link.symlink_to(root)
    monkeypatch.chdir(tmp_path)
    with locks.session(root):
        locks.enter(root)
        for name in (link, Path("root"), tmp_path / "link" / ".." / "root"):
            with locks.session(name):
                locks.enter(name)
            with locks.alone(name):
                pass
            assert not another_may_be_alone(root)
    assert another_may_be_alone(root)


def test_without_locks_builds_go_on_and_nobody_is_alone(tmp_path, monkeypatch):
    def none(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(locks.fcntl, "lockf", none)
    locks.enter(tmp_path)
    with locks.sole(tmp_path, "decode/key"):
        pass
    with pytest.raises(errors.BusyError, match="has no locks"), locks.alone(tmp_path):
        pass


def test_what_is_held_is_known_to_others_and_waited_for_by_none(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "_SAY_AFTER", 0.1)
    other = Other(tmp_path, "running/a")
    assert locks.is_held(tmp_path, "running/a")
    assert not locks.is_held(tmp_path, "running/b")
    assert not locks.hold(tmp_path, "running/a")
    other.kill()
    assert not locks.is_held(tmp_path, "running/a")
    with locks.session(tmp_path):
        locks.enter(tmp_path)
        assert locks.hold(tmp_path, "running/a")
