import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from basilar.dsp.histogram import Grid, histogram, quantile
from tests.dsp.test_moments import matrices


@given(x=matrices, grid=st.sampled_from([Grid("linear", -512.0, 512.0), Grid("octave")]))
def test_histogram_counts_every_value_once_where_the_edges_say(x, grid):
    # Multiples of 1/64 are exact in every step, so that a value on an edge has one right cell.
    x = np.abs(x) if grid.kind == "octave" else np.round(x * 64) / 64
    counts = histogram(x, grid=grid)
    assert counts.shape == (x.shape[1], 256)
    edges = grid.edges()
    for column, row in zip(x.T.astype(np.float64), counts, strict=True):
        inside = np.clip(column, edges[0], np.nextafter(edges[-1], 0))
        np.testing.assert_array_equal(row, np.histogram(inside, edges)[0])


def test_octave_edges_double_every_four_cells():
    edges = Grid("octave").edges()
    np.testing.assert_array_equal(edges[4:], 2 * edges[:-4])
    assert edges[0] == 2.0**-40
    assert edges[-1] == 2.0**24


def test_quantiles_are_right_to_a_cell():
    x = np.random.default_rng(0).standard_normal((20_000, 2)).astype(np.float32)
    grid = Grid("linear", -5.0, 5.0)
    counts = histogram(x, grid=grid)
    for q in (0.0, 0.25, 0.5, 0.75, 1.0):
        ours = quantile(counts, q, grid=grid)
        np.testing.assert_allclose(ours, np.quantile(x, q, axis=0), atol=10 / 256)
