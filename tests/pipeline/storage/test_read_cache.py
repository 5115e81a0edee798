import pickle

import numpy as np
import pytest

from basilar.pipeline import storage
from basilar.pipeline.training.feature_set import FeatureSet
from tests.pipeline.storage.test_remote import digest, planned

pytestmark = pytest.mark.usefixtures("own_folder")  # each test fetches for itself


def test_training_reads_through_a_bounded_cache(memory, published, built, tmp_path):
    root, key, value = published
    files = memory.find(f"/kept/root/features/{key}.zarr/features/c", detail=True)
    largest = max(entry["size"] for entry in files.values())
    url = f"{root}/features/{key}.zarr"
    fs = FeatureSet.open(url, cache=tmp_path, cache_bytes=2 * largest)
    assert (fs.digest, len(set(fs.files)) > 2) == (value, True)  # else nothing has to go
    local = FeatureSet.open(built.store)
    for _ in range(2):
        for x, y in zip(
            FeatureSet.open(url, cache=tmp_path, cache_bytes=2 * largest), local, strict=True
        ):
            np.testing.assert_array_equal(x, y)
        there = [path.stat().st_size for path in tmp_path.rglob("features/c/*/0")]
        assert 0 < sum(there) <= 2 * largest
    np.testing.assert_array_equal(fs.pooled("mean"), local.pooled("mean"))
    again = pickle.loads(pickle.dumps(fs))  # noqa: S301
    np.testing.assert_array_equal(again[0], local[0])
    assert again.cache_bytes == 2 * largest


def test_a_warm_cache_fetches_nothing(memory, published, tmp_path, monkeypatch):
    root, key, _ = published
    url = f"{root}/features/{key}.zarr"
    first = [x.copy() for x in FeatureSet.open(url, cache=tmp_path)]
    monkeypatch.setattr(type(memory), "get_file", lambda *_: 1 / 0)
    for x, y in zip(FeatureSet.open(url, cache=tmp_path), first, strict=True):
        np.testing.assert_array_equal(x, y)


def test_a_set_that_was_published_again_is_fetched_again(memory, audio_folder, tmp_path):
    build = planned(audio_folder, "memory://bucket/root")
    digest(build)
    url = storage.name(build.store)
    cached = FeatureSet.open(url, cache=tmp_path)
    cached[0]
    file = f"/bucket/root/features/{build.plan.key}.zarr/zarr.json"
    memory.pipe_file(file, memory.cat_file(file) + b" ")
    assert not [*FeatureSet.open(url, cache=tmp_path).path.rglob("features/c/*")]
