"""Faults of the environment: each is a clear error or harmless, and the same command goes on.

Full disks are small file systems in memory, missing rights those of another user. Where neither can
be had, tests are skipped by name.
"""

import errno
import importlib
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import tomli_w

from basilar import FeatureSet
from basilar.pipeline.compute.waveforms import read_waveforms
from basilar.pipeline.manifests.file_cache import FileCache
from basilar.pipeline.storage import checksums
from tests.conftest import SMALL
from tests.damage import store_of

pytestmark = pytest.mark.usefixtures("disk")
NOBODY = 65534


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that other users may enter, with six clips in `audio` and a recipe."""
    folder = Path(tempfile.mkdtemp(prefix="basilar faults "))
    folder.chmod(0o755)
    for i in range(6):
        file = folder / "audio" / f"{i}.wav"
        file.parent.mkdir(exist_ok=True)
        y = 0.1 * np.random.default_rng(i).standard_normal(4000)
        sf.write(file, y, 8000, subtype="PCM_16")
    (folder / "recipe.toml").write_text(tomli_w.dumps(SMALL))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def mount(place) -> Iterator:
    """Mount something at a folder of `place`."""
    mounted = []

    def do(name, *arguments):
        folder = place / name
        folder.mkdir(exist_ok=True)
        done = subprocess.run(["mount", *arguments, folder], capture_output=True, check=False)
        if done.returncode:
            pytest.skip("file systems cannot be mounted here")
        mounted.append(folder)
        return folder

    yield do
    for folder in reversed(mounted):
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.fixture
def nobody() -> Iterator:
    """Be a user without rights, and no longer."""
    if os.geteuid():
        pytest.skip("only root can become another user")

    for name in ("build.luigi_engine", "manifests.scan", "store.publish", "tracking.runs"):
        # That user may not be able to read them.
        importlib.import_module(f"basilar.pipeline.{name}")
    yield lambda: os.seteuid(NOBODY)
    os.seteuid(0)
    importlib.invalidate_caches()


@pytest.fixture
def build(place, basilar, tracker):
    """Build below a folder: (exit code, standard output, standard error)."""
    assert basilar("scan", place / "audio", "-o", place / "m.parquet")[0] == 0

    def run(root, *options, manifest=None):
        options = ("--workers", 1, "--shard-seconds", 0.5, "--tracking-uri", tracker, *options)
        recipe = place / "recipe.toml"
        return basilar("build", recipe, manifest or place / "m.parquet", "--root", root, *options)

    return run


@pytest.fixture(scope="session")
def digest(tmp_path_factory):
    """What every build here must come to: set by the first clean one."""
    return {}


def is_clean(outcome, root, digest):
    """Whether a build succeeded, left nothing half-made, and has the digest that all have."""
    code, _, err = outcome
    assert code == 0, err
    assert not [path for path in root.rglob(".*") if ".lock" not in path.name]
    found = FeatureSet.open(store_of(root)).digest
    return digest.setdefault("digest", found) == found


def says(outcome, *words, code=1):
    """Whether a command failed with a few lines that say this."""
    found, _, err = outcome
    assert found == code, err
    assert "Traceback" not in err
    assert 1 <= err.count("error: ") <= 12  # of three lines each
    return all(word in err for word in words) or pytest.fail(err)


def whole_only(root):
    """Whether all that can be seen under a root is whole."""
    for path in root.rglob("files.json"):
        if not any(part.startswith(".") for part in path.relative_to(root).parts):
            for name, expected in checksums.read_checksums(path.parent).items():
                assert checksums.checksum(path.parent / name) == expected
    for stage in ("decode", "resample"):
        for folder in (root / "artifacts" / stage).glob("[!.]*"):
            read_waveforms(folder)
    return not list(root.rglob(".*.tmp*"))


def test_scanning_onto_a_full_disk(place, mount, basilar):
    small = mount("small", "-t", "tmpfs", "-o", "size=8k", "tmpfs")
    (small / "filler").write_bytes(b"x" * 4096)
    output = small / "m.parquet"
    assert says(basilar("scan", place / "audio", "-o", output), "the disk is full", "m.parquet")
    assert list(small.iterdir()) == [small / "filler"]
    (small / "filler").unlink()
    subprocess.run(["mount", "-o", "remount,size=1m", small], check=True)
    assert basilar("scan", place / "audio", "-o", output)[0] == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "kib",
    [
        4,
        64,
        128,
        256,
        500,
        *(pytest.param(n, marks=pytest.mark.torture) for n in (32, 400, 600, 700)),
    ],
)
def test_a_full_disk_at_any_point_of_a_build(mount, build, digest, kib):
    root = mount("small", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs")
    outcome = build(root)
    if outcome[0]:
        assert says(
            outcome, "the disk is full", "to do: free some space and run it again", f"{root}/"
        )
        assert whole_only(root)
    else:
        assert kib > 500
    subprocess.run(["mount", "-o", "remount,size=64m", root], check=True)
    assert is_clean(build(root), root, digest)


def test_a_full_disk_says_how_much_is_needed(mount, build):
    root = mount("small", "-t", "tmpfs", "-o", "size=60k", "tmpfs")
    needs = "are free, and the rest of the build needs about 0."
    assert says(build(root), needs, "continues where it stopped")


@pytest.mark.slow
@pytest.mark.parametrize(
    "place_of_fault",
    [0, 21, 42, *(pytest.param(n, marks=pytest.mark.torture) for n in range(0, 60, 7) if n % 21)],
)
def test_a_disk_that_is_full_only_when_it_is_flushed(
    place, build, monkeypatch, digest, place_of_fault
):
    """As network file systems and quotas do it."""
    real, calls = os.fsync, iter(range(10**6))

    def full(descriptor):
        if next(calls) == place_of_fault:
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
        real(descriptor)

    root = place / "root"
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        assert says(build(root), "the disk is full", "run it again")
    assert whole_only(root)
    assert is_clean(build(root), root, digest)


def test_a_tracker_whose_disk_is_full_loses_nothing(mount, build, place, caplog, digest):
    small = mount("small", "-t", "tmpfs", "-o", "size=16k", "tmpfs")
    code, out, err = build(place / "root", "--tracking-uri", f"sqlite:///{small}/mlflow.db")
    assert code == 0, err
    assert "not logged; the next build tries again" in out
    (said,) = [record.getMessage() for record in caplog.records if record.name == "basilar"]
    assert "disk is full" in said
    assert "\n" not in said
    assert is_clean(build(place / "root"), place / "root", digest)


def test_nothing_may_be_written(place, build, nobody, digest):
    root = place / "root"
    root.mkdir()
    nobody()
    assert says(build(root), "permission denied", "root/catalogue")
    os.seteuid(0)
    assert not list(root.iterdir())
    assert is_clean(build(root), root, digest)


def test_nothing_may_be_read(place, build, basilar, nobody, digest):
    (place / "audio" / "3.wav").chmod(0)
    (place / "root").mkdir()
    (place / "root").chmod(0o777)
    (place / "m.parquet").chmod(0o644)
    nobody()
    assert says(build(place / "root"), "error: permission denied", "audio/3.wav")
    os.seteuid(0)
    (place / "audio" / "3.wav").chmod(0o644)
    assert is_clean(build(place / "root"), place / "root", digest)
    (place / "audio" / "closed").mkdir(mode=0)
    nobody()
    said = basilar("scan", place / "audio", "-o", "/tmp/never.parquet")
    os.seteuid(0)
    assert says(said, "error: permission denied", "audio/closed")


def test_a_read_only_root_is_read(place, mount, build, basilar, as_json, digest):
    root = place / "root"
    assert is_clean(build(root), root, digest)
    frozen = mount("frozen", "--bind", str(root))
    subprocess.run(["mount", "-o", "remount,bind,ro", frozen], check=True)
    store = store_of(frozen)
    assert FeatureSet.open(store)[0].shape[1] == 8
    assert "cached" in build(frozen)[1]
    for command in ("show", "verify"):
        assert basilar(command, store.stem, "--root", frozen)[0] == 0
    assert as_json("ls", "--root", frozen)[1]["feature_sets"][0]["key"] == store.stem
    text = (place / "recipe.toml").read_text()
    (place / "recipe.toml").write_text(text.replace("n_mels = 8", "n_mels = 9"))
    assert says(build(frozen), "the file system is read-only", "to do: take another --root")


def test_audio_that_goes_away_and_comes_back(place, build, digest):
    root = place / "root"
    (place / "audio" / "2.wav").rename(place / "2.wav")
    assert says(build(root), "error: no such file", "audio/2.wav")
    (place / "audio").rename(place / "unmounted")
    assert says(build(root), "the audio root is not there", f"where: {place}/audio", "--audio-root")
    (place / "2.wav").rename(place / "unmounted" / "2.wav")
    assert is_clean(build(root, "--audio-root", place / "unmounted"), root, digest)


@pytest.mark.parametrize("size", ["same", "other"])
def test_audio_that_changes_after_the_scan(place, build, digest, size):
    file = place / "audio" / "2.wav"
    before = file.read_bytes()
    file.write_bytes(before[:-1] + b"\1" + (b"" if size == "same" else b"\0\0"))
    assert says(
        build(place / "root"), "it has changed since it was scanned", "2.wav", "to do: scan again"
    )
    assert whole_only(place / "root")
    file.write_bytes(before)
    assert is_clean(build(place / "root"), place / "root", digest)


def test_a_pipe_in_the_place_of_a_clip(place, build):
    (place / "audio" / "2.wav").unlink()
    os.mkfifo(place / "audio" / "2.wav")
    assert says(build(place / "root"), "it is not a file", "2.wav")


def test_clocks_that_go_back(place, build, digest):
    future = 4e9
    for file in (place / "audio").iterdir():
        os.utime(file, (future, future))
    file = place / "audio" / "0.wav"
    with FileCache() as cache:  # might change again in the same tick: it is not remembered
        cache.put(file, file.stat(), {"sha256": "00"})
        assert cache.get(file) is None
    assert is_clean(build(place / "root", manifest=place / "audio"), place / "root", digest)
    assert "cached" in build(place / "root", manifest=place / "audio")[1]


def test_any_name_that_is_text_works(place, basilar, as_json, build):
    audio = place / "audio"
    deep = "/".join(["d" * 250] * 14)
    names = ["a b.wav", "a\nb.wav", "🎻é.wav", "é" * 125 + ".wav", "x\\y.wav", f"{deep}/a.wav"]
    for i, name in enumerate(names):
        (audio / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(audio / f"{i}.wav", audio / name)
    code, said = as_json("scan", audio, "-o", place / "m.parquet")
    assert (code, said["clips"]) == (0, 12)
    assert build(place / "root")[0] == 0
    fs = FeatureSet.open(store_of(place / "root"))
    assert set(names) < set(fs.clips["id"])


def test_names_that_are_not_text_are_all_named_at_once(place, basilar):
    for i in range(3):
        (place / "audio" / os.fsdecode(b"\xff%d.wav" % i)).symlink_to("0.wav")
    said = basilar("scan", place / "audio", "-o", place / "n.parquet")
    assert says(said, "3 names are not UTF-8", *(rf"\udcff{i}.wav" for i in range(3)), code=2)
    assert not (place / "n.parquet").exists()


def test_a_path_that_is_too_long(place, basilar):
    folder = os.open(place / "audio", os.O_RDONLY)
    for _ in range(17):
        os.mkdir("d" * 250, dir_fd=folder)
        folder = os.open("d" * 250, os.O_RDONLY, dir_fd=folder)
    said = basilar("scan", place / "audio", "-o", place / "n.parquet")
    assert says(said, "the path is too long")


def test_what_is_no_file_is_not_read(place, as_json):
    audio = place / "audio"
    os.mkfifo(audio / "pipe.wav")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(audio / "socket.wav"))
    (audio / "self.wav").symlink_to("self.wav")
    (audio / "nowhere.wav").symlink_to("gone.wav")
    (audio / "loop").symlink_to(".")
    odd = ["nowhere.wav", "pipe.wav", "self.wav", "socket.wav"]
    if os.geteuid() == 0:
        os.mknod(audio / "zero.wav", 0o600 | 0o020000, os.makedev(1, 5))
        odd.append("zero.wav")
    code, said = as_json("scan", audio, "-o", place / "n.parquet")
    assert (code, said["clips"], said["not_audio"]) == (0, 6, odd)
    (audio / "clips.csv").write_text("path\npipe.wav\n")
    code, said = as_json("scan", audio / "clips.csv", "-o", place / "n.parquet")
    assert (code, "is not a file" in said["error"]) == (2, True)


def test_roots_that_are_links_and_other_file_systems(place, mount, build, basilar, digest):
    (place / "linked").symlink_to("audio")
    other = mount("other", "-t", "tmpfs", "-o", "size=64m", "tmpfs")
    manifest = other / "m.parquet"
    assert basilar("scan", place / "linked", "-o", manifest)[0] == 0
    assert is_clean(build(other / "root", manifest=manifest), other / "root", digest)
    # Features on one file system, what they are made of on another: copied, for want of links.
    root = place / "root"
    (root / "artifacts").mkdir(parents=True)
    mount("root/artifacts", "-t", "tmpfs", "-o", "size=64m", "tmpfs")
    assert is_clean(build(root), root, digest)
