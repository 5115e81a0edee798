import re

import pytest

from basilar.pipeline.errors import RecipeError
from basilar.pipeline.recipes.recipe import Recipe
from tests.conftest import REPOSITORY
from tests.pipeline.recipes.test_recipe import MEL

REFUSED = [
    ({"representation": {"kind": "mel", "n_mel": 3}}, "representation.n_mel is not a key; did you"),
    (
        {"representation": {"kind": "logmel"}},
        "kind = 'logmel' is not a kind; did you mean log_mel?",
    ),
    ({"representation": {}}, "kind = '' is not a kind; allowed: waveform, stft"),
    ({}, "representation is missing"),
    (
        {"schema_version": 2, "representation": MEL},
        "schema_version = 2 is newer than 1, the newest that this installation reads; install a",
    ),
    *(
        ({"schema_version": wrong, "representation": MEL}, f"schema_version = {wrong!r} is refused")
        for wrong in (0, -1, "1", 1.0, True, [])
    ),
    ({"stor": {}, "representation": MEL}, "stor is not a key; did you mean store?"),
    ({"store": {"codec": "zip"}, "representation": MEL}, "codec = 'zip' is refused; allowed: none"),
    (
        {"representation": {**MEL, "n_fft": 2**40}},
        "n_fft = 1099511627776 is refused; it must be le",
    ),
    (
        {"representation": {**MEL, "n_fft": 512.5}},
        "n_fft = 512.5 is refused; it must be a valid in",
    ),
    (
        {"representation": {**MEL, "n_fft": "512"}},
        "n_fft = '512' is refused; it must be a valid in",
    ),
    ({"representation": {**MEL, "n_fft": True}}, "n_fft = True is refused; it must be a valid int"),
    (
        {"representation": {**MEL, "hop_length": -1}},
        "hop_length = -1 is refused; it must be greate",
    ),
    ({"representation": {**MEL, "n_mels": 10**6}}, "n_mels = 1000000 is refused; it must be less"),
    ({"representation": {**MEL, "fmin": float("nan")}}, "fmin = nan is refused"),
    ({"representation": {**MEL, "window": "han"}}, "window = 'han' is refused; did you mean hann?"),
    ({"representation": {**MEL, "fmax": 20000.0}}, "20000.0 Hz do not span any bands; they"),
    ({"representation": {**MEL, "win_length": 4096}}, "win_length = 4096 must not exceed n_fft"),
    ({"representation": {"kind": "log_mel", "top_db": 0.0}}, "top_db = 0.0 is refused"),
    ({"representation": {"kind": "log_mel", "floor": 0.0}}, "floor = 0.0 is refused"),
    ({"decode": {"channels": "all"}, "representation": MEL}, "decode.channels = 'all' is refused"),
    ({"decode": 3, "representation": MEL}, "decode = 3 is refused"),
    ({"decode": {"max_seconds": 0}, "representation": MEL}, "decode.max_seconds = 0 is refused"),
    (
        {"decode": {"max_channels": 65}, "representation": MEL},
        "max_channels = 65 is refused",
    ),
    ({"decode": {"max_mib": 0.5}, "representation": MEL}, "decode.max_mib = 0.5 is refused"),
    ({"resample": {"sample_rate": 0}, "representation": MEL}, "sample_rate = 0 is refused"),
    (
        {"representation": {"kind": "stft"}, "normalization": {"kind": "standard"}},
        'kind = "standard" is not defined for complex values',
    ),
]


@pytest.mark.parametrize(("table", "message"), REFUSED, ids=[m[:40] for _, m in REFUSED])
def test_a_wrong_recipe_is_refused_by_key_and_value(table, message):
    with pytest.raises(RecipeError) as refused:
        Recipe.from_dict(table, source="my.toml")
    assert all(line.startswith("my.toml: ") for line in str(refused.value).splitlines())
    assert message in str(refused.value)


def test_every_mistake_is_named_at_once():
    with pytest.raises(RecipeError) as refused:
        Recipe.from_dict({"representation": {**MEL, "n_mel": 3, "hop": 2}})
    assert len(str(refused.value).splitlines()) == 2


@pytest.mark.parametrize("name", ["log_mel", "mfcc", "log_cqt"])
def test_a_mistake_is_shown_by_its_line(tmp_path, name):
    lines = (REPOSITORY / "params" / f"{name}.toml").read_text("utf-8").splitlines()
    file = tmp_path / "bad.toml"
    kind = re.compile(
        r"(?!kind = .(log_mel|mfcc|log_cqt))\w+ = "
    )  # without a kind there are no other keys
    keys = [i for i, line in enumerate(lines) if kind.match(line)]
    assert len(keys) > 15
    for i in keys:
        wrong = [*lines[:i], re.sub(r"^(\w+) = .*", r"\1_x = 3", lines[i]), *lines[i + 1 :]]
        file.write_text("\n".join(wrong), "utf-8")
        with pytest.raises(RecipeError, match=rf"bad\.toml, line {i + 1}: "):
            Recipe.load(file)


def test_a_mistake_between_keys_is_shown_by_the_first_it_names(tmp_path):
    file = tmp_path / "bad.toml"
    file.write_text('[representation]\nkind = "mfcc"\n\nn_mfcc = 400\n', "utf-8")
    with pytest.raises(RecipeError, match=r"bad\.toml, line 4: representation: n_mfcc = 400 must"):
        Recipe.load(file)
    file.write_text('name = "x"\n[representation]\nn_fft = 512\n', "utf-8")
    with pytest.raises(RecipeError, match=r"bad\.toml, line 2: representation.kind = '' is not"):
        Recipe.load(file)


def test_the_longest_recipes_are_refused_without_a_search_for_lines(tmp_path):
    file = tmp_path / "bad.toml"
    file.write_text("x = 1\n" + "#\n" * 500_000, "utf-8")
    with pytest.raises(RecipeError, match=r"bad\.toml: x is not a key"):
        Recipe.load(file)
