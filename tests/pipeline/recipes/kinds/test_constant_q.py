import pytest

from basilar.pipeline.errors import RecipeError
from tests.pipeline.recipes.kinds.test_registry import kind_of


def test_bins_above_half_the_sample_rate_are_refused():
    with pytest.raises(RecipeError, match=r"the highest band ends at .* above 4000\.0 Hz"):
        kind_of("cqt", n_bins=60)
