import json

from tests.pipeline.store.test_publish import LOG_MEL, publish, recipe_of


def test_attributes_say_what_it_is(audio_folder, tmp_path):
    plan, path = publish(tmp_path, audio_folder, recipe_of(LOG_MEL))
    attributes = json.loads((path / "zarr.json").read_text())["attributes"]["basilar"]
    assert attributes["key"] == plan.key
    assert attributes["manifest_hash"] == plan.manifest.hash
    assert attributes["recipe"] == plan.recipe.resolved()
    assert attributes["portable"] is True
    assert attributes["shards"] == {str(shard.index): 1 for shard in plan.shards}
    assert {"numpy", "scipy", "soxr", "python", "basilar"} <= attributes["versions"].keys()
