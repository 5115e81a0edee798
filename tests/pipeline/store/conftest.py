from functools import partial

import pytest

from basilar.pipeline.compute.transform import Transform
from basilar.pipeline.manifests.scan import scan
from basilar.pipeline.plan import Plan
from basilar.pipeline.recipes.recipe import Recipe
from basilar.pipeline.store import shard_tables
from basilar.pipeline.store.shard import write_shard
from tests.pipeline.store.test_statistics import RECIPE


@pytest.fixture
def shards_of(audio_folder, tmp_path):
    """Make the shards of a recipe and a split without Luigi: (plan, tables)."""
    from basilar.pipeline.compute import stages

    def make(shares, shard_seconds=2.0, **normalization):
        recipe = Recipe.from_dict({**RECIPE, "normalization": normalization})
        plan = Plan(recipe, scan(audio_folder, split=shares), shard_seconds)
        tables = []
        for shard in plan.shards:
            folder = tmp_path / shard.keys["representation"]
            if not folder.exists():
                decoded = stages.decode(shard.sources, Transform(recipe), root=audio_folder)
                resampled = stages.resample(decoded, Transform(recipe))
                make = partial(stages.represent, resampled, Transform(recipe))
                write_shard(folder, make, recipe=recipe, shard=shard)
            tables.append(shard_tables.read_shard(folder))
        return plan, tables

    return make
