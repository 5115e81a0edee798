import numpy as np
import pytest

from basilar.pipeline.errors import RecipeError
from basilar.pipeline.recipes.kinds.base import MOST_VALUES, Representation
from basilar.pipeline.recipes.kinds.registry import KINDS
from basilar.pipeline.recipes.recipe import Recipe


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_says_what_its_numbers_mean(kind):
    representation = Recipe.from_dict({"representation": {"kind": kind}}).representation
    assert isinstance(representation, Representation)
    assert representation.columns() > 0
    assert representation.stored_dtype() in (np.float32, np.float16, np.complex64)
    assert np.all(np.diff(representation.grid.edges()) > 0)
    centres = representation.centres(np.arange(3.0))
    assert np.all(np.diff(centres) > 0)


def test_a_table_is_frozen_strict_and_knows_its_keys():
    table = {"kind": "magnitude", "n_fft": 512}
    representation = Recipe.from_dict({"representation": table}).representation
    with pytest.raises(ValueError, match="frozen"):
        representation.n_fft = 256
    for wrong in ({"n_fft": 512.0}, {"n_fft": "512"}, {"nfft": 512}):
        with pytest.raises(RecipeError, match=next(iter(wrong))):
            Recipe.from_dict({"representation": {**table, **wrong}})


def test_a_second_of_audio_may_not_make_more_than_memory_holds():
    n_fft = 2**16
    hop_length = (n_fft // 2 + 1) * 48_000 // MOST_VALUES + 1  # n_fft samples make a frame
    table = {"resample": {"sample_rate": 48_000}}

    def made(hop_length):
        section = {"kind": "magnitude", "n_fft": n_fft, "hop_length": hop_length}
        return Recipe.from_dict({**table, "representation": section})

    assert made(2 * hop_length).representation.hop_length == 2 * hop_length
    with pytest.raises(RecipeError, match=f"values, more than {MOST_VALUES}; raise hop_length"):
        made(hop_length // 2)


@pytest.mark.parametrize("value", [1e-31, 5e-324])
def test_what_single_precision_takes_for_zero_is_refused(value):
    table = {"kind": "pcen", "gain": value}
    with pytest.raises(RecipeError, match="is too small; it must be 0, or at least 1e-30"):
        Recipe.from_dict({"representation": table})
