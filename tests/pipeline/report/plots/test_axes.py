import numpy as np
import pytest

from basilar.dsp.mel import hz_to_mel
from basilar.pipeline.recipes.kinds.framed import Framed
from basilar.pipeline.recipes.recipe import Recipe
from basilar.pipeline.report.plots.axes import columns, note_name, seconds, ticks
from tests.conftest import REPOSITORY

RECIPES = sorted(path.stem for path in (REPOSITORY / "params").glob("*.toml"))


def shipped(name):
    return Recipe.load(REPOSITORY / "params" / f"{name}.toml")


def recipe_of(kind, **values):
    return Recipe.from_dict({"representation": {"kind": kind, **values}})


@pytest.mark.parametrize("name", RECIPES)
def test_columns_lie_side_by_side_around_their_centres(name):
    recipe = shipped(name)
    found = columns(recipe)
    assert found.centres.shape == (recipe.representation.columns(),)
    assert (found.edges[:-1] <= found.centres).all()
    assert (found.centres <= found.edges[1:]).all()
    assert (np.diff(found.edges) > 0).all()
    assert all(0 <= column < found.centres.size for column in found.names)


@pytest.mark.parametrize("name", RECIPES)
def test_rows_lie_around_the_samples_that_frames_are_centred_on(name):
    recipe = shipped(name)
    edges = seconds(recipe, 10, start=2.0)
    samples = recipe.representation.centres(np.arange(10.0))
    centres = (edges[:-1] + edges[1:]) / 2
    np.testing.assert_allclose(centres, 2 + samples / recipe.resample.sample_rate)


def test_a_spectrum_ends_at_half_the_sample_rate():
    found = columns(recipe_of("power", n_fft=512))
    assert (found.edges[0], found.edges[-1]) == (0.0, 11025.0)
    np.testing.assert_allclose(found.centres, np.arange(257) * 22050 / 512)
    odd = columns(recipe_of("power", n_fft=511))
    assert odd.centres.size == 256
    assert odd.edges[-1] == 11025.0


@pytest.mark.parametrize("mel_scale", ["slaney", "htk", "kaldi"])
def test_mel_bands_are_even_on_their_own_scale(mel_scale):
    found = columns(recipe_of("mel", n_mels=40, fmin=50.0, fmax=8000.0, mel_scale=mel_scale))
    low, high = hz_to_mel([50, 8000], mel_scale=mel_scale)
    mels = hz_to_mel(found.centres, mel_scale=mel_scale)
    np.testing.assert_allclose(mels, low + (high - low) * np.arange(1, 41) / 41)
    edges = hz_to_mel(found.edges, mel_scale=mel_scale)
    np.testing.assert_allclose(np.diff(edges), (high - low) / 41)


def test_notes_have_their_names():
    found = columns(recipe_of("cqt"))
    names = [note_name(hz) for hz in found.centres]
    assert " ".join(names[:13]) == "C1 C♯1 D1 D♯1 E1 F1 F♯1 G1 G♯1 A1 A♯1 B1 C2"
    assert note_name(261.6) == "C4"
    hz, labels = ticks(30, 4500, scale="note")
    assert labels == ["C1", "C2", "C3", "C4", "C5", "C6", "C7", "C8"]
    np.testing.assert_allclose(
        hz, [32.703, 65.406, 130.81, 261.63, 523.25, 1046.5, 2093, 4186], 1e-4
    )


def test_pitch_classes_and_coefficients_are_named():
    assert columns(recipe_of("chroma", n_fft=4096)).names[9] == "A"
    assert columns(recipe_of("chroma", base_c=False)).names[0] == "A"
    assert (
        columns(recipe_of("chroma", n_chroma=24)).names
        == columns(recipe_of("chroma_cqt", bins_per_octave=24, n_chroma=24)).names
    )
    assert columns(recipe_of("chroma", n_chroma=24)).names[18] == "A"
    assert columns(recipe_of("chroma", n_chroma=10)).names == {}
    assert columns(recipe_of("mfcc", n_deltas=2)).names == {
        **{0: "c0", 10: "c10", 20: "Δc0", 30: "Δc10", 40: "ΔΔc0", 50: "ΔΔc10"}
    }


class Bands(Framed):
    """A kind that nobody has told what its columns are."""

    def columns(self):
        return 32


def test_columns_of_a_new_kind_are_counted():
    bands = Bands(kind="bands")
    found = columns(recipe_of("power").model_copy(update={"representation": bands}))
    assert found.scale is None
    np.testing.assert_array_equal(found.centres, np.arange(32))


@pytest.mark.parametrize("scale", ["log", "mel"])
def test_labels_are_round_and_do_not_meet(scale):
    hz, labels = ticks(20, 16000, scale=scale)
    assert [float(label) for label in labels] == hz
    places = hz_to_mel(hz, mel_scale="slaney") if scale == "mel" else np.log(hz)
    assert len(hz) >= 5
    assert np.diff(places).min() > 0.08 * (places[-1] - places[0])
