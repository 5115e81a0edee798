import os
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import zarr

from basilar import FeatureSet
from basilar.pipeline.compute import stages
from basilar.pipeline.compute.transform import Transform
from basilar.pipeline.hashing import digest, values_hash
from basilar.pipeline.manifests.scan import scan
from basilar.pipeline.plan import Plan
from basilar.pipeline.recipes.recipe import Recipe
from basilar.pipeline.store import publish as publish_module
from basilar.pipeline.store import shard_tables, statistics
from basilar.pipeline.store.shard import write_shard

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
    plan = Plan(recipe, scan(audio_folder, label="parent"), shard_seconds)

    def folder_of(shard):
        return folder / "shards" / str(shard.index)

    for shard in plan.shards:
        decoded = stages.decode(shard.sources, Transform(recipe), root=audio_folder)
        resampled = stages.resample(decoded, Transform(recipe))
        make = partial(stages.represent, resampled, Transform(recipe))
        write_shard(folder_of(shard), make, recipe=recipe, shard=shard)
    shards = [shard_tables.read_shard(folder_of(shard)) for shard in plan.shards]
    fitted = statistics.fit_statistics(plan, shards, histograms=folder / "histogram")
    path = folder / f"{plan.key}.zarr"
    publish_module.publish(path, plan, fitted, shards=shards, catalogue=folder / "catalogue")
    return plan, path


@pytest.mark.slow
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


@pytest.mark.slow
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
    assert dict(group["stats"].attrs) == {"frames": len(frames), "clips": 12}
    for i, x in enumerate(fs):
        np.testing.assert_array_equal(group["moments/max"][i], x.max(axis=0))
        np.testing.assert_allclose(
            group["moments/sum"][i], (x + 100.0).astype(np.float64).sum(axis=0), rtol=1e-6
        )
    assert group["moments/sum_squares"].shape == (12, 40)


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
        "import sys; from basilar import FeatureSet; FeatureSet; "
        "print(sorted({'luigi', 'mlflow', 'typer'} & sys.modules.keys()))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
