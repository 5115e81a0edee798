import numpy as np
import pytest

from tests.pipeline.recipes.kinds.test_registry import kind_of


@pytest.mark.parametrize("floor", [1e-30, 1.0, 1e8, 1e9])
def test_any_floor_leaves_a_grid_to_count_in(floor):
    for kind in ("decibel", "log_magnitude", "log_mel"):
        assert np.all(np.diff(kind_of(kind, floor=floor).grid.edges()) > 0)


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
