import os
import signal
import subprocess
import sys

from basilar.pipeline.build import registry
from basilar.pipeline.storage import files, locks
from tests.conftest import REPOSITORY

HOLD = """
import signal, sys
from pathlib import Path
from basilar.pipeline.build import registry
registry.begin(Path(sys.argv[1]), "text", key="k")
print(flush=True)
signal.pause()
"""


def another(root):
    """Another process that builds in a root until it is killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(root)], cwd=REPOSITORY, stdout=subprocess.PIPE
    )
    process.stdout.readline()
    return process


def test_a_build_is_known_until_it_ends(tmp_path):
    with locks.session(tmp_path):
        locks.enter(tmp_path)
        registry.begin(tmp_path, "text", key="k")
        registry.begin(tmp_path, "text", key="k")  # a task that asks again
        (record,) = registry.records(tmp_path)
        assert (record["key"], record["build"], record["process"]) == ("k", "text", os.getpid())
        assert registry.begun(tmp_path, "text") == record
        assert registry.begun(tmp_path, "other") is None
        registry.end(tmp_path)
        assert registry.records(tmp_path) == []
        assert list((tmp_path / "running").iterdir()) == []


def test_a_build_is_known_under_another_name_of_its_root(tmp_path):
    root, link = tmp_path / "root", tmp_path / "link"
    root.mkdir()
    link.symlink_to(root)
    with locks.session(root):
        locks.enter(root)
        registry.begin(root, "text", key="k")
        for name in (link, root):
            assert [record["key"] for record in registry.records(name)] == ["k"]
        registry.end(link)
        assert registry.records(root) == []


def test_a_record_with_a_password_is_for_nobody_else(tmp_path):
    with locks.session(tmp_path):
        locks.enter(tmp_path)
        for host, mode in {"host": 0o644, "me:secret@host": 0o600}.items():
            registry.begin(tmp_path, f'{{"tracking_uri":"http://{host}"}}', key="k")
            (file,) = (tmp_path / "running").iterdir()
            assert file.stat().st_mode & 0o666 == mode
            assert host in registry.records(tmp_path)[0]["build"]
            registry.end(tmp_path)


def test_the_build_that_logged_a_set_first_is_recorded(tmp_path):
    assert registry.recorded(tmp_path, "key") is None
    markers = {"key-1": {"started": 5.0}, "key-2": {"started": 4.0}, "key-3": None, "other-1": {}}
    for name, built in markers.items():
        files.write_json(tmp_path / "runs" / f"{name}.json", {"built": built})
    files.write_json(tmp_path / "runs" / "key-4.json", {"run_id": "of an earlier version"})
    assert registry.recorded(tmp_path, "key") == {"started": 4.0}


def test_what_a_killed_build_said_is_removed_by_who_sees_it(tmp_path):
    process = another(tmp_path)
    assert [record["process"] for record in registry.records(tmp_path)] == [process.pid]
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert len(list((tmp_path / "running").iterdir())) == 1
    assert registry.records(tmp_path) == list((tmp_path / "running").iterdir()) == []


def test_a_process_takes_its_records_back_when_it_exits(tmp_path):
    code = HOLD.replace("signal.pause()", "")
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=REPOSITORY, check=True)
    assert list((tmp_path / "running").iterdir()) == []


def test_where_nothing_can_be_written_nothing_is_said(tmp_path):
    (tmp_path / "running").write_text("a file")
    registry.begin(tmp_path, "text", key="k")
    assert registry.records(tmp_path) == []
    registry.end(tmp_path)


def test_a_damaged_record_is_no_build(tmp_path):
    (tmp_path / "running").mkdir()
    (tmp_path / "running" / "a.json").write_text("{")
    assert registry.records(tmp_path) == []
