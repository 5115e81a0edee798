import logging
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from basilar.pipeline.errors import RecipeError
from basilar.pipeline.recipes import recipe as module
from basilar.pipeline.recipes.hashes import recipe_hashes
from basilar.pipeline.recipes.kinds.framed import Framed
from basilar.pipeline.recipes.kinds.registry import KINDS
from basilar.pipeline.recipes.recipe import Recipe, upgraded_text
from tests.conftest import REPOSITORY

# Conventions that only a preset of another library departs from may be left to their defaults.
SELDOM = {"win_length", "dither", "align", "drop_last", "scale", "remove_dc", "preemphasis"}

SELDOM |= {"gain", "reference", "shift", "factor", "subtract_mean"}

SHIPPED = sorted((REPOSITORY / "params").glob("*.toml"))


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_shipped_recipes_are_valid_named_and_say_every_value(file):
    recipe = Recipe.load(file.stem)
    assert recipe == Recipe.load(file)
    assert recipe.name == file.stem
    written = tomllib.loads(file.read_text("utf-8"))
    resolved = recipe.resolved()
    for section, values in resolved.items():
        if isinstance(values, dict):
            missing = values.keys() - written[section].keys() - SELDOM
            assert not missing, f"{file.name}: [{section}] leaves {missing} to the defaults"


def test_the_introductions_recipes_are_shipped():
    kinds = {file.stem: Recipe.load(file).representation for file in SHIPPED}
    assert {"waveform", "stft", "magnitude", "log_magnitude", "decibel", "mel"} <= kinds.keys()
    for name in ("stft", "magnitude", "log_magnitude", "decibel"):
        assert (kinds[name].n_frames(110_250), kinds[name].columns()) == (862, 257)
    for name in ("mel", "log_mel_512"):
        assert (kinds[name].n_frames(110_250), kinds[name].columns()) == (862, 128)


def test_resolving_fills_in_what_depends_on_other_values():
    recipe = Recipe.from_dict(
        {"resample": {"sample_rate": 16000}, "representation": {"kind": "mel", "n_fft": 400}}
    )
    assert recipe.representation.fmax == 8000
    assert recipe.representation.win_length == 400


representations = st.fixed_dictionaries(
    {"kind": st.sampled_from(sorted(k for k, v in KINDS.items() if issubclass(v, Framed)))},
    optional={
        "n_fft": st.integers(16, 8192),
        "hop_length": st.integers(256, 4096),
        "window": st.sampled_from(["hann", "hamming", "blackman", "rectangular"]),
        "periodic": st.booleans(),
        "center": st.booleans(),
    },
)


@given(
    representation=representations,
    sample_rate=st.integers(100, 192_000),
    split=st.text(min_size=1),
    name=st.text(),
)
def test_a_resolved_recipe_survives_toml(representation, sample_rate, split, name):
    recipe = Recipe.from_dict(
        {
            "name": name,
            "resample": {"sample_rate": sample_rate},
            "representation": representation,
            "normalization": {"split": split},
        }
    )
    again = Recipe.from_dict(tomllib.loads(recipe.to_toml()))
    assert again == recipe
    assert recipe_hashes(again) == recipe_hashes(recipe)


MEL = {"kind": "mel"}


def test_a_file_that_is_not_toml(tmp_path):
    file = tmp_path / "bad.toml"
    file.write_text("[representation\n")
    with pytest.raises(RecipeError, match=r"bad\.toml: not a TOML file .*line 1"):
        Recipe.load(file)


def test_recipes_cannot_be_changed():
    recipe = Recipe.from_dict({"representation": MEL})
    with pytest.raises(ValueError, match="frozen"):
        recipe.representation.n_fft = 3


def test_a_name_that_is_not_shipped():
    for file in ("params/nosuch/logmel.toml", "log_mle.toml", "log_mel.toml", "mine/log_mel"):
        with pytest.raises(RecipeError, match=f"{file}: no such file; did you mean log_mel, whi"):
            Recipe.load(file)
    with pytest.raises(RecipeError, match=r"log_mle.: no such file, nor a .* did you mean log_mel"):
        Recipe.load("log_mle")
    with pytest.raises(FileNotFoundError):
        Recipe.load("mine/other.toml")


def test_the_schema_version_is_1_if_left_out_and_in_no_hash(monkeypatch):
    recipe = Recipe.from_dict({"representation": MEL})
    assert recipe == Recipe.from_dict({"schema_version": 1, "representation": MEL})
    assert recipe.resolved()["schema_version"] == 1
    other = recipe.model_copy(update={"schema_version": 7})
    assert recipe_hashes(other) == recipe_hashes(recipe)


def test_upgrading_a_recipe_of_today_leaves_its_text(tmp_path):
    file = tmp_path / "r.toml"
    file.write_text('# mine\n[representation]\nkind = "mel" # bands\n')
    assert upgraded_text(file) == f"schema_version = 1\n{file.read_text()}"
    assert upgraded_text("mel") == (REPOSITORY / "params" / "mel.toml").read_text("utf-8")
    file.write_text('[representation]\nkind = "melt"\n')
    with pytest.raises(RecipeError, match="did you mean mel"):
        upgraded_text(file)


def renamed(table):
    """An upgrade of a day to come: representation.hop is hop_length."""
    values = dict(table["representation"])
    if values.get("kind") == "gone":
        raise ValueError("the kind gone is gone")
    values["hop_length"] = values.pop("hop")
    return {**table, "representation": values}


def test_an_older_recipe_is_read_with_a_note_upgraded_on_request_or_refused(
    tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(module, "RECIPE_SCHEMA", 2)
    monkeypatch.setattr(module, "UPGRADES", {1: renamed})
    old, new = {"kind": "mel", "hop": 100}, {"kind": "mel", "hop_length": 100}
    expected = Recipe.from_dict({"schema_version": 2, "representation": new})
    assert Recipe.from_dict({"representation": old}) == expected  # as stored in an old feature set
    file = tmp_path / "r.toml"
    file.write_text('[representation]\nkind = "mel"\nhop = 100\n')
    with caplog.at_level(logging.WARNING, "basilar"):
        assert Recipe.load(file) == expected
    assert f"schema_version = 1, read as 2; basilar recipe {file} --upgrade" in caplog.text
    text = upgraded_text(file)
    assert tomllib.loads(text) == {"schema_version": 2, "representation": new}
    file.write_text(text)
    caplog.clear()
    assert Recipe.load(file) == expected
    assert not caplog.text
    file.write_text('[representation]\nkind = "gone"\n')
    with pytest.raises(RecipeError, match=r"schema_version = 1 can no longer be .*\(the kind go"):
        Recipe.load(file)
    file.write_text('schema_version = 3\n[representation]\nkind = "mel"\n')
    with pytest.raises(RecipeError, match="schema_version = 3 is newer than 2"):
        Recipe.load(file)
