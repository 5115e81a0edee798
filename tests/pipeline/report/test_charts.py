import xml.etree.ElementTree as ET

import numpy as np
import pytest

from basilar.pipeline.report import charts
from basilar.pipeline.report.describe import PERCENTILES, Profile


def profile(n_bins=40, *, logarithmic=False, seed=0):
    """The statistics of normal values, a little more with each bin."""
    rng = np.random.default_rng(seed)
    x = rng.normal(np.arange(n_bins), 2.0, (500, n_bins))
    x = np.exp(x / 10) if logarithmic else x
    edges = np.geomspace(1e-3, 1e3, 257) if logarithmic else np.linspace(-20, n_bins + 20, 257)
    counts = np.stack([np.histogram(column, edges)[0] for column in x.T])
    percentiles = np.percentile(x, PERCENTILES, axis=0)
    described = (x.mean(axis=0), x.std(axis=0), x.min(axis=0), x.max(axis=0))
    return Profile(*described, percentiles, counts, edges, logarithmic, "dB")


def drawn(svg):
    """The texts of a chart, which must be XML."""
    root = ET.fromstring(svg)
    return [text.text for text in root.iter() if text.tag.endswith("text")]


@pytest.mark.parametrize("n_bins", [1, 4, 40])
@pytest.mark.parametrize("logarithmic", [False, True])
def test_charts_are_drawn_in_the_colours_and_fonts_of_the_page(n_bins, logarithmic):
    shape = profile(n_bins, logarithmic=logarithmic)
    edges, share = charts.spread(shape)
    with charts.style():
        found = {
            "mean ± std": charts.means([("", shape)]),
            "median": charts.percentiles(shape),
            "% of values": charts.bars([("", edges, share)], "dB", "% of values"),
            "dB": charts.heat(shape),
        }
    for text, svg in found.items():
        assert text in drawn(svg)
        assert "var(--ink)" in svg
        assert not {"#000001", "#000002", "#000003", "#000004", "font-family", ' id="fig'} & {
            word for word in ("#000001", "#000003", "font-family", ' id="fig') if word in svg
        }


def test_two_sets_in_one_chart_are_told_apart():
    with charts.style():
        svg = charts.means([("first", profile()), ("second", profile(seed=1))], ranges=False)
    assert {"first", "second"} <= set(drawn(svg))
    assert {"var(--a)", "var(--b)"} <= {name for name in ("var(--a)", "var(--b)") if name in svg}


def test_equal_data_are_equal_bytes():
    with charts.style():
        assert charts.heat(profile()) == charts.heat(profile())


def test_a_spread_is_the_histogram_of_all_values():
    shape = profile()
    edges, share = charts.spread(shape, n_cells=30)
    assert share.sum() == pytest.approx(100)
    assert (edges[0], edges[-1]) == (shape.min.min(), shape.max.max())
    centres = (edges[1:] + edges[:-1]) / 2
    assert (share * centres).sum() / 100 == pytest.approx(shape.mean.mean(), abs=0.2)


def test_bins_with_cells_of_their_own_are_spread_alike():
    """Normalized by one centre and scale, the histogram has the same shape."""
    shape = profile()
    moved = Profile(
        *(shape.mean / 2, shape.std / 2, shape.min / 2, shape.max / 2, shape.percentiles / 2),
        *(shape.counts, np.tile(shape.edges / 2, (40, 1)), False, ""),
    )
    assert charts.spread(moved)[1] == pytest.approx(charts.spread(shape)[1])


def test_a_picture_has_time_to_the_right_and_bins_upwards():
    from io import BytesIO

    from PIL import Image

    x = np.zeros((1000, 20))
    x[-1, 0] = 1.0  # the end, the lowest bin
    with Image.open(BytesIO(charts.picture(x, 0.0, 1.0))) as image:
        assert image.size == (334, 20)
        brightest = np.asarray(image).argmax()
    assert divmod(int(brightest), 334) == (19, 333)
