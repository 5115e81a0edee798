import os
import sys
from importlib.metadata import version

import pytest

from basilar.dsp.kernel import native
from basilar.pipeline import errors, host
from basilar.pipeline.audit import doctor
from basilar.pipeline.audit.doctor import checks
from basilar.pipeline.compute import canary, transform
from basilar.pipeline.storage import atomic, locks


@pytest.fixture
def found(tmp_path):
    """What the doctor says of a folder, by name."""

    def run(root=tmp_path, uri=""):
        return {check.name: check for check in checks(root, uri)}

    return run


def test_a_sound_installation_and_folder_are_ok(found, tmp_path):
    said = found(uri=f"sqlite:///{tmp_path / 'mlflow' / 'mlflow.db'}")
    bad = [check for check in said.values() if check.state != "ok"]
    assert bad == []
    assert {"decode mp3", "canaries", "hard links", "locks", "at work", "tracker"} <= said.keys()
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


@pytest.mark.parametrize(
    ("python", "state"), [((3, 10, 14), "failed"), ((3, 11, 0), "ok"), ((3, 99, 0), "ok")]
)
def test_a_python_is_too_old_and_never_too_new(monkeypatch, python, state):
    monkeypatch.setattr(sys, "version_info", python)
    check = next(checks())
    assert (check.name, check.state) == ("python", state)
    assert ("install Python 3.11 or a newer one" in check.message) == (state == "failed")


def test_a_library_or_codec_that_is_not_there_is_named(found, monkeypatch):
    monkeypatch.setattr(doctor, "LIBRARIES", ("numpy", "no-such-library"))
    monkeypatch.setattr(doctor, "FFMPEG", ("aac", "no-such-codec"))
    said = found()
    assert said["libraries"].state == "failed"
    assert "no-such-library missing" in said["libraries"].message
    assert said["ffmpeg"].state == "warning"
    assert "cannot read no-such-codec" in said["ffmpeg"].message


def test_what_extras_bring_is_said_and_what_installs_it(found, monkeypatch):
    """None of it is a must."""
    monkeypatch.setitem(host.EXTRAS, "torch", {"torch": "no_such_module"})
    monkeypatch.setitem(host.EXTRAS, "s3", {"s3fs": "s3fs", "no-such-library": "no_such_module"})
    said = {part.partition(":")[0]: part for part in found()["extras"].message.split(" | ")}
    assert said.keys() == host.EXTRAS.keys()
    assert said["build"].startswith(f"build: luigi {version('luigi')}, mlflow ")
    assert "not installed" not in said["build"]
    assert said["torch"] == "torch: not installed: torch (pip install 'basilar[torch]')"
    install = "not installed: no-such-library (pip install 'basilar[s3]')"
    assert said["s3"] == f"s3: s3fs {version('s3fs')}; {install}"


def test_a_decoder_that_decodes_something_else_fails(found, monkeypatch):
    original = transform.Transform.decode

    def late(self, file, **options):
        y, rate = original(self, file, **options)
        return (y[1105:], rate) if file.suffix == ".mp3" else (-y, rate)

    monkeypatch.setattr(transform.Transform, "decode", late)
    said = found()
    assert "7715 samples at 22050 Hz were decoded, not 8820" in said["decode mp3"].message
    assert {said[f"decode {name}"].state for name in ("mp3", "wav", "flac", "ogg")} == {"failed"}


def test_the_kernel_in_use_is_said(found, monkeypatch):
    if native.is_there():
        assert found()["kernel"].message.startswith("C, ")
        monkeypatch.setenv("BASILAR_KERNEL", "numpy")
        check = found()["kernel"]
        assert (check.state, "unset it" in check.message) == ("warning", True)
    monkeypatch.setattr(native, "_native", None)
    check = found()["kernel"]
    assert (check.state, "C compiler" in check.message) == ("warning", True)


def test_a_canary_that_moved_is_named(found, monkeypatch):
    def moved(name):
        if name == "representation mel":
            raise errors.CanaryError("it computes other numbers")
        return "a little" if name == "resample soxr" else ""

    monkeypatch.setattr(canary, "check", moved)
    said = found()
    assert said["canary representation mel"].state == "failed"
    assert said["canary resample soxr"].state == "warning"
    assert said["canaries"].message.startswith(f"{len(list(canary.names())) - 2} stages")


@pytest.mark.parametrize(
    ("name", "broken", "state"),
    [
        ("hard links", "link", "warning"),
        ("fsync", "fsync", "failed"),
        ("rename", "replace", "failed"),
    ],
)
def test_what_a_file_system_cannot_do_is_said(found, monkeypatch, name, broken, state):
    def refuse(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, broken, refuse)
    check = found()[name]
    assert check.state == state
    assert "Operation not supported; " in check.message
    assert "use a root on another file system" in check.message


def test_a_file_system_without_locks_is_a_warning(found, monkeypatch):
    def refuse(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.lockf", refuse)
    assert found()["locks"].state == found()["at work"].state == "warning"


def test_builds_at_work_and_what_killed_ones_left_are_said(found, tmp_path, monkeypatch):
    (tmp_path / "features" / f".{'0' * 32}.tmp.zarr").mkdir(parents=True)
    assert "1 were left by killed processes" in found()["temporaries"].message
    assert list(atomic.leftovers(tmp_path))  # to look changes nothing

    def busy(*_):
        raise BlockingIOError(11, "held")

    monkeypatch.setattr(locks.fcntl, "lockf", busy)
    monkeypatch.setattr(locks, "holder", lambda _: 123)
    assert "process 123 is at work there" in found()["at work"].message


def test_a_root_that_is_not_there_and_a_dead_tracker_fail(found, tmp_path):
    said = found(tmp_path / "missing", "http://127.0.0.1:9")
    assert said["root"].state == said["tracker"].state == "failed"
    assert "free space" not in said
    assert "start it, or name another" in said["tracker"].message


def test_little_space_is_a_warning(found, monkeypatch):
    monkeypatch.setattr(doctor, "_LITTLE_SPACE", 1 << 60)
    assert found()["free space"].state == "warning"
    assert "basilar gc" in found()["free space"].message
