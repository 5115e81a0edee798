import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from basilar.pipeline.errors import RecipeError
from basilar.pipeline.recipes.kinds.registry import KINDS
from basilar.pipeline.recipes.recipe import Recipe

SMALL = {"n_fft": 64, "hop_length": 24}
FILTERS = {"mel", "log_mel", "mfcc", "pcen"}
CONSTANT_Q = {"cqt", "cqt_magnitude", "log_cqt", "chroma_cqt"}


def kind_of(kind, **values):
    if kind in FILTERS:
        values = {"n_mels": 20, **values}
    if kind in CONSTANT_Q:
        values = {"hop_length": 100, "fmin": 220.0, "n_bins": 36, **values}
    elif kind != "waveform":
        values = {**SMALL, **values}
    table = {"resample": {"sample_rate": 8000}, "representation": {"kind": kind, **values}}
    return Recipe.from_dict(table).representation


@pytest.mark.parametrize("kind", KINDS)
@given(n_samples=st.integers(0, 700), center=st.booleans(), n_deltas=st.integers(0, 2))
def test_what_is_announced_is_what_is_computed(kind, n_samples, center, n_deltas):
    values = {} if kind in {"waveform", *CONSTANT_Q} else {"center": center}
    if kind == "mfcc":
        values["n_deltas"] = n_deltas
    representation = kind_of(kind, **values)
    frames = representation.n_frames(n_samples)
    if not frames:
        return
    y = np.random.default_rng(0).standard_normal(n_samples).astype(np.float32)
    (x,) = representation.compute([y], sample_rate=8000)
    assert x.shape == (frames, representation.columns())
    assert x.dtype == representation.stored_dtype()
    assert np.isfinite(x).all()


@pytest.mark.parametrize("kind", sorted(KINDS.keys() - {"mfcc"}))
def test_silence_is_the_pivot(kind):
    representation = kind_of(kind)
    (x,) = representation.compute([np.zeros(500, np.float32)], sample_rate=8000)
    assert (x == np.float32(representation.pivot)).all()


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


@pytest.mark.parametrize("floor", [1e-30, 1.0, 1e8, 1e9])
def test_any_floor_leaves_a_grid_to_count_in(floor):
    for kind in ("decibel", "log_magnitude", "log_mel"):
        assert np.all(np.diff(kind_of(kind, floor=floor).grid.edges()) > 0)


def test_a_copy_with_other_values_computes_with_them():
    kind = kind_of("log_mel")
    assert (kind.framing.hop_length, kind.bank.n_mels, kind.logarithm.top_db) == (24, 20, None)
    copy = kind.model_copy(update={"hop_length": 16, "n_mels": 10, "top_db": 60.0})
    assert (copy.framing.hop_length, copy.bank.n_mels, copy.logarithm.top_db) == (16, 10, 60.0)


def test_sizes_without_a_promise_of_bits_say_so():
    for n_fft, portable in ((2048, True), (2046, False)):
        assert kind_of("mel", n_fft=n_fft).has_portable_bits is portable


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


def test_bins_above_half_the_sample_rate_are_refused():
    with pytest.raises(RecipeError, match=r"the highest band ends at .* above 4000\.0 Hz"):
        kind_of("cqt", n_bins=60)


def test_conditioning_changes_what_it_says(noise):
    y = noise(2000) + np.float32(0.3)
    plain = kind_of("magnitude", center=False)

    def values(**conventions):
        kind = plain.model_copy(update=conventions)
        return kind.compute([y], sample_rate=8000)[0]

    assert values(remove_dc=True, window="rectangular")[:, 0].max() < 1e-4
    assert values(window="rectangular")[:, 0].min() > 10
    np.testing.assert_allclose(values(scale=2.0), 2 * values(), rtol=1e-6)
    assert len(values(drop_last=True)) == len(values()) - 1
    # A difference of neighbours leaves little of low frequencies and doubles the highest.
    assert values(preemphasis=0.97)[:, 1].mean() < 0.2 * values()[:, 1].mean()
    assert values(align="left", win_length=32).shape == (83, 33)
