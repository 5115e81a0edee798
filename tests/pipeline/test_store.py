import json
import os
import subprocess
import sys
from functools import partial

import numpy as np
import pyarrow.parquet as pq
import pytest
import zarr

from pipeline import FeatureSet, stages, statistics, store
from pipeline.keys import digest, values_hash
from pipeline.recipe import Recipe
from pipeline.scan import scan
from pipeline.shards import Plan
from pipeline.transform import Transform

SMALL = {"chunk_kib": 1, "shard_mib": 1}


def recipe_of(representation, **store):
    return Recipe.from_dict(
        {
            "resample": {"sample_rate": 8000},
            "representation": representation,
            "normalization": {"split": "all"},
            "store": {**SMALL, **store},
        }
    )


LOG_MEL = {"kind": "log_mel", "n_fft": 256, "hop_length": 64, "n_mels": 40}


def publish(folder, audio_folder, recipe, shard_seconds=2.0):
    """Carry a plan out without Luigi."""
    plan = Plan(recipe, scan(audio_folder, label="parent")[0], shard_seconds)

    def folder_of(shard):
        return folder / "shards" / str(shard.index)

    for shard in plan.shards:
        decoded = stages.decode(shard.sources, Transform(recipe), root=audio_folder)
        resampled = stages.resample(decoded, Transform(recipe))
        make = partial(stages.represent, resampled, Transform(recipe))
        store.write_shard(folder_of(shard), make, recipe=recipe, shard=shard)
    shards = [statistics.read_shard(folder_of(shard)) for shard in plan.shards]
    fitted = statistics.fit(plan, shards, histograms=folder / "histogram")
    path = folder / f"{plan.key}.zarr"
    store.publish(path, plan, fitted, shards=shards, catalogue=folder / "catalogue")
    return plan, path


def write_arrays(folder, arrays, recipe):
    """A shard of given features."""

    def make(put):
        for x in arrays:
            put(x)
        n = len(arrays)
        return stages.Represented(
            contents=[f"{i:064x}" for i in range(n)],
            moments=np.zeros((n, 4, arrays[0].shape[1])),
            values=[values_hash(x) for x in arrays],
            sources=[(8000, 1)] * n,
            checksums=[(0, 0)] * n,
            quarantined=[],
            seconds={},
        )

    class AnyShard:
        keys = {"representation": "key"}  # noqa: RUF012  # read once

    store.write_shard(folder, make, recipe=recipe, shard=AnyShard)
    return zarr.open_group(folder, mode="r")


@pytest.mark.parametrize("codec", ["none", "compact", "archive"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "complex64"])
def test_every_value_comes_back_also_zeros_and_clips_longer_than_a_file(tmp_path, codec, dtype):
    kind = {"kind": "stft"} if dtype == "complex64" else {"kind": "magnitude", "dtype": dtype}
    recipe = recipe_of({**kind, "n_fft": 1022, "hop_length": 511}, codec=codec)
    rng = np.random.default_rng(0)
    lengths = (3, 700, 1, 300, 5)
    arrays = [rng.standard_normal((n, 512)).astype(dtype) for n in lengths]
    arrays[3][:] = 0  # a chunk of zeros must not be left out as if it were unused
    group = write_arrays(tmp_path / "shard", arrays, recipe)
    starts = np.asarray(group["start"])
    for start, x in zip(starts, arrays, strict=True):
        assert group["features"][start : start + len(x)].tobytes() == x.tobytes()
    used = np.zeros(group["features"].shape[0], bool)
    for start, x in zip(starts, arrays, strict=True):
        used[start : start + len(x)] = True
    assert np.isnan(group["features"][:][~used]).all()


def test_an_uncompressed_shard_file_is_the_array_itself_and_then_its_index(tmp_path):
    recipe = recipe_of({"kind": "magnitude", "n_fft": 1022, "hop_length": 511})
    x = np.random.default_rng(0).standard_normal((100, 512)).astype(np.float32)
    x[10:50] = 0
    group = write_arrays(tmp_path / "shard", [x], recipe)
    data = (tmp_path / "shard" / "features" / "c" / "0" / "0").read_bytes()
    n_chunks = group["features"].shards[0] // group["features"].chunks[0]
    assert data[: x.nbytes] == x.tobytes()
    assert len(data) == x.nbytes + 16 * n_chunks + 4


def test_a_published_set_is_linked_shards_that_zarr_and_xarray_read(audio_folder, tmp_path):
    import xarray

    plan, path = publish(tmp_path, audio_folder, recipe_of(LOG_MEL))
    assert len(plan.shards) > 2
    links = [
        file.stat().st_nlink for file in (path / "features" / "c").rglob("0") if file.is_file()
    ]
    assert links == [2] * len(plan.shards)
    group = zarr.open_group(path, mode="r")
    dataset = xarray.open_zarr(path)
    assert dataset["features"].dims == ("row", "bin")
    fs = FeatureSet.open(path)
    assert len(fs) == 12
    for i, clip in enumerate(fs.clips.itertuples()):
        rows = slice(clip.start, clip.start + clip.n_frames)
        assert group["features"][rows].tobytes() == fs[i].tobytes()
        assert dataset["features"][rows].to_numpy().tobytes() == fs[i].tobytes()
        assert values_hash(fs[i]) == clip.values_sha256


def test_clips_are_in_content_order_with_equal_files_sharing_rows(audio_folder, tmp_path):
    plan, path = publish(tmp_path, audio_folder, recipe_of(LOG_MEL))
    clips = FeatureSet.open(path).clips
    assert clips["content"].tolist() == sorted(plan.manifest.contents)
    twins = clips[clips["id"].isin(["a/00.wav", "a/09.wav"])]
    assert twins["start"].nunique() == 1
    assert twins["id"].tolist() == ["a/00.wav", "a/09.wav"]
    assert {"sha256", "label", "split", "duration", "sample_rate"} <= set(clips.columns)
    assert clips["split"].unique().tolist() == ["train"]


def test_the_digest_is_that_of_the_values_whatever_the_shards_and_the_layout(
    audio_folder, tmp_path
):
    variants = [
        ({}, 2.0),
        ({}, 600.0),
        ({"codec": "compact"}, 2.0),
        ({"codec": "archive", "chunk_kib": 7, "shard_mib": 2}, 0.5),
    ]
    found = set()
    for i, (layout, shard_seconds) in enumerate(variants):
        _plan, path = publish(
            tmp_path / str(i), audio_folder, recipe_of(LOG_MEL, **layout), shard_seconds
        )
        fs = FeatureSet.open(path)
        by_hand = digest(
            [
                (c.content, values_hash(fs[i]), len(fs[i]))
                for i, c in enumerate(fs.clips.itertuples())
            ],
            n_bins=40,
            dtype="float32",
        )
        assert fs.digest == by_hand
        statistics_bytes = b"".join(fs.stats[name].tobytes() for name in sorted(fs.stats))
        found.add((fs.key, fs.digest, statistics_bytes))
    assert len(found) == 1


def test_moments_and_statistics_are_stored(audio_folder, tmp_path):
    _, path = publish(tmp_path, audio_folder, recipe_of(LOG_MEL))
    group = zarr.open_group(path, mode="r")
    fs = FeatureSet.open(path)
    frames = np.concatenate([x.astype(np.float64) for x in fs])
    np.testing.assert_allclose(fs.stats["mean"], frames.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(fs.stats["std"], frames.std(axis=0), rtol=1e-9)
    assert fs.stats["histogram"].sum() == frames.size
    for i, x in enumerate(fs):
        np.testing.assert_array_equal(group["moments/max"][i], x.max(axis=0))
        np.testing.assert_allclose(
            group["moments/sum"][i], (x + 100.0).astype(np.float64).sum(axis=0), rtol=1e-6
        )
    assert group["moments/sum_squares"].shape == (12, 40)


def test_many_clips_are_written_some_at_a_time(audio_folder, tmp_path, monkeypatch):
    _, at_once = publish(tmp_path / "once", audio_folder, recipe_of(LOG_MEL))
    monkeypatch.setattr(store, "_GROUP_ROWS", 5)
    monkeypatch.setattr(store, "_CHUNK_BYTES", 5 * 8 * 40)  # five rows of 40 bins
    _, path = publish(tmp_path / "some", audio_folder, recipe_of(LOG_MEL))
    assert FeatureSet.open(path).digest == FeatureSet.open(at_once).digest
    assert pq.ParquetFile(path / "clips.parquet").num_row_groups > 1
    assert pq.read_table(path / "clips.parquet").equals(pq.read_table(at_once / "clips.parquet"))
    for name in statistics.MOMENTS:
        array, whole = (zarr.open_array(p / "moments" / name) for p in (path, at_once))
        assert array.nchunks == 3
        np.testing.assert_array_equal(array[:], whole[:])


def test_attributes_say_what_it_is(audio_folder, tmp_path):
    plan, path = publish(tmp_path, audio_folder, recipe_of(LOG_MEL))
    attributes = json.loads((path / "zarr.json").read_text())["attributes"]["basilar"]
    assert attributes["key"] == plan.key
    assert attributes["manifest_hash"] == plan.manifest.hash
    assert attributes["recipe"] == plan.recipe.resolved()
    assert attributes["portable"] is True
    assert attributes["shards"] == {str(shard.index): 1 for shard in plan.shards}
    assert {"numpy", "scipy", "soxr", "python", "basilar"} <= attributes["versions"].keys()


def test_where_links_are_refused_files_are_copied(audio_folder, tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    _, path = publish(tmp_path, audio_folder, recipe_of(LOG_MEL))
    file = path / "features" / "c" / "0" / "0"
    assert file.stat().st_nlink == 1
    assert values_hash(FeatureSet.open(path)[0]) == FeatureSet.open(path).clips["values_sha256"][0]


def test_a_shard_of_which_nothing_is_left(audio_folder, tmp_path):
    for i in range(3):
        (audio_folder / f"broken{i}.wav").write_bytes(b"RIFF" + bytes([i] * 40))
    _plan, path = publish(tmp_path, audio_folder, recipe_of(LOG_MEL), shard_seconds=0.01)
    fs = FeatureSet.open(path)
    assert len(fs) == 12
    assert sorted(fs.quarantine["id"]) == ["broken0.wav", "broken1.wav", "broken2.wav"]
    assert fs.attributes["quarantined"] == 3
    assert all(values_hash(x) == v for x, v in zip(fs, fs.clips["values_sha256"], strict=True))


def test_opening_needs_neither_luigi_nor_mlflow():
    code = (
        "import sys; from pipeline import FeatureSet; FeatureSet; "
        "print(sorted({'luigi', 'mlflow', 'typer'} & sys.modules.keys()))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
