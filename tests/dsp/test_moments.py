import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from basilar.dsp.moments import merge, moments, ordered_sum

matrices = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 50), st.integers(1, 5)),
    elements=st.floats(-1e3, 1e3, width=32),
)


@pytest.mark.parametrize("shape", [(1, 1), (7, 3), (1024, 2), (1025, 1), (5000, 4)])
def test_ordered_sum_is_a_sum(shape):
    x = np.random.default_rng(0).standard_normal(shape)
    np.testing.assert_allclose(ordered_sum(x), x.sum(axis=0), rtol=1e-12, atol=1e-12)


def test_ordered_sum_has_the_order_that_is_promised():
    x = np.random.default_rng(0).standard_normal(1027)
    tree = list(x[:1024])
    while len(tree) > 1:
        tree = [a + b for a, b in zip(tree[: len(tree) // 2], tree[len(tree) // 2 :], strict=True)]
    by_hand = 0.0 + tree[0] + ((x[1024] + x[1026]) + x[1025])
    assert ordered_sum(x[:, None])[0] == by_hand


def test_ordered_sum_does_not_depend_on_the_columns_beside_it():
    x = np.random.default_rng(0).standard_normal((3000, 9))
    alone = np.concatenate([ordered_sum(x[:, [i]]) for i in range(9)])
    assert ordered_sum(x).tobytes() == alone.tobytes()


@given(clips=st.lists(matrices, min_size=1, max_size=4), pivot=st.floats(-100, 100))
def test_merged_moments_are_those_of_all_frames(clips, pivot):
    clips = [clip[:, :1] for clip in clips]
    described = np.stack([moments(clip, pivot=pivot) for clip in clips])
    summary = merge([(described, np.array([len(clip) for clip in clips]))], pivot=pivot)
    frames = np.concatenate(clips).astype(np.float64)
    assert summary.count == len(frames)
    np.testing.assert_allclose(summary.mean, frames.mean(axis=0), atol=1e-9)
    # The difference of squares of values up to 1e3 loses up to 1e6 ulp of 1: 1e-10, then a root.
    np.testing.assert_allclose(summary.std, frames.std(axis=0), atol=2e-5)
    assert (summary.min == frames.min(axis=0)).all()
    assert (summary.max == frames.max(axis=0)).all()


@given(st.lists(st.integers(0, 4000), max_size=6))
@settings(max_examples=20)
def test_merged_moments_do_not_depend_on_how_clips_are_divided(borders):
    rng = np.random.default_rng(0)
    described = np.sort(rng.standard_normal((4000, 4, 2)), axis=1)
    n_frames = rng.integers(1, 100, 4000)
    borders = [0, *sorted(borders), 4000]
    parts = [(described[a:b], n_frames[a:b]) for a, b in itertools.pairwise(borders)]
    whole = merge([(described, n_frames)], pivot=0.5)
    divided = merge(parts, pivot=0.5)
    assert [np.asarray(x).tobytes() for x in vars(whole).values()] == [
        np.asarray(x).tobytes() for x in vars(divided).values()
    ]
    # And the order is that of `ordered_sum`.
    mean = 0.5 + ordered_sum(described[:, 0]) / n_frames.sum()
    assert whole.mean.tobytes() == mean.tobytes()


def test_silence_has_no_deviation_at_all():
    silence = np.full((1000, 3), -100, np.float32)
    summary = merge([(moments(silence, pivot=-100.0)[None], np.array([1000]))], pivot=-100.0)
    assert summary.mean.tolist() == [-100] * 3
    assert summary.std.tolist() == [0] * 3


@given(st.floats(-1e3, 1e3), st.integers(1, 3000))
def test_a_constant_has_no_deviation_whatever_rounding_leaves(value, n_frames):
    x = np.full((n_frames, 1), value, np.float32)
    clip = moments(x, pivot=-100.0)[None], np.array([n_frames])
    assert merge([clip], pivot=-100.0).std[0] == 0


def test_moments_of_complex_values_are_those_of_magnitudes():
    described = moments(np.array([[3 + 4j], [-5j]], np.complex64), pivot=0.0)
    assert described[:, 0].tolist() == [10, 50, 5, 5]


def test_merging_nothing_is_refused():
    with pytest.raises(ValueError, match="no clip to compute statistics of"):
        merge([(np.empty((0, 4, 3)), np.empty(0, np.int64))], pivot=0.0)
