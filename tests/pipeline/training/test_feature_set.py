import json
import pickle
import shutil
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import zarr

from basilar import FeatureSet
from basilar.pipeline.recipes.recipe import Recipe
from basilar.pipeline.store import arrays
from tests.pipeline.store.test_publish import LOG_MEL, SMALL, publish


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


def test_reading_frames(make):
    fs = make()
    whole = fs[3]
    assert fs.read(3, 2, 3).tobytes() == whole[2:5].tobytes()
    assert fs.read(3, 2).tobytes() == whole[2:].tobytes()
    assert fs.read(3, len(whole), 0).shape == (0, 40)
    assert [x.tobytes() for x in fs.__getitems__([3, 5])] == [fs[3].tobytes(), fs[5].tobytes()]
    for start, n_frames in ((-1, 2), (0, len(whole) + 1), (2, -1)):
        with pytest.raises(IndexError, match=f"of clip 3, which has {len(whole)}"):
            fs.read(3, start, n_frames)


@pytest.mark.parametrize("normalize", [False, True])
def test_crops_are_what_reading_gives_and_padded_where_the_clip_ends(make, normalize):
    fs = make({**LOG_MEL, "dtype": "float16"}, kind="standard")
    clips, starts = np.array([3, 3, 0, -1]), np.array([0, 7, fs.n_frames[0] - 5, 2])
    crops = fs.crops(clips, starts, 20, normalize=normalize, pad_value=9.0)
    assert crops.dtype == (np.float32 if normalize else np.float16)
    for crop, clip, start in zip(crops, clips, starts, strict=True):
        expected = fs[int(clip)][start : start + 20]
        expected = fs.normalize(expected) if normalize else expected
        assert crop[: len(expected)].tobytes() == expected.tobytes()
        assert (crop[len(expected) :] == 9).all()
    assert (crops[2, 5:] == 9).all()
    out = np.zeros_like(crops)
    assert fs.crops(clips, starts, 20, normalize=normalize, pad_value=9.0, out=out) is out
    assert out.tobytes() == crops.tobytes()


def test_crops_there_are_not(make):
    fs = make()
    for clips, starts in (([12], [0]), ([-13], [0])):
        with pytest.raises(IndexError, match="of 12"):
            fs.crops(clips, starts, 4)
    for starts in ([0, fs.n_frames[5] + 1], [0, -1]):
        with pytest.raises(IndexError, match=f"frame {starts[1]} of clip 5, which has"):
            fs.crops([2, 5], starts, 4)
    assert fs.crops([], [], 4).shape == (0, 4, 40)


def test_selecting(make):
    fs = make()
    a = fs.select(label="a")
    assert len(a) == len(a.clips) == 4
    assert set(a.clips["label"]) == {"a"}
    for i, clip_id in enumerate(a.clips["id"]):
        assert a[i].tobytes() == a[clip_id].tobytes() == fs[clip_id].tobytes()
    np.testing.assert_array_equal(a.n_frames, a.clips["n_frames"])
    assert a.stats["mean"].tobytes() == fs.stats["mean"].tobytes()
    assert a.labels == fs.labels == ["a", "b", "c"]
    assert set(a.label_codes) == {0}
    with pytest.raises(KeyError, match="no clip has the id"):
        a[fs.select(label="b").clips["id"][0]]

    both = fs.select(label=["a", "c"])
    assert len(both) == 8
    long = both.select("duration > 0.5 and label != 'c'")
    assert set(long.clips["id"]) == {
        row.id for row in fs.clips.itertuples() if row.label == "a" and row.duration > 0.5
    }
    assert 0 < len(long) < 4
    assert len(fs.select(group=None)) == len(fs.select(offset=None)) == 12
    assert len(fs.select(label=[None, "a"])) == len(a)
    for some in (
        a.clips["id"],
        a.clips["id"].to_numpy(),
        pd.Index(a.clips["id"]),
        iter(a.clips["id"]),
    ):
        assert list(fs.select(id=some).clips["id"]) == list(a.clips["id"])
    assert len(fs.select(label=None)) == len(fs.select("n_frames < 0")) == 0
    with pytest.raises(ValueError, match=r"no column 'lable'; did you mean label\?"):
        fs.select(lable="a")


def test_pickled_sets_are_the_same_set(make):
    fs = make().select(label="b")
    fs[0]
    again = pickle.loads(pickle.dumps(fs))  # noqa: S301
    assert len(pickle.dumps(fs)) < 1000
    assert [x.tobytes() for x in again] == [x.tobytes() for x in fs]


def test_pooling_is_what_the_frames_give(make):
    fs = make().select(label=["a", "b"])
    pooled = fs.pooled("std", "mean", "min", "max")
    assert pooled.dtype == np.float32
    expected = [
        np.concatenate([x.std(axis=0), x.mean(axis=0), x.min(axis=0), x.max(axis=0)])
        for x in (x.astype(np.float64) for x in fs)
    ]
    np.testing.assert_allclose(pooled, expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="'median' is not one of mean, std, min, max"):
        fs.pooled("median")


@pytest.mark.parametrize(
    ("representation", "expected"),
    [
        (LOG_MEL, [0, 64, 128]),
        ({**LOG_MEL, "center": False}, [128, 192, 256]),
        ({**LOG_MEL, "center": False, "win_length": 200, "align": "left"}, [100, 164, 228]),
        ({"kind": "waveform"}, [0, 1, 2]),
    ],
)
def test_frames_in_seconds(make, representation, expected):
    fs = make(representation)
    np.testing.assert_array_equal(fs.seconds([0, 1, 2]), np.array(expected) / 8000)


def test_opening_imports_no_table_and_no_zarr(make):
    fs = make(kind="standard")
    code = (
        "import sys; from basilar import FeatureSet\n"
        "fs = FeatureSet.open(sys.argv[1]); fs.crops([0, 1], [0, 0], 4, normalize=True)\n"
        "print(*{'zarr', 'pandas', 'pyarrow', 'scipy', 'pydantic'} & sys.modules.keys())"
    )
    command = [sys.executable, "-c", code, fs.path]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_a_million_clips_open_at_once(make, tmp_path):
    """The index of a set, replaced by one of a million clips that share its rows."""
    fs = make()
    n_clips = 1_000_000
    attributes = json.loads((fs.path / "zarr.json").read_bytes())
    attributes["attributes"]["basilar"]["clips"] = n_clips
    (fs.path / "zarr.json").write_text(json.dumps(attributes))
    numbers = np.arange(n_clips) % 50
    for name, values in (("start", numbers), ("n_frames", 1 + numbers)):
        shutil.rmtree(fs.path / name)
        arrays.write_array(fs.path / name, values, ("clip",))

    def seconds():
        begin = time.perf_counter()
        opened = FeatureSet.open(fs.path)
        assert (opened.n_frames[-1], opened._first_rows[-1], len(opened)) == (50, 49, n_clips)
        opened.crops([0], [0], 1, normalize=True)
        return time.perf_counter() - begin

    assert min(seconds() for _ in range(5)) < 0.05
