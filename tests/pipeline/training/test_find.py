import json
import os
import subprocess
import sys

import fsspec
import pytest

import basilar as package
from basilar import errors
from basilar.pipeline.training import find

OLD, NEW, OTHER = ("3f2a" + "0" * 28, "3f2b" + "0" * 28, "77" + "0" * 30)


@pytest.fixture
def several(tmp_path):
    """Two sets of one recipe and one of another, as far as they are looked at to be found."""
    for key, name, seconds in ((NEW, "m", 2e9), (OLD, "m", 1e9), (OTHER, "", 3e9)):
        file = tmp_path / "features" / f"{key}.zarr" / "zarr.json"
        file.parent.mkdir(parents=True)
        recipe = {"name": name, "representation": {"kind": "mfcc"}}
        file.write_text(json.dumps({"attributes": {"basilar": {"recipe": recipe}}}))
        os.utime(file, (seconds, seconds))
    (tmp_path / "features" / f".{OLD}.tmp.zarr").mkdir()
    (tmp_path / "features" / "damaged.zarr").mkdir()
    (tmp_path / "features" / "damaged.zarr" / "zarr.json").write_text("{")
    return tmp_path


@pytest.mark.parametrize("name", ["3f2a", OLD])
def test_a_set_is_found_by_the_beginning_of_its_key(several, name):
    assert find.find_set(several, name).stem == OLD


def test_a_set_is_found_by_its_recipe(several):
    assert find.find_set(several, "mfcc").stem == OTHER  # a recipe without a name goes by its kind


def test_of_several_the_last_is_taken_or_all_are_listed_with_their_times(several):
    times = (
        rf"{OLD[:12]} \(published 2001-09-09 01:46:40 UTC\), "
        rf"{NEW[:12]} \(published 2033-05-18 03:33:20 UTC\); name a key, or take the last with"
    )
    with pytest.raises(
        errors.NoRecordError, match=f"several feature sets of the recipe 'm', {times}"
    ):
        find.find_set(several, "m")
    with pytest.raises(errors.NoRecordError, match=rf"with a key that begins with '3f', {times}"):
        find.find_set(several, "3f")
    assert find.find_set(several, "m", latest=True).stem == NEW
    assert find.find_set(several, "3f", latest=True).stem == NEW


def test_what_is_not_there_is_said_in_the_words_of_the_commands(several, basilar):
    for name, root in (("4", several), ("4", several / "nosuch"), (OTHER[:3] + "1", several)):
        code, _, err = basilar("show", name, "--root", root, "--json")
        assert code == 2
        with pytest.raises(errors.NoRecordError) as refused:
            package.open(root, name)
        said = str(refused.value).replace(f" of the recipe {name!r}, and none", "")
        assert err.splitlines() == [
            f"error: {said.partition(': ')[2].rpartition('; ')[0]}",
            f"where: {root}",
            f"to do: {said.rpartition('; ')[2]}",
        ]
    with pytest.raises(errors.NoRecordError, match="no feature set of the recipe 'mel', and none"):
        package.open(several, "mel")


def test_an_empty_root_says_so(tmp_path):
    with pytest.raises(errors.NoRecordError, match=r"begins with ''; there is: none$"):
        package.open(tmp_path)


def test_a_set_opens_and_shows_itself(built):
    fs = package.open(str(built.root), "small", access="read", memory_limit=1)
    assert (fs.key, fs.access, fs.memory_limit) == (built.plan.key, "read", 1)
    assert package.open(built.root).key == package.open(built.root, fs.key[:6]).key == fs.key
    hours = fs.clips["duration"].sum() / 3600
    assert repr(fs) == (
        f"FeatureSet: small, 12 clips, {hours:.2f} h, (frames, 8) float32\n"
        f"  key   {fs.key}\n  path  {fs.path}"
    )
    some = fs.select(split="train")
    assert repr(some).startswith(f"FeatureSet: small, {len(some)} of 12 clips, (frames, 8) float32")
    loader = package.Loader(some, batch_size=4, n_frames=10)
    assert repr(loader) == (
        f"Loader: {len(some)} clips, {len(loader)} batches of 4 an epoch, crops of 10 frames, "
        f"shuffled\n  key   {fs.key}"
    )


def test_a_set_is_found_and_opened_without_what_builds_need(built):
    code = f"""
import sys
sys.modules.update(dict.fromkeys(("zarr", "luigi", "mlflow", "pandas", "typer", "rich")))
import basilar
fs = basilar.open({str(built.root)!r}, "small")
print(len(fs), fs[0].shape[1], repr(fs).count("\\n"))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "12 8 2\n", done.stderr


def test_a_set_of_an_object_store_is_found_too(built, tmp_path):
    store = fsspec.filesystem("memory")
    for key in (built.plan.key, OLD):  # of the second, nothing but its recipe is looked at
        store.put(str(built.store), f"/found/features/{key}.zarr", recursive=True)
    with pytest.raises(errors.NoRecordError, match=rf"memory://found: several .*{OLD[:12]} \(publ"):
        package.open("memory://found", "small")
    fs = package.open("memory://found", built.plan.key[:8], cache=tmp_path)
    assert fs.path.is_relative_to(tmp_path)
    assert (fs[0] == package.open(built.root)[0]).all()
    assert repr(fs).endswith(f"  path  memory://found/features/{fs.key}.zarr")
