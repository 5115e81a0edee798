"""What is left on the disk when the power goes, at every step of every commit.

The steps are recorded as they happen: which names each folder has and what each file holds, and of
both, what was fsynced. From that follow the worst disks: names that were not fsynced are there or
are lost, in any folder, and contents that were not fsynced are lost.
"""

import os
import shutil
from dataclasses import dataclass
from functools import partial
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest

from basilar.pipeline.build.set_tasks import FitNormalization
from basilar.pipeline.compute import stages
from basilar.pipeline.compute.transform import Transform
from basilar.pipeline.compute.waveforms import ClipSamples, Waveforms, write_waveforms
from basilar.pipeline.storage import atomic, files
from basilar.pipeline.store import shard_tables, statistics
from basilar.pipeline.store.publish import publish
from basilar.pipeline.store.shard import write_shard

pytestmark = pytest.mark.usefixtures("disk")
STEPS = ("mkdir", "rename", "replace", "link", "unlink", "rmdir", "fsync")
Names = dict[int, dict[str, int]]  # by the inode of a folder, the inode of each name in it


@dataclass(frozen=True)
class Moment:
    """The disk after a step: what the system sees, and what is sure to be there."""

    step: str
    live: Names
    sure: Names
    contents: dict[int, bytes]  # of files, as last fsynced


class Recorder:
    """Records the steps that are made below a folder which is on the disk itself."""

    def __init__(self, top, monkeypatch):
        self.top = top
        self.moments = []
        self.contents = {}
        self.sure = {}
        live = self.names()
        self.sure.update(live)
        for path in top.rglob("*"):  # what is there before is safe
            if path.is_file():
                self.contents[path.stat().st_ino] = path.read_bytes()
        self.moments.append(Moment("start", live, dict(self.sure), dict(self.contents)))
        for name in STEPS:
            monkeypatch.setattr(os, name, self.recording(name, getattr(os, name)))

    def names(self):
        folders = [self.top, *(path for path in self.top.rglob("*") if path.is_dir())]
        return {
            folder.stat().st_ino: {entry.name: entry.inode() for entry in os.scandir(folder)}
            for folder in folders
        }

    def recording(self, name, original):
        def step(*arguments, **options):
            made = original(*arguments, **options)
            live = self.names()
            if name == "fsync":
                status = os.fstat(arguments[0])
                if status.st_ino in live:
                    self.sure[status.st_ino] = live[status.st_ino]
                else:
                    path = Path(f"/proc/self/fd/{arguments[0]}").resolve()
                    self.contents[status.st_ino] = path.read_bytes()
            if name == "mkdir":  # whatever had this inode before is gone
                self.sure[Path(arguments[0]).stat().st_ino] = {}
            said = f"{name} {' '.join(map(str, arguments))}"
            self.moments.append(Moment(said, live, dict(self.sure), dict(self.contents)))
            return made

        return step

    def disks(self, path):
        """What each worst disk has at `path`: None, or the contents of its files by name."""
        *above, name = path.relative_to(self.top).parts
        for moment in self.moments:
            for upper, lower in product((moment.live, moment.sure), repeat=2):
                folder = self.top.stat().st_ino
                for part in above:
                    folder = upper.get(folder, {}).get(part, -1)
                inode = upper.get(folder, {}).get(name)
                found = None if inode is None else dict(read(inode, lower, moment.contents))
                yield moment.step, found


def read(inode, names, contents, prefix=""):
    """The files of a disk from a file or folder on, by name; None for what was not fsynced."""
    if inode not in names:
        yield prefix, contents.get(inode)
    for name, below in names.get(inode, {}).items():
        yield from read(below, names, contents, f"{prefix}/{name}")


def files_of(path):
    """The same of what is really there; None if nothing is."""
    if not path.exists():
        return None
    inside = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    return {str(p)[len(str(path)) :]: p.read_bytes() for p in inside}


def hold(recorder, path, before):
    """At every step, `path` is what it was before or what it is now, and now for good."""
    now = files_of(path)
    seen = list(recorder.disks(path))
    for step, disk in seen:
        assert disk in (before, now), f"after {step}"
    assert all(disk == now for _, disk in seen[-4:])
    assert sum(disk != now for _, disk in seen) > 4  # it was not there, or otherwise, once


@pytest.fixture
def top(tmp_path):
    (tmp_path / "disk").mkdir()
    return tmp_path / "disk"


def test_a_new_file_in_new_folders_is_whole_or_not_there(top, monkeypatch):
    recorder = Recorder(top, monkeypatch)
    files.write_json(top / "root" / "runs" / "one.json", {"run": 1})
    hold(recorder, top / "root" / "runs" / "one.json", None)


def test_a_replaced_file_is_the_old_or_the_new(top, monkeypatch):
    files.write_json(top / "one.json", {"run": 1})
    before = files_of(top / "one.json")
    recorder = Recorder(top, monkeypatch)
    files.write_json(top / "one.json", {"run": 2})
    hold(recorder, top / "one.json", before)


def test_waveforms_are_whole_or_not_there(top, monkeypatch):
    def made(spool):
        span = spool.put([np.arange(1000, dtype=np.float32)])
        clip = ClipSamples("c", span, 8000, 8000, 1000, (span.crc32,))
        return Waveforms([clip], spool.mapped())

    recorder = Recorder(top, monkeypatch)
    write_waveforms(top / "root" / "resample" / "key", made)
    hold(recorder, top / "root" / "resample" / "key", None)


def test_a_shard_is_whole_or_not_there(built, top, monkeypatch):
    plan = built.plan
    planned, transform = plan.shards[0], Transform(plan.recipe)
    decoded = stages.decode(planned.sources, transform, root=plan.manifest.root)
    make = partial(stages.represent, stages.resample(decoded, transform), transform)
    recorder = Recorder(top, monkeypatch)
    folder = top / "artifacts" / "representation" / "key"
    write_shard(folder, make, recipe=plan.recipe, shard=planned)
    hold(recorder, folder, None)


def test_a_published_store_and_its_entry_are_whole_or_not_there(built, top, monkeypatch):
    plan, parts = built.plan, top / "artifacts"
    shutil.copytree(built.root / "artifacts" / "representation", parts)
    fitted = statistics.read_statistics(FitNormalization.of(built.register()).path())
    recorder = Recorder(top, monkeypatch)
    published, catalogue = top / "features" / "key.zarr", top / "catalogue"
    publish(
        published,
        plan,
        fitted,
        shards=[shard_tables.read_shard(parts / built.shard_folder(s).name) for s in plan.shards],
        catalogue=catalogue,
    )
    hold(recorder, published, None)
    for suffix in ("parquet", "json"):
        hold(recorder, catalogue / f"{built.plan.key}.{suffix}", None)
    # Who finds an entry finds its table, and who finds a store finds its entry.
    order = [published, *(catalogue / f"{built.plan.key}.{s}" for s in ("json", "parquet"))]
    for later, sooner in pairwise(order):
        pairs = zip(recorder.disks(later), recorder.disks(sooner), strict=True)
        assert all(two is not None for (_, one), (_, two) in pairs if one is not None)


def test_what_is_removed_is_whole_or_not_there(built, top, monkeypatch):
    shutil.copytree(built.store, top / "key.zarr")
    before = files_of(top / "key.zarr")
    recorder = Recorder(top, monkeypatch)
    atomic.remove(top / "key.zarr")
    hold(recorder, top / "key.zarr", before)
