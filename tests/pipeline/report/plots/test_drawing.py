import subprocess
import sys
from io import BytesIO

import matplotlib
import numpy as np
import pytest
from matplotlib.collections import PolyCollection
from PIL import Image

from basilar.dsp.mel import hz_to_mel
from basilar.pipeline.compute.transform import Transform
from basilar.pipeline.recipes.kinds.framed import Logarithmic
from basilar.pipeline.report.plots import drawing
from basilar.pipeline.report.plots.axes import note_name
from tests.pipeline.report.plots.test_axes import RECIPES, recipe_of, shipped

HZ, SECONDS, SAMPLE_RATE = 880.0, 0.7, 44100  # of a tone, an A5, and when it is loudest
# A recipe of every kind that is drawn as an image, and some with other people's conventions.
FIRST = {shipped(name).representation.kind: name for name in reversed(RECIPES)}
OTHERS = {"kaldi_fbank", "kaldi_mfcc", "vggish", "whisper_80"}
IMAGES = sorted({*FIRST.values(), *OTHERS} - {"waveform", "spectral"})
CEPSTRA = [n for n in IMAGES if shipped(n).representation.kind == "mfcc"]


@pytest.fixture(autouse=True)
def _style():
    with drawing.style():
        yield


@pytest.fixture(scope="module")
def tone():
    """A short tone that swells and fades, in silence."""
    t = np.arange(int(1.5 * SAMPLE_RATE)) / SAMPLE_RATE - SECONDS
    swell = np.where(np.abs(t) < 0.15, np.exp(-0.5 * (t / 0.03) ** 2), 0)
    return (swell * np.sin(2 * np.pi * HZ * t)).astype(np.float32)


def image(x, recipe, **how):
    """The image's axes, values (bins, frames), and the edges of its rows and columns."""
    ax = drawing.figure().add_subplot()
    mesh = drawing.spectrogram(ax, x, recipe, **how)
    corners = mesh.get_coordinates()
    return ax, np.asarray(mesh.get_array()), corners[0, :, 0], corners[:, 0, 1]


def near(edges, cell, value):
    """Whether a value lies in a cell, or in one beside it."""
    return edges[max(cell - 1, 0)] <= value <= edges[min(cell + 2, len(edges) - 1)]


@pytest.mark.parametrize("name", sorted(set(IMAGES) - {*CEPSTRA, "chroma", "chroma_cqt"}))
def test_a_tone_is_drawn_at_its_second_and_its_frequency(name, tone):
    recipe = shipped(name)
    x = Transform(recipe).apply(tone, sample_rate=SAMPLE_RATE)
    _, values, times, edges = image(x, recipe)
    row, frame = np.unravel_index(values.argmax(), values.shape)
    assert near(edges, row, HZ)
    if recipe.representation.kind != "pcen":  # whose gain falls as the tone swells
        assert near(times, frame, SECONDS)


@pytest.mark.parametrize("name", ["chroma", "chroma_cqt"])
def test_pitch_classes_are_drawn_by_their_names_and_change_at_their_second(name):
    recipe, t = shipped(name), np.arange(2 * SAMPLE_RATE) / SAMPLE_RATE - SECONDS
    y = np.sin(2 * np.pi * np.where(t < 0, HZ, 523.25) * t).astype(np.float32)
    ax, values, times, edges = image(Transform(recipe).apply(y, sample_rate=SAMPLE_RATE), recipe)
    rows = {label.get_text(): row for row, label in enumerate(ax.get_yticklabels())}
    assert (edges[:-1] < ax.get_yticks()).all()
    assert (ax.get_yticks() < edges[1:]).all()
    of_a, of_c = values[rows["A"]], values[rows["C"]]
    change = int((of_c > of_a).argmax())
    assert (of_a[:change] == 1).all()
    assert (of_c[change:] == 1).all()
    assert near(times, change, SECONDS)


@pytest.mark.parametrize("name", CEPSTRA)
def test_the_level_of_a_click_is_drawn_at_its_second(name):
    recipe, click = shipped(name), np.zeros(2 * SAMPLE_RATE, np.float32)
    click[round(SECONDS * SAMPLE_RATE)] = 1
    ax, values, times, _ = image(Transform(recipe).apply(click, sample_rate=SAMPLE_RATE), recipe)
    assert near(times, values[0].argmax(), SECONDS)
    assert ax.get_yticklabels()[0].get_text() == "c0"


@pytest.mark.parametrize("name", ["decibel", "log_mel", "log_cqt", "kaldi_fbank"])
def test_the_tone_is_where_the_axis_says_on_every_scale(name, tone):
    recipe = shipped(name)
    x = Transform(recipe).apply(tone, sample_rate=SAMPLE_RATE)
    mel_scale = getattr(recipe.representation, "mel_scale", "slaney")
    places = {
        "linear": lambda hz: hz,
        "log": np.log,
        "note": np.log,
        "mel": lambda hz: hz_to_mel(hz, mel_scale=mel_scale),
    }
    for scale, place in places.items():
        ax, *_ = image(x, recipe, scale=scale)
        low, high = (place(hz) for hz in ax.get_ylim())
        (_, drawn) = ax.transAxes.inverted().transform(ax.transData.transform((SECONDS, HZ)))
        assert drawn == pytest.approx((place(HZ) - low) / (high - low))
        labels = [label.get_text() for label in ax.get_yticklabels()]
        if scale == "note":
            assert labels == [note_name(hz) for hz in ax.get_yticks()]
        elif scale != "linear":
            assert [float(label) for label in labels] == list(ax.get_yticks())


def test_the_default_axis_suits_the_recipe(tone):
    scales = {}
    for name in ("decibel", "log_mel", "log_cqt"):
        recipe = shipped(name)
        ax, *_ = image(Transform(recipe).apply(tone, sample_rate=SAMPLE_RATE), recipe)
        scales[name] = (ax.get_yscale(), ax.get_ylabel())
    assert scales == {
        "decibel": ("linear", "frequency (Hz)"),
        "log_mel": ("function", "frequency (Hz)"),
        "log_cqt": ("log", "note"),
    }


def test_a_scale_of_what_is_no_frequency_is_refused():
    with pytest.raises(ValueError, match="--scale log: a pitch class is not a frequency"):
        image(np.zeros((3, 12), np.float32), recipe_of("chroma"), scale="log")


@pytest.mark.parametrize("kind", ["stft", "magnitude", "power", "mel", "cqt", "cqt_magnitude"])
def test_linear_values_are_drawn_in_decibels_or_as_they_are(kind, noise):
    recipe = recipe_of(kind)
    x = Transform(recipe).represent([noise(22050)])[0]
    ax, values, *_ = image(x, recipe)
    squared = np.abs(x) ** 2 if kind not in ("power", "mel") else x
    np.testing.assert_allclose(values.T, 10 * np.log10(np.maximum(squared, 1e-10)), atol=1e-3)
    assert ax.figure.axes[-1].get_ylabel() == "dB"
    ax, values, *_ = image(x, recipe, decibels=False)
    np.testing.assert_array_equal(values.T, np.abs(x))
    assert ax.figure.axes[-1].get_ylabel() in ("magnitude", "power")


@pytest.mark.parametrize(
    "name", [n for n in IMAGES if isinstance(shipped(n).representation, Logarithmic)]
)
def test_logarithms_are_drawn_as_stored_and_name_their_unit(name, noise):
    recipe = shipped(name)
    x = Transform(recipe).represent([noise(44100)])[0]
    ax, values, *_ = image(x, recipe)
    np.testing.assert_array_equal(values.T, x)
    words = {"db": "dB", "ln": "natural logarithm", "log10": "decimal logarithm"}
    kind = recipe.representation
    unit = "coefficient" if kind.kind == "mfcc" else words[kind.log]
    assert unit in ax.figure.axes[-1].get_ylabel()
    if name == "whisper_80":
        assert ax.figure.axes[-1].get_ylabel() == "(decimal logarithm +4) × 0.25"


def test_colours_reach_80_db_down_and_the_bar_says_that_there_is_more():
    x = np.full((3, 9), -20, np.float32)
    x[0, 0], x[1, 1] = -300, 5
    for recipe, limits, extend in (
        (recipe_of("decibel", n_fft=16), (-75, 5), "min"),
        (recipe_of("log_magnitude", n_fft=16), (-300, 5), "neither"),
        (recipe_of("mfcc", n_fft=16, n_mels=9, n_mfcc=9), (-20, 5), "both"),
    ):
        mesh = drawing.spectrogram(drawing.figure().add_subplot(), x, recipe)
        assert mesh.get_clim() == limits
        assert mesh.colorbar.extend == extend


@pytest.mark.parametrize("value", [-20, np.inf, np.nan])
def test_silence_and_what_is_not_finite_can_be_drawn(value):
    x = np.full((4, 129), value, np.float32)
    ax, *_ = image(x, recipe_of("decibel", n_fft=256))
    assert len(drawing.render(ax.figure, "png")) > 1000
    x[1:3, 5] = -20, 7
    ax, *_ = image(x, recipe_of("decibel", n_fft=256))
    assert ax.collections[0].get_clim() == (-20, 7)


def test_of_more_frames_than_pixels_the_loudest_is_seen():
    x = np.full((100_000, 129), -60, np.float32)
    x[77_777, 50] = 0
    recipe = recipe_of("decibel", n_fft=256, hop_length=128)
    _, values, times, _ = image(x, recipe, start=1.0)
    assert values.shape[1] <= drawing.MOST_COLUMNS
    row, column = np.unravel_index(values.argmax(), values.shape)
    assert row == 50
    assert times[column] <= 1 + 77_777 * 128 / 22050 <= times[column + 1]
    assert times[-1] == pytest.approx(1 + (100_000 - 0.5) * 128 / 22050)


def test_a_click_is_drawn_at_its_second():
    y = np.zeros(300_000, np.float32)
    y[123_456] = -0.5
    ax = drawing.figure().add_subplot()
    drawing.waveform(ax, y, 8000, start=2.0)
    (drawn,) = ax.findobj(PolyCollection)
    corners = drawn.get_paths()[0].vertices
    when = corners[corners[:, 1] == -0.5, 0]
    assert when.min() <= 2 + 123_456 / 8000 <= when.max()
    assert np.ptp(when) < 0.05
    assert ax.get_xlim() == (2.0, 2 + 300_000 / 8000)
    low, high = ax.get_ylim()
    assert low < -0.5 < 0.5 < high


def test_few_samples_are_drawn_one_by_one(noise):
    y = noise(1000)
    ax = drawing.figure().add_subplot()
    drawing.waveform(ax, y, 8000)
    (line,) = ax.lines
    np.testing.assert_array_equal(line.get_ydata(), y)
    np.testing.assert_allclose(line.get_xdata(), np.arange(1000) / 8000)


def test_zooms_are_of_the_loudest_place(noise):
    y = noise(5000) * 0.1
    y[3000] = 1
    figure = drawing.figure()
    drawing.zoom(figure, y, 8000, start=0.0)
    assert [ax.get_title(loc="left") for ax in figure.axes] == [
        "800 samples, 100.00 ms",
        "400 samples, 50.00 ms",
        "200 samples, 25.00 ms",
        "100 samples, 12.50 ms",
    ]
    assert [ax.get_xlim() for ax in figure.axes] == [(0, ms) for ms in (100, 50, 25, 12.5)]
    assert figure.axes[-1].get_xlabel() == f"time after {2950 / 8000:.4f} s (ms)"
    for ax in figure.axes:
        marked = ax.lines[-1]
        np.testing.assert_array_equal(marked.get_ydata(), y[2950:3050])
        assert marked.get_xdata()[50] == pytest.approx(50 / 8000 * 1000)
    drawing.zoom(drawing.figure(), y[:300], 8000, start=0.0)


def test_curves_have_an_axis_each(tone):
    recipe = shipped("spectral")
    x = Transform(recipe).apply(tone, sample_rate=SAMPLE_RATE)
    figure = drawing.figure()
    drawing.curves(figure, x, recipe, start=0.0)
    titles = [ax.get_title(loc="left") for ax in figure.axes]
    assert titles == ["RMS", "zero crossings", "centroid (Hz)", "roll-off (Hz)"]
    level = figure.axes[0].lines[0]
    assert level.get_xdata()[level.get_ydata().argmax()] == pytest.approx(SECONDS, abs=0.03)
    np.testing.assert_array_equal(figure.axes[2].lines[0].get_ydata(), x[:, 2])
    figure = drawing.figure()
    drawing.curves(figure, np.tile(x, (50, 1)), recipe, start=0.0)
    level = figure.axes[0].lines[0].get_ydata()
    assert level.size <= drawing.MOST_COLUMNS
    assert level.max() == x[:, 0].max()


@pytest.mark.parametrize(
    ("kind", "scale"), [("magnitude", None), ("magnitude", "mel"), ("cqt_magnitude", None)]
)
def test_the_mean_spectrum_peaks_at_the_tone(kind, scale, tone):
    recipe = recipe_of(kind)
    x = Transform(recipe).apply(tone, sample_rate=SAMPLE_RATE)
    figure = drawing.figure()
    drawing.mean_spectrum(figure, x, recipe, scale=scale)
    linear, decibels = (ax.lines[0] for ax in figure.axes)
    assert linear.get_xdata()[linear.get_ydata().argmax()] == pytest.approx(HZ, rel=0.01)
    np.testing.assert_allclose(linear.get_ydata(), x.mean(axis=0, dtype=np.float64))
    loud = linear.get_ydata() > 1e-4
    np.testing.assert_allclose(decibels.get_ydata()[loud], 20 * np.log10(linear.get_ydata()[loud]))
    assert figure.axes[1].get_xlabel() == ("note" if kind == "cqt_magnitude" else "frequency (Hz)")


def drawn_once():
    ax = drawing.figure().add_subplot()
    rng = np.random.default_rng(0)
    drawing.spectrogram(ax, rng.standard_normal((50, 84)).astype(np.float32), recipe_of("log_cqt"))
    return ax.figure


@pytest.mark.parametrize("file_format", ["png", "svg"])
def test_a_picture_is_the_same_bytes_whatever_the_users_settings(file_format):
    first = drawing.render(drawn_once(), file_format)
    with (
        matplotlib.rc_context({"font.size": 30, "axes.labelsize": 20, "svg.hashsalt": None}),
        drawing.style(),
    ):
        second = drawing.render(drawn_once(), file_format)
    assert first == second
    assert matplotlib.rcParams["svg.hashsalt"] == "basilar"


def test_a_palette_changes_no_colour_by_much():
    figure = drawn_once()
    png = Image.open(BytesIO(drawing.render(figure, "png")))
    assert png.mode == "P"
    figure.savefig(full := BytesIO(), format="png")
    exact = np.asarray(Image.open(full).convert("RGB")).astype(int)
    moved = np.abs(np.asarray(png.convert("RGB")) - exact).max(axis=2)
    coloured = np.ptp(exact, axis=2) > 20
    assert np.count_nonzero(coloured) > 50_000
    assert moved[coloured].max() <= 4
    assert moved.max() <= 20  # greys at the edges of letters


def test_an_svg_keeps_its_text_and_no_date():
    svg = drawing.render(drawn_once(), "svg").decode()
    assert ">time (s)</text>" in svg
    assert ">C4</text>" in svg
    assert "dc:date" not in svg
    assert "matplotlib.org" not in svg.split("<metadata>")[-1].split("</metadata>")[0]


def test_nothing_needs_a_display_or_pyplot():
    code = (
        "import sys, numpy as np\n"
        "from basilar.pipeline.report.plots import drawing, gallery\n"
        "from basilar.pipeline.recipes.recipe import Recipe\n"
        "recipe = Recipe.from_dict({'representation': {'kind': 'log_mel'}})\n"
        "with drawing.style():\n"
        "    figure = gallery.draw('filters', gallery.Subject(recipe))\n"
        "    assert drawing.render(figure, 'png') and drawing.render(figure, 'svg')\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run(
        [sys.executable, "-c", code], check=True, env={"PATH": "", "MPLBACKEND": "tkagg"}
    )
