from basilar.pipeline import audio
from basilar.pipeline.recipes import hashes
from basilar.pipeline.recipes.recipe import Recipe, Resample


def test_the_log_mel_recipes_hash_is_pinned():
    """If this fails without an op version having been raised, stored sets would be lost."""
    recipe = Recipe.from_dict({"representation": {"kind": "log_mel"}})
    assert hashes.recipe_hashes(recipe)["normalization"] == "ddaf9518530507a651be9d44e71a9508"


def recipe_hash(**sections):
    sections.setdefault("representation", {"kind": "log_mel"})
    return hashes.recipe_hashes(Recipe.from_dict(sections))["normalization"]


def test_recipe_hash_covers_what_changes_numbers():
    hashes = [
        recipe_hash(),
        recipe_hash(decode={"channels": "first"}),
        recipe_hash(decode={"channels": 0}),
        recipe_hash(decode={"max_seconds": 60.0}),
        recipe_hash(decode={"max_channels": 2}),
        recipe_hash(decode={"max_mib": 1024}),
        recipe_hash(resample={"sample_rate": 16000}),
        recipe_hash(resample={"quality": "high"}),
        recipe_hash(representation={"kind": "log_mel", "n_mels": 127}),
        recipe_hash(representation={"kind": "log_mel", "dtype": "float16"}),
        recipe_hash(representation={"kind": "log_mel", "top_db": 80.0}),
        recipe_hash(representation={"kind": "mel"}),
        recipe_hash(normalization={"kind": "standard"}),
        recipe_hash(normalization={"split": "all"}),
    ]
    assert len(set(hashes)) == len(hashes)


def test_recipe_hash_leaves_out_what_does_not():
    assert recipe_hash() == recipe_hash(name="another", store={"codec": "archive", "chunk_kib": 1})
    spelled_out = {"kind": "log_mel", "win_length": 2048, "fmax": 11025.0, "fmin": 0, "n_mels": 128}
    assert recipe_hash() == recipe_hash(representation=spelled_out)


def test_upstream_hashes_are_inside_downstream_ones(monkeypatch):
    before = hashes.recipe_hashes(Recipe.from_dict({"representation": {"kind": "mel"}}))
    monkeypatch.setattr("basilar.dsp.resample.VERSION", 99)
    after = hashes.recipe_hashes(Recipe.from_dict({"representation": {"kind": "mel"}}))
    assert [stage for stage in before if before[stage] != after[stage]] == [
        "resample",
        "representation",
        "normalization",
    ]


def test_hashes_of_versions_that_were_recorded(monkeypatch):
    recipe = Recipe.from_dict({"representation": {"kind": "log_mel"}})
    then, versions = hashes.recipe_hashes(recipe), hashes.op_versions(recipe)
    monkeypatch.setattr(audio, "VERSION", 99)
    assert hashes.recipe_hashes(recipe) != then
    assert hashes.recipe_hashes(recipe, versions) == then


def test_a_feature_key_covers_recipe_manifest_and_decoders():
    found = {hashes.feature_key("r", "m", [])}
    found |= {hashes.feature_key("x", "m", []), hashes.feature_key("r", "x", [])}
    assert len(found | {hashes.feature_key("r", "m", ["libsndfile 1.2.2"])}) == 4


def test_a_key_added_later_is_in_no_hash_of_what_was_recorded_before():
    class Later(Resample):
        dithered: bool = False

    then = Recipe.from_dict({"representation": {"kind": "log_mel"}})
    now = then.model_copy(update={"resample": Later()})
    recorded = then.resolved()
    assert hashes.recipe_hashes(then, recorded=recorded) == hashes.recipe_hashes(then)
    assert hashes.recipe_hashes(now)["decode"] == hashes.recipe_hashes(then)["decode"]
    assert hashes.recipe_hashes(now)["resample"] != hashes.recipe_hashes(then)["resample"]
    assert hashes.recipe_hashes(now, recorded=recorded) == hashes.recipe_hashes(then)
    del recorded["resample"]["quality"]
    assert hashes.recipe_hashes(then, recorded=recorded) != hashes.recipe_hashes(then)
