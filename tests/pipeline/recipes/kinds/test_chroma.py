import numpy as np

from basilar.pipeline.recipes.recipe import Recipe


def test_a_chroma_without_a_weight_of_octaves_survives_a_round_trip():
    table = {"representation": {"kind": "chroma", "octwidth": "none"}}
    recipe = Recipe.from_dict(table)
    assert Recipe.from_dict(recipe.resolved()) == recipe
    y = np.random.default_rng(0).standard_normal(8000).astype(np.float32)
    weighted = Recipe.from_dict({"representation": {"kind": "chroma"}}).representation
    flat, heavy = (
        kind.compute([y], sample_rate=22050)[0] for kind in (recipe.representation, weighted)
    )
    assert np.abs(flat - heavy).max() > 0.1
