import numpy as np
import pytest
import zarr

from pipeline import FeatureSet
from pipeline.recipe import Recipe
from tests.pipeline.test_store import LOG_MEL, SMALL, publish


@pytest.fixture
def make(audio_folder, tmp_path):
    def feature_set(representation=LOG_MEL, **normalization):
        recipe = Recipe.from_dict(
            {
                "resample": {"sample_rate": 8000},
                "representation": representation,
                "normalization": normalization,
                "store": SMALL,
            }
        )
        return FeatureSet.open(publish(tmp_path / "set", audio_folder, recipe)[1])

    return feature_set


def test_clips_by_row_and_by_id(make):
    fs = make()
    assert len(fs) == len(fs.clips) == 12
    for i, clip in enumerate(fs.clips.itertuples()):
        assert fs[i].shape == (clip.n_frames, 40)
        assert fs[clip.id].tobytes() == fs[i].tobytes()
    assert fs[-1].tobytes() == fs[11].tobytes()
    assert len(list(fs)) == 12
    assert fs[0].dtype == np.float32


def test_what_is_not_there_is_refused_by_name(make):
    fs = make()
    with pytest.raises(KeyError, match=r"no clip has the id 'x\.wav'"):
        fs["x.wav"]
    for i in (12, -13):
        with pytest.raises(IndexError, match=f"clip {i} of 12"):
            fs[i]


def test_normalizing(make):
    fs = make(kind="standard")
    frames = np.concatenate(list(fs))
    normalized = fs.normalize(frames)
    assert normalized.dtype == np.float32
    np.testing.assert_allclose(normalized.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(normalized.std(axis=0), 1, atol=1e-4)
    assert (
        fs.normalize(fs[0]).tobytes()
        == ((fs[0] - fs.stats["centre"]) / fs.stats["scale"]).tobytes()
    )


def test_without_normalization_values_stay(make):
    fs = make(kind="none")
    assert fs.normalize(fs[0]).tobytes() == fs[0].tobytes()


def test_half_precision_is_normalized_in_single(make):
    fs = make({**LOG_MEL, "dtype": "float16"}, kind="min_max")
    assert fs[0].dtype == np.float16
    normalized = fs.normalize(np.concatenate(list(fs)))
    assert normalized.dtype == np.float32
    np.testing.assert_allclose([normalized.min(), normalized.max()], [0, 1], atol=1e-6)


def test_complex_values_are_described_by_magnitude(make):
    fs = make({"kind": "stft", "n_fft": 256, "hop_length": 64})
    assert fs[0].dtype == np.complex64
    magnitudes = np.abs(np.concatenate(list(fs)))
    np.testing.assert_allclose(fs.stats["mean"], magnitudes.mean(axis=0), rtol=1e-5)
    assert fs.normalize(fs[0]).tobytes() == fs[0].tobytes()


def test_waveforms_have_one_bin(make):
    fs = make({"kind": "waveform"})
    assert fs["a/00.wav"].shape == (2400, 1)


def test_opening_what_is_no_feature_set(tmp_path):
    with pytest.raises(FileNotFoundError, match="no feature set here; basilar ls lists those"):
        FeatureSet.open(tmp_path)
    zarr.create_group(tmp_path / "other.zarr")
    with pytest.raises(ValueError, match="a Zarr store, but not a Basilar feature set"):
        FeatureSet.open(tmp_path / "other.zarr")
