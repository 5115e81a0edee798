import os
import shutil
import subprocess

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from basilar.dsp import resample
from basilar.pipeline import errors
from basilar.pipeline.audit import garbage
from basilar.pipeline.audit.verify import verify
from basilar.pipeline.build import luigi_engine
from basilar.pipeline.build.build import Build
from basilar.pipeline.errors import DamagedArtifactError
from basilar.pipeline.plan import Plan
from basilar.pipeline.recipes.recipe import Recipe
from basilar.pipeline.storage import atomic, locks
from tests.conftest import SMALL


def plans(manifest):
    """Sets that share audio, samples, features or nothing."""
    for change, seconds in (
        ({}, 1.0),
        ({"normalization": {"kind": "robust"}}, 1.0),
        ({"representation": {**SMALL["representation"], "n_mels": 5}}, 1.0),
        ({"resample": {"sample_rate": 4000}}, 1.0),
        ({"normalization": {"kind": "none"}}, 1e9),
    ):
        yield Plan(Recipe.from_dict({**SMALL, **change}), manifest, seconds)


@pytest.fixture(scope="module")
def several(built, tmp_path_factory):
    """A root with five sets, of which some share artifacts."""
    root = tmp_path_factory.mktemp("several") / "root"
    builds = [Build(root=root, plan=plan, tracking_uri="") for plan in plans(built.plan.manifest)]
    for build in builds:
        assert luigi_engine.run(build, workers=1, log=False).succeeded
    return builds


def files(root):
    """All files of a root, by device and inode."""
    return {(s.st_dev, s.st_ino): 512 * s.st_blocks for s in stats(root)}


def stats(root):
    return [path.lstat() for path in root.rglob("*") if path.is_file()]


@pytest.mark.slow
@settings(max_examples=6, suppress_health_check=list(HealthCheck))
@given(gone=st.sets(st.integers(0, 4), min_size=1))
def test_what_is_left_is_all_that_the_sets_need(several, tmp_path_factory, gone):
    root = tmp_path_factory.mktemp("copy") / "root"
    subprocess.run(["cp", "-a", several[0].root, root], check=True)
    builds = [Build(root=root, plan=build.plan, tracking_uri="") for build in several]
    for i in gone:
        shutil.rmtree(builds[i].store)
    expected, before = garbage.find(root), files(root)
    found = garbage.collect(root)
    assert found == expected
    assert found.sets == 5 - len(gone)
    assert found.bytes == sum(before.values()) - sum(files(root).values()) > 0
    assert garbage.find(root).garbage == []
    nothing = dict.fromkeys(("decode", "resample", "representation"), 0)
    needed = set()
    for i in set(range(5)) - gone:
        assert verify(root, builds[i].plan.key).problems == []
        assert verify(root, builds[i].plan.key).artifacts
        shutil.rmtree(builds[i].store)  # made of the artifacts that are left
        outcome = luigi_engine.run(builds[i], workers=1, log=False)
        assert outcome.succeeded
        assert outcome.computed == nothing
        for shard in builds[i].plan.shards:
            needed |= {builds[i].artifact(stage, shard) for stage in ("resample", "representation")}
    assert set(root.glob("artifacts/re*/*")) == needed
    assert len(list(root.glob("artifacts/statistics/*"))) == len(
        {builds[i].plan.fit_key for i in set(range(5)) - gone}
    )
    assert garbage.find(root).garbage == []  # nothing was made that had been removed
    shutil.rmtree(root)


def test_a_root_of_published_sets_holds_no_garbage(root):
    before = files(root)
    assert garbage.collect(root).garbage == []
    assert files(root) == before


def test_a_file_of_several_links_frees_its_bytes_once_and_with_the_last_of_them(tmp_path):
    folders = [tmp_path / "artifacts" / "resample" / f".{digit * 32}.tmp" for digit in "0123"]
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "own").write_bytes(b"x" * 5000)
    os.link(folders[0] / "own", folders[0] / "twice")
    os.link(folders[1] / "own", folders[2] / "shared")
    os.link(folders[3] / "own", tmp_path / "kept")
    size = 512 * (tmp_path / "kept").stat().st_blocks
    assert size > 0
    found = garbage.find(tmp_path)
    freed = {item.path: item.bytes for item in found.garbage}
    assert sorted(freed) == folders
    assert (freed[folders[0]], freed[folders[3]]) == (size, 0)
    assert sorted([freed[folders[1]], freed[folders[2]]]) in ([0, 2 * size], [size, size])
    assert found.bytes == 3 * size


def test_temporaries_go_strangers_stay_and_what_a_repair_moved_aside_comes_back(root):
    left = [
        root / "artifacts" / "resample" / f".{'0' * 32}.tmp",
        root / "features" / f".{'1' * 32}.tmp.zarr",
        root / "catalogue" / "recipes" / f".{'2' * 32}.tmp.json",
        root / ".repair-key",
    ]
    for path in left:
        path.mkdir(parents=True)
        (path / "part").write_bytes(b"x" * 5000)
    strange = [root / "artifacts" / "notes" / "a.txt", root / "artifacts" / "decode" / "b.txt"]
    for path in strange:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    (store,) = (root / "features").glob("[!.]*")
    store.rename(atomic.aside(store))
    replaced = next((root / "artifacts" / "representation").iterdir())
    left.append(atomic.aside(replaced))
    shutil.copytree(replaced, left[-1])
    found = garbage.collect(root)
    assert store.exists()
    assert {item.path for item in found.garbage} >= set(left)
    assert found.unknown == sorted(strange)
    assert not any(path.exists() for path in left)
    assert all(path.read_text() == "mine" for path in strange)


def test_nothing_goes_while_a_build_is_at_work_or_a_set_is_not_understood(root, monkeypatch):
    (store,) = (root / "features").glob("*")
    (name,) = (path.name for path in (root / "catalogue" / "features").glob("*.json"))
    before = files(root)
    (store / "zarr.json").write_text("{")
    (root / "catalogue" / "features" / name).write_text("{")
    with pytest.raises(DamagedArtifactError, match="cannot be read"):
        garbage.collect(root)

    def busy(*_):
        raise BlockingIOError(11, "held")

    monkeypatch.setattr(locks.fcntl, "lockf", busy)
    shutil.rmtree(store)
    before = files(root)
    with pytest.raises(errors.BusyError, match="is at work there"):
        garbage.collect(root)
    assert files(root) == before
    assert garbage.find(root).garbage


def test_a_set_of_another_installation_keeps_its_features(root, monkeypatch):
    monkeypatch.setitem(resample.VERSIONS, "sinc_kaiser", 99)
    found = garbage.collect(root)
    assert "was made with other decoders or op versions" in found.notes[0]
    assert {item.stage for item in found.garbage} >= {"resample", "statistics"}
    assert "representation" not in {item.stage for item in found.garbage}
