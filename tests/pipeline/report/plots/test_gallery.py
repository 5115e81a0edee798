from typing import get_args

import numpy as np
import pytest
import soundfile as sf

from basilar import FeatureSet
from basilar.pipeline.cli.show import Picture
from basilar.pipeline.compute.transform import Transform
from basilar.pipeline.recipes.kinds.registry import KINDS
from basilar.pipeline.recipes.recipe import Recipe
from basilar.pipeline.report.plots import drawing, gallery
from basilar.pipeline.report.plots.axes import columns
from tests.pipeline.report.plots.test_axes import recipe_of


@pytest.fixture(autouse=True)
def _style():
    with drawing.style():
        yield


@pytest.fixture
def file(tmp_path, noise):
    sf.write(tmp_path / "noise.wav", noise(22050), 22050, subtype="PCM_16")
    return tmp_path / "noise.wav"


def of_built(built, clip, offset=0.0, duration=None):
    fs = FeatureSet.open(built.store)
    how = {"root": built.root, "audio_root": None, "offset": offset, "duration": duration}
    return fs, gallery.of_clip(fs, clip, **how)


def test_the_command_names_every_picture():
    assert set(gallery.PICTURES) == set(get_args(Picture))


def panels(figure):
    """The axes of images, without those of their colour bars, by title."""
    return {ax.get_title("left"): ax for ax in figure.axes if ax.get_title("left")}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_has_a_picture_that_suits_it(kind, file):
    recipe = recipe_of(kind)
    figure = gallery.draw(gallery.default(recipe), gallery.of_file(recipe, file, 0.1, 0.8))
    assert all(ax.has_data() for ax in figure.axes)


@pytest.mark.parametrize("picture", gallery.PICTURES)
def test_each_picture_is_drawn_of_what_it_fits_and_of_nothing_else(picture, file):
    fitting = gallery.PICTURES[picture].kinds
    for kind in {fitting[0], fitting[-1]}:
        figure = gallery.draw(picture, gallery.of_file(recipe_of(kind), file, 0.1, 0.8))
        assert all(ax.has_data() for ax in figure.axes)
    for kind in KINDS.keys() - set(fitting):
        with pytest.raises(
            gallery.PictureError, match=f"--picture {picture}: it does not fit a re"
        ):
            gallery.draw(picture, gallery.of_file(recipe_of(kind), file, 0.1, 0.8))


def test_an_excerpt_of_a_file_keeps_its_time(file):
    recipe = recipe_of("magnitude", n_fft=256, hop_length=64)
    subject = gallery.of_file(recipe, file, 0.25, 0.5)
    assert subject.signal().size == 11025
    (ax, _) = gallery.draw("spectrogram", subject).axes
    assert ax.get_xlim()[0] == 0.25
    assert ax.get_xlim()[1] == pytest.approx(0.75, abs=0.01)
    x = Transform(recipe).apply_file(file, offset=0.25, duration=0.5)
    np.testing.assert_array_equal(subject.features(), x)


def test_a_stored_clip_is_drawn_as_it_is_stored(built):
    fs, subject = of_built(built, "a/00.wav")
    np.testing.assert_array_equal(subject.features(), fs["a/00.wav"])
    recipe = fs.typed_recipe
    np.testing.assert_array_equal(
        Transform(recipe).represent([subject.signal()])[0], fs["a/00.wav"]
    )
    (ax, _) = gallery.draw("spectrogram", subject).axes
    (mesh,) = ax.collections
    np.testing.assert_array_equal(mesh.get_array().T, fs["a/00.wav"])


def test_frames_and_samples_of_an_excerpt_of_a_stored_clip_begin_together(built):
    fs, whole = of_built(built, "c/05.wav")
    _, part = of_built(built, "c/05.wav", 0.1, 0.2)
    times = fs.seconds(np.arange(len(fs["c/05.wav"])))
    inside = (times >= 0.1) & (times < 0.3)
    np.testing.assert_array_equal(part.features(), fs["c/05.wav"][inside])
    assert part.start == pytest.approx(times[inside][0])
    first = round(part.start * 8000)
    hop = fs.recipe["representation"]["hop_length"]
    expected = whole.signal()[first : first + inside.sum() * hop]
    np.testing.assert_array_equal(part.signal(), expected)
    with pytest.raises(gallery.PictureError, match="no frame is between 9 and inf s; its frames"):
        of_built(built, "c/05.wav", 9.0)


def test_a_clip_that_is_not_there_is_named(built):
    with pytest.raises(
        gallery.PictureError, match=r"no clip .* 'a/06.wv'; did you mean a/06.wav\?"
    ):
        of_built(built, "a/06.wv")
    with pytest.raises(gallery.PictureError, match=r"'x'; there are a/00.wav, a/03.wav, "):
        of_built(built, "x")
    with pytest.raises(gallery.PictureError, match=r"broken.wav: quarantined at decode: "):
        of_built(built, "broken.wav")


def test_without_a_clip_a_recipe_is_enough_for_its_filters():
    subject = gallery.Subject(recipe_of("log_mel"))
    assert gallery.draw("mel_scale", subject).axes
    with pytest.raises(gallery.PictureError, match="this picture needs a clip; name a file"):
        gallery.draw("waveform", subject)


def test_a_scale_is_refused_where_there_is_none(file):
    subject = gallery.of_file(recipe_of("chroma"), file, 0.0, None)
    with pytest.raises(gallery.PictureError, match="--scale mel: a pitch class is not a frequency"):
        gallery.draw("spectrogram", subject, "mel")
    with pytest.raises(
        gallery.PictureError, match="--scale mel: zoom has its own; leave it out, or draw"
    ):
        gallery.draw("zoom", subject, "mel")
    spectral = gallery.of_file(recipe_of("spectral"), file, 0.0, None)
    with pytest.raises(gallery.PictureError, match="--scale mel: spectral has no frequencies"):
        gallery.draw("values", spectral, "mel")


def test_a_clip_of_less_than_a_frame_is_refused(file):
    subject = gallery.of_file(recipe_of("mel", center=False), file, 0.0, 0.05)
    with pytest.raises(gallery.PictureError, match="1102 samples at 22050 Hz are less than one fr"):
        gallery.draw("spectrogram", subject)


def test_beside_one_another_are_the_recipe_and_its_nearest_kin(file):
    recipe = recipe_of("mfcc", n_fft=1024, hop_length=256, n_mels=40, fmax=8000.0, log="ln")
    figure = gallery.draw("mel_and_stft", gallery.of_file(recipe, file, 0.0, None))
    (stft_title, stft), (mel_title, mel) = panels(figure).items()
    assert stft_title == "decibel: 87 frames × 513 bins"
    assert mel_title == "log_mel: 87 frames × 40 bins"
    assert (stft.get_yscale(), mel.get_yscale()) == ("linear", "function")
    np.testing.assert_allclose(
        mel.get_ylim(), columns(recipe_of("mel", n_mels=40, fmax=8000.0)).edges[[0, -1]]
    )
    expected = Transform(recipe_of("decibel", n_fft=1024, hop_length=256)).apply_file(file)
    np.testing.assert_array_equal(stft.collections[0].get_array().T, expected)
    figure = gallery.draw("mel_and_cqt", gallery.of_file(recipe_of("log_cqt"), file, 0.0, None))
    assert list(panels(figure)) == ["log_mel: 44 frames × 128 bins", "log_cqt: 44 frames × 84 bins"]


def test_features_that_are_there_are_not_computed_again(noise):
    x = noise(44 * 128).reshape(44, 128)
    subject = gallery.Subject(
        recipe_of("log_mel"), signal=lambda: noise(22050, 1), features=lambda: x
    )
    figure = gallery.draw("mel_and_cqt", subject)
    (mesh,) = figure.axes[0].collections
    np.testing.assert_array_equal(mesh.get_array().T, x)


def test_a_spectrogram_is_in_decibels_and_values_are_as_they_are(file):
    subject = gallery.of_file(recipe_of("magnitude"), file, 0.0, None)
    units = [gallery.draw(name, subject).axes[1].get_ylabel() for name in ("spectrogram", "values")]
    assert units == ["dB", "magnitude"]


@pytest.mark.parametrize(("sample_rate", "bins"), [(2000, 96), (8000, 144), (44100, 168)])
def test_a_cqt_beside_ends_below_half_the_sample_rate(file, sample_rate, bins):
    recipe = Recipe.from_dict(
        {
            "resample": {"sample_rate": sample_rate},
            "representation": {"kind": "log_mel", "n_fft": 256, "hop_length": 64, "n_mels": 8},
        }
    )
    figure = gallery.draw("mel_and_cqt", gallery.of_file(recipe, file, 0.0, None))
    assert list(panels(figure))[1].endswith(f"× {bins} bins")
