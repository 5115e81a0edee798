import pytest

from basilar.pipeline.errors import RecipeError
from tests.pipeline.recipes.kinds.test_registry import kind_of


def test_a_copy_with_other_values_computes_with_them():
    kind = kind_of("log_mel")
    assert (kind.framing.hop_length, kind.bank.n_mels, kind.logarithm.top_db) == (24, 20, None)
    copy = kind.model_copy(update={"hop_length": 16, "n_mels": 10, "top_db": 60.0})
    assert (copy.framing.hop_length, copy.bank.n_mels, copy.logarithm.top_db) == (16, 10, 60.0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"n_mfcc": 21}, "n_mfcc = 21 must not exceed n_mels = 20"),
        ({"delta_width": 4}, "delta_width = 4 is even; it must be odd"),
        ({"n_deltas": 3}, "n_deltas = 3 is refused"),
        ({"lifter": -1.0}, "lifter = -1.0 is refused"),
    ],
)
def test_impossible_coefficients_are_refused(values, message):
    with pytest.raises(RecipeError, match=message):
        kind_of("mfcc", **values)
