import json

import pytest

from basilar.pipeline.errors import ForeignStoreError
from basilar.pipeline.store.attributes import store_attributes
from tests.pipeline.store.test_publish import LOG_MEL, publish, recipe_of


def test_attributes_say_what_it_is(audio_folder, tmp_path):
    plan, path = publish(tmp_path, audio_folder, recipe_of(LOG_MEL))
    attributes = json.loads((path / "zarr.json").read_text())["attributes"]["basilar"]
    assert attributes["key"] == plan.key
    assert attributes["manifest_hash"] == plan.manifest.hash
    assert attributes["recipe"] == plan.recipe.resolved()
    assert attributes["shards"] == {str(shard.index): 1 for shard in plan.shards}
    assert {"numpy", "soxr", "python", "basilar"} <= attributes["versions"].keys()


def test_attributes_of_a_store_and_of_what_is_none(built, tmp_path):
    assert store_attributes(built.store)["key"] == built.plan.key
    with pytest.raises(FileNotFoundError, match="no feature set here; basilar ls lists those"):
        store_attributes(tmp_path)
    for number, found in enumerate(
        [[], {}, {"attributes": []}, {"attributes": {"basilar": {"kind": "model", "schema": 1}}}]
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "zarr.json").write_text(json.dumps(found))
        with pytest.raises(ForeignStoreError, match="but not a Basilar feature set of schema 1"):
            store_attributes(folder)
