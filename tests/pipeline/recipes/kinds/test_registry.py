import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

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
