import numpy as np
import pytest

from basilar.dsp.chroma import stft_to_chroma
from basilar.pipeline.report.plots import banks, drawing
from basilar.pipeline.report.plots.axes import columns
from tests.pipeline.report.plots.test_axes import recipe_of, shipped


@pytest.fixture(autouse=True)
def _style():
    with drawing.style():
        yield


@pytest.fixture
def ax():
    return drawing.figure().add_subplot()


@pytest.mark.parametrize(
    ("name", "limit", "words"), [("log_mel", 1000, "linear"), ("kaldi_fbank", 700, "nearly linear")]
)
def test_the_mel_scale_has_a_linear_and_a_logarithmic_part(ax, name, limit, words):
    recipe = shipped(name)
    banks.mel_scale(ax, recipe)
    low, high = ax.lines[0], ax.lines[1]
    assert low.get_ydata().max() <= limit < high.get_ydata().min()
    assert low.get_label() == f"{words} up to {limit} Hz"
    drawn = np.concatenate([low.get_ydata(), high.get_ydata()])
    np.testing.assert_array_equal(drawn, columns(recipe).centres)
    number = np.concatenate([low.get_xdata(), high.get_xdata()])
    np.testing.assert_array_equal(number, np.arange(1, drawn.size + 1))
    if name == "log_mel":
        np.testing.assert_allclose(np.diff(low.get_ydata()), np.diff(low.get_ydata())[0])
        ratios = high.get_ydata()[1:] / high.get_ydata()[:-1]
        np.testing.assert_allclose(ratios, ratios[0])


@pytest.mark.parametrize("name", ["log_mel", "kaldi_fbank", "log_mel_speech", "vggish"])
def test_every_mel_filter_is_drawn_around_its_band(ax, name):
    recipe = shipped(name)
    banks.filters(ax, recipe)
    kind, sample_rate = recipe.representation, recipe.resample.sample_rate
    bank = kind.bank.filters(sample_rate=sample_rate, n_fft=kind.n_fft).toarray()
    assert len(ax.lines) == np.count_nonzero(bank.any(axis=1))
    edges = columns(recipe).edges
    bin_hz = sample_rate / kind.n_fft
    for line, low, high in zip(ax.lines, edges[:-1], edges[1:], strict=True):
        hz, weights = line.get_data()
        assert low - bin_hz <= hz[weights.argmax()] <= high + bin_hz
        assert (weights[1:-1] > 0).all()
    total = sum(line.get_ydata().sum() for line in ax.lines)
    assert total == pytest.approx(bank.sum())


@pytest.mark.parametrize("name", ["log_cqt", "log_vqt", "chroma_cqt"])
def test_every_filter_of_a_cqt_peaks_at_its_bin_and_ends_with_its_main_lobe(ax, name):
    recipe = shipped(name)
    banks.filters(ax, recipe)
    parameters = recipe.representation.parameters
    lengths = parameters.lengths(sample_rate=recipe.resample.sample_rate)
    for line, hz, length in zip(ax.lines, parameters.frequencies(), lengths, strict=True):
        x, gain = line.get_data()
        assert x[gain.argmax()] == pytest.approx(hz)
        assert gain.max() == pytest.approx(1)
        width = 4 * recipe.resample.sample_rate / length
        assert x[-1] - x[0] == pytest.approx(width)
        # A Hann window's own response, summed sample by sample.
        n = np.arange(int(length)) - int(length) / 2
        window = 0.5 + 0.5 * np.cos(2 * np.pi * n / length)
        half = x[48]
        response = np.exp(2j * np.pi * (half - hz) / recipe.resample.sample_rate * n) @ window
        assert gain[48] == pytest.approx(abs(response) / window.sum(), abs=0.05)


def test_the_filters_of_chroma_are_drawn_over_hz(ax):
    recipe = shipped("chroma")
    banks.filters(ax, recipe)
    (mesh,) = ax.collections
    kind, names = recipe.representation, ("n_chroma", "tuning", "ctroct", "octwidth", "base_c")
    weights = stft_to_chroma(
        sample_rate=22050, n_fft=kind.n_fft, **{name: getattr(kind, name) for name in names}
    ).toarray()
    np.testing.assert_array_equal(mesh.get_array(), weights)
    hz = mesh.get_coordinates()[0, :, 0]
    assert hz[-1] == 22050 / 2
    column = np.searchsorted(hz, 440.0) - 1
    label = ax.get_yticklabels()[int(np.asarray(mesh.get_array())[:, column].argmax())]
    assert label.get_text() == "A"


def test_a_spectrum_has_no_filters(ax):
    with pytest.raises(ValueError, match="decibel has no filters"):
        banks.filters(ax, recipe_of("decibel"))
