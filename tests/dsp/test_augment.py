import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from basilar.dsp.augment import spec_augment


@given(
    frames=st.integers(1, 60),
    bins=st.integers(1, 40),
    widths=st.tuples(st.integers(0, 50), st.integers(0, 80)),
    seed=st.integers(0, 1000),
)
def test_masks_are_whole_bins_and_whole_frames_no_wider_than_said(frames, bins, widths, seed):
    bin_width, frame_width = widths
    x = np.ones((frames, bins), np.float32)
    masked = spec_augment(
        x,
        np.random.default_rng(seed),
        bin_masks=1,
        bin_width=bin_width,
        frame_masks=1,
        frame_width=frame_width,
        frame_share=0.5,
        fill=-3.0,
    )
    assert (x == 1).all()
    hidden = masked == -3
    assert (hidden | (masked == 1)).all()
    whole_bins, whole_frames = hidden.all(axis=0), hidden.all(axis=1)
    np.testing.assert_array_equal(hidden, whole_bins[None] | whole_frames[:, None])
    if not whole_bins.all():
        assert whole_frames.sum() <= min(frame_width, frames // 2)
    if not whole_frames.all():
        assert whole_bins.sum() <= bin_width


def test_the_same_generator_gives_the_same_masks_and_every_place_is_reached():
    x = np.ones((50, 30), np.float32)
    first, again = (spec_augment(x, np.random.default_rng(1)) for _ in range(2))
    assert first.tobytes() == again.tobytes()
    rng = np.random.default_rng(0)
    hidden = sum(spec_augment(x, rng, bin_width=8, frame_width=10) == 0 for _ in range(500))
    assert hidden.min() > 0


@pytest.mark.parametrize("wrong", [{"bin_width": -1}, {"frame_masks": -1}, {"frame_share": 1.5}])
def test_numbers_below_zero_are_refused(wrong):
    with pytest.raises(ValueError, match="must be 0 or more"):
        spec_augment(np.ones((4, 4), np.float32), np.random.default_rng(0), **wrong)
