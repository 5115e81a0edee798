"""Recipes of every kind, valid and not: refused with a reason, or computed, and hashed alike."""

import json
import math
import os
import subprocess
import sys
import tomllib

import numpy as np
import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from basilar.pipeline import audio
from basilar.pipeline.compute import stages
from basilar.pipeline.compute.transform import Transform
from basilar.pipeline.errors import RecipeError
from basilar.pipeline.recipes.hashes import recipe_hashes
from basilar.pipeline.recipes.kinds.registry import KINDS
from basilar.pipeline.recipes.recipe import Recipe
from tests.conftest import REPOSITORY
from tests.fuzz import examples
from tests.fuzz.recipes import WRONG, paths, tables
from tests.waveforms import waveforms

NOISE = (0.1 * np.random.default_rng(0).standard_normal((3000, 64))).astype(np.float32)
ANY = st.sampled_from(list(KINDS)).flatmap(tables)


def accepted(table):
    try:
        return Recipe.from_dict(table)
    except RecipeError:
        return None


def cost(recipe, source_rate):
    """About how many numbers the features of the noise take, or the tables they need."""
    kind, rate = recipe.representation, recipe.resample.sample_rate
    samples = len(NOISE) * rate // source_rate + 1
    width = max(kind.columns(), getattr(kind, "n_fft", 1))
    taps = 0
    if hasattr(kind, "parameters"):
        taps = sum(kind.parameters.lengths(sample_rate=rate))
    if recipe.resample.method != "soxr":
        taps += rate * source_rate // math.gcd(rate, source_rate) ** 2
    return kind.n_frames(samples) * width + kind.columns() * getattr(kind, "n_fft", 1) + taps


def is_moderate(table):
    """Whether all numbers of a table are near to those in use, so that no value is too large."""
    numbers = [v for v in table["representation"].values() if isinstance(v, float)]
    in_use = all(v == 0 or 1e-3 <= abs(v) <= 1e3 for v in numbers)
    return in_use and table["representation"].get("dtype") != "float16"


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_an_accepted_recipe_computes_what_it_says(kind):
    computed = []

    @examples(12)
    @given(tables(kind), st.sampled_from([8000, 16000, 44100]), st.randoms(use_true_random=False))
    def check(table, source_rate, chance):
        recipe = accepted(table)
        if recipe is None or cost(recipe, source_rate) > 3e6:
            return
        transform, expected = Transform(recipe), recipe.representation
        channels = recipe.decode.channels
        y = NOISE[:, : channels + 1] if isinstance(channels, int) else NOISE[:, :2]
        try:
            x = transform.apply(y, sample_rate=source_rate)
        except ValueError as error:
            assert expected.too_short_message in str(error)
            return
        mono = audio.mix(y, channels)
        resampled = transform.resample(mono, source_rate=source_rate)
        assert x.shape == (expected.n_frames(resampled.size), expected.columns())
        assert x.dtype == expected.stored_dtype()
        computed.append(table)
        features = []
        made = stages.represent(waveforms(resampled), transform, features.append)
        if np.isfinite(x).all() and not made.quarantined:
            assert features[0].tobytes() == x.tobytes()
        else:
            assert not is_moderate(table)
            assert made.quarantined[0].reason == "too_loud_or_nan"
        if expected.is_framewise and recipe.resample.method == "soxr":
            stream = transform.stream(source_rate)
            cuts = sorted(chance.randrange(mono.size) for _ in range(chance.randrange(20)))
            parts = [stream.push(piece) for piece in np.split(mono, cuts)]
            assert np.concatenate([*parts, stream.finish()]).tobytes() == x.tobytes()

    check()
    assert computed


@examples(60)
@given(ANY, ANY, st.text(max_size=9), st.randoms(use_true_random=False), st.data())
def test_hashes_are_those_of_the_values(table, other, name, chance, data):
    recipe = accepted(table)
    if recipe is None:
        return
    hashes, text = recipe_hashes(recipe), recipe.to_toml()
    again = Recipe.from_dict(tomllib.loads(text))
    assert again.resolved() == recipe.resolved()
    assert again.to_toml() == text
    # As people may write it: in any order, whole numbers without a point.
    spelled = respelled(recipe.resolved(), chance)
    assert recipe_hashes(Recipe.from_dict(tomllib.loads(tomli_w.dumps(spelled)))) == hashes
    moved = {**recipe.resolved(), "name": name, "store": {"codec": "archive", "chunk_kib": 7}}
    assert recipe_hashes(Recipe.from_dict(moved)) == hashes
    # This recipe, but for one section or one key of another.
    section = data.draw(st.sampled_from([*other]))
    mixed = {**table, section: other[section]}
    kinds = {t["representation"]["kind"] for t in (table, other)}
    if section == "representation" and len(kinds) == 1:
        key = data.draw(st.sampled_from([*other[section]]))
        mixed[section] = {**table[section], key: other[section][key]}
    different = accepted(mixed)
    if different is not None:
        equal = valued(different) == valued(recipe)
        assert (recipe_hashes(different)["normalization"] == hashes["normalization"]) == equal


def valued(recipe):
    return {k: v for k, v in recipe.resolved().items() if k not in ("name", "store")}


def respelled(value, chance):
    if isinstance(value, dict):
        items = [(key, respelled(item, chance)) for key, item in value.items()]
        return dict(chance.sample(items, len(items)))
    return int(value) if isinstance(value, float) and value == int(value) < 2**53 else value


@pytest.mark.slow
@examples(2)
@given(st.lists(ANY, min_size=9, max_size=9))
def test_hashes_are_the_same_in_every_process(several):
    recipes = [recipe for recipe in map(accepted, several) if recipe is not None]
    code = (
        "import json, sys, tomllib\n"
        "from basilar.pipeline.recipes.hashes import recipe_hashes\n"
        "from basilar.pipeline.recipes.recipe import Recipe\n"
        "for text in json.load(sys.stdin):\n"
        "    print(recipe_hashes(Recipe.from_dict(tomllib.loads(text)))['normalization'])\n"
    )
    expected = [recipe_hashes(recipe)["normalization"] for recipe in recipes]
    for hash_seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            input=json.dumps([recipe.to_toml() for recipe in recipes]),
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.split() == expected


@examples(200)
@given(ANY, WRONG, st.text(min_size=1, max_size=9), st.data())
def test_a_wrong_recipe_is_refused_in_words(table, wrong, word, data):
    """One value of any kind anywhere, or one key more."""
    where = data.draw(st.sampled_from(paths(table)))
    if where and data.draw(st.booleans()):
        *outer, last = where
    else:
        outer, last = where, word
    inner = table = json.loads(json.dumps(table))
    for key in outer:
        inner = inner[key]
    if not isinstance(inner, dict):
        return
    inner[last] = wrong
    try:
        Recipe.from_dict(table, source="the file")
    except RecipeError as error:
        lines = str(error).split("\n")
        assert lines[0].startswith("the file: ")
        assert "pydantic" not in str(error)
        # What the sections say together names the keys that disagree.
        keys = {key for path in paths(table) for key in path} | {"representation", "normalization"}
        assert any(str(key) in str(error) for key in keys)


@examples(200)
@given(st.one_of(st.binary(max_size=60), st.sampled_from(sorted(KINDS)).map(str.encode)), st.data())
def test_any_file_is_a_recipe_or_refused(tmp_path, content, data):
    file = tmp_path / "recipe.toml"
    start = data.draw(st.sampled_from([b"", b"[representation]\nkind = ", b"name = ", b"a.b = {"]))
    file.write_bytes(start + content)
    try:
        Recipe.load(file)
    except RecipeError as error:
        assert str(error).startswith(str(file))


@pytest.mark.parametrize("value", ["9" * 5000, "0x" + "f" * 5000, "[" * 9999])
def test_numbers_and_depths_beyond_python_are_refused(tmp_path, value):
    (tmp_path / "recipe.toml").write_text(f"name = {value}")
    with pytest.raises(RecipeError, match=r"recipe\.toml: "):
        Recipe.load(tmp_path / "recipe.toml")
