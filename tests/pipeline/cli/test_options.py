from importlib import import_module
from inspect import signature

import pytest

from basilar.pipeline.cli.options import (
    UsageError,
    app,
    complete_key,
    complete_recipe,
    find_key,
    find_store,
)


@pytest.fixture
def root(tmp_path):
    for key in ("3f2a" + "0" * 28, "3f2b" + "0" * 28):
        (tmp_path / "features" / f"{key}.zarr").mkdir(parents=True)
    (tmp_path / "features" / ".3f2c.tmp.zarr").mkdir()
    return tmp_path


def test_a_store_is_found_by_the_beginning_of_its_key(root):
    assert find_store(root, "3f2a").name.startswith("3f2a")


def test_a_key_is_found_in_features_and_in_the_catalogue(root):
    (root / "catalogue" / "features").mkdir(parents=True)
    (root / "catalogue" / "features" / f"5a{'0' * 30}.json").touch()
    assert find_key(root, "5a") == "5a" + "0" * 30
    assert find_key(root, "3f2b") == "3f2b" + "0" * 28
    with pytest.raises(UsageError, match=r"no feature set.*there is: 3f2a00000000, 3f2b0000"):
        find_store(root, "5a")
    with pytest.raises(UsageError, match="several feature sets"):
        find_key(root, "")
    with pytest.raises(UsageError, match="log_mel: it is a recipe, but the key of a feature set"):
        find_key(root, "log_mel")


@pytest.mark.parametrize(("key", "problem"), [("3f2", "several feature sets"), ("4", "no feature")])
def test_a_key_that_fits_several_or_none_is_refused_with_what_there_is(root, key, problem):
    with pytest.raises(UsageError, match=rf"{problem}.*there is: 3f2a00000000, 3f2b00000000$"):
        find_store(root, key)


def test_keys_are_completed_under_the_root_that_is_named(root):
    keys = sorted(path.stem for path in (root / "features").glob("[!.]*"))
    context = type("Context", (), {"params": {"root": root}})
    assert complete_key(context, "") == keys
    assert complete_key(context, "3f2b") == keys[1:]
    assert complete_key(context, "[") == []
    context.params = {}
    assert complete_key(context, "3f") == []


def test_shipped_recipes_are_completed():
    assert complete_recipe("mfcc") == ["mfcc"]
    assert {"cqt", "mfcc"} < set(complete_recipe(""))


def test_audio_is_not_looked_for_in_a_folder_that_is_not_there(as_json):
    import_module("basilar.pipeline.cli.command")  # which registers them
    callbacks = [command.callback for command in app.registered_commands]
    commands = [c.__name__ for c in callbacks if "audio_root" in signature(c).parameters]
    assert {"build", "bundle", "plot", "report", "verify", "reproduce", "parity"} == set(commands)
    for command in commands:
        code, said = as_json(command, "--audio-root", "nosuch")
        assert code == 2
        assert "nosuch: no such folder; name the one" in said["error"]
