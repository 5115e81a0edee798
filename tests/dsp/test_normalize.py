import numpy as np
import pytest

from basilar.dsp.histogram import Grid, histogram
from basilar.dsp.moments import Summary
from basilar.dsp.normalize import centre_and_scale


def summary_of(x):
    return Summary(len(x), x.mean(axis=0), x.std(axis=0), x.min(axis=0), x.max(axis=0))


@pytest.mark.parametrize("per", ["bin", "global"])
def test_centre_and_scale(per):
    x = np.random.default_rng(0).uniform(-50, 50, (5000, 3)) * [1.0, 0.5, 0.1] + [0.0, 10.0, 0.0]
    grid = Grid("linear", -100.0, 100.0)
    counts = histogram(x, grid=grid)
    view = x if per == "bin" else x.reshape(-1, 1)
    quartiles = np.quantile(view, [0.25, 0.5, 0.75], axis=0)
    expected = {
        "none": (0.0, 1.0),
        "standard": (view.mean(axis=0), view.std(axis=0)),
        "min_max": (view.min(axis=0), np.ptp(view, axis=0)),
        "robust": (quartiles[1], quartiles[2] - quartiles[0]),
    }
    for kind, (centre, scale) in expected.items():
        ours = centre_and_scale(summary_of(x), counts, kind=kind, per=per, grid=grid)
        # Quantiles are exact to a cell (0.8); the rest is rounded to float32.
        tolerance = 1.6 if kind == "robust" else 1e-5
        np.testing.assert_allclose(ours[0], np.broadcast_to(centre, 3), atol=tolerance)
        np.testing.assert_allclose(ours[1], np.broadcast_to(scale, 3), atol=tolerance)
        assert ours[0].dtype == ours[1].dtype == np.float32


def test_a_bin_that_never_changes_is_not_divided_by_zero():
    x = np.full((10, 1), 3.0)
    grid = Grid("linear", 0.0, 10.0)
    for kind in ("standard", "min_max"):
        centre, scale = centre_and_scale(
            summary_of(x), histogram(x, grid=grid), kind=kind, per="bin", grid=grid
        )
        assert (centre.item(), scale.item()) == (3, 1)
