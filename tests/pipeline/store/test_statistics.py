import numpy as np
import pyarrow.parquet as pq
import pytest

from basilar.pipeline.errors import DamagedArtifactError
from basilar.pipeline.storage.files import read_table
from basilar.pipeline.store import statistics
from basilar.pipeline.store.statistics import read_statistics, write_statistics
from tests.damage import flip
from tests.pipeline.store.test_publish import LOG_MEL, SMALL

RECIPE = {
    "resample": {"sample_rate": 8000},
    "representation": LOG_MEL,
    "store": SMALL,
}


def frames_of(plan, tables, split):
    import zarr

    found = {}
    for table in tables:
        features = zarr.open_group(table.folder, mode="r")["features"]
        columns = (table.clips[name].to_pylist() for name in ("content", "start", "n_frames"))
        for content, start, n in zip(*columns, strict=True):
            found[content] = features[start : start + n]
    rows = [row for row in plan.manifest.order if split in (plan.manifest.splits[row], "all")]
    return np.concatenate([found[plan.manifest.contents[row]] for row in rows]).astype(np.float64)


@pytest.mark.parametrize("split", ["train", "test", "all"])
def test_statistics_are_of_the_fit_split_alone(shards_of, tmp_path, split):
    plan, tables = shards_of({"train": 0.6, "test": 0.4}, kind="standard", split=split)
    fitted = statistics.fit_statistics(plan, tables, histograms=tmp_path / "h")
    frames = frames_of(plan, tables, split)
    assert fitted.summary.count == len(frames)
    assert fitted.n_clips == plan.is_fitted.sum()
    np.testing.assert_allclose(fitted.summary.mean, frames.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(fitted.centre, frames.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(fitted.scale, frames.std(axis=0), rtol=1e-6)
    expected = np.stack([np.histogram(column, fitted.edges)[0] for column in frames.T])
    np.testing.assert_array_equal(fitted.histogram, expected)


def test_equal_clips_count_as_often_as_they_are_there(shards_of, tmp_path):
    plan, tables = shards_of(None)
    fitted = statistics.fit_statistics(plan, tables, histograms=tmp_path / "h")
    assert fitted.n_clips == 12
    assert fitted.histogram[0].sum() == fitted.summary.count == len(frames_of(plan, tables, "all"))


def test_statistics_do_not_depend_on_shards(shards_of, tmp_path):
    found = set()
    for shard_seconds in (0.5, 2.0, 600.0):
        plan, tables = shards_of({"train": 0.6, "test": 0.4}, shard_seconds, kind="standard")
        fitted = statistics.fit_statistics(plan, tables, histograms=tmp_path / "h")
        parts = (*vars(fitted.summary).values(), fitted.histogram, fitted.centre, fitted.scale)
        found.add(b"".join(np.asarray(part).tobytes() for part in parts))
    assert len(found) == 1


def test_a_histogram_that_is_kept_is_not_counted_again(shards_of, tmp_path, monkeypatch):
    plan, tables = shards_of(None)
    first = statistics.fit_statistics(plan, tables, histograms=tmp_path / "h")

    def fail(*_, **__):
        raise AssertionError("features were read again")

    monkeypatch.setattr(statistics, "histogram", fail)
    again = statistics.fit_statistics(plan, tables, histograms=tmp_path / "h")
    np.testing.assert_array_equal(first.histogram, again.histogram)


@pytest.mark.parametrize("place", [0.0, 0.5, 1.0])
def test_a_damaged_histogram_is_counted_again(shards_of, tmp_path, place):
    plan, tables = shards_of(None)
    first = statistics.fit_statistics(plan, tables, histograms=tmp_path / "h")
    files = list((tmp_path / "h").iterdir())
    for file in files:
        flip(file, place)
    files[0].write_bytes(b"")
    again = statistics.fit_statistics(plan, tables, histograms=tmp_path / "h")
    np.testing.assert_array_equal(first.histogram, again.histogram)


def test_a_split_of_which_nothing_is_usable_is_refused(shards_of, tmp_path):
    plan, tables = shards_of(None)
    for table in tables:
        clips = read_table(table.folder / "clips.parquet")
        pq.write_table(clips.slice(0, 0), table.folder / "clips.parquet")
    with pytest.raises(ValueError, match="holds no usable clip, all of its 12 are quarantined"):
        statistics.fit_statistics(plan, tables, histograms=tmp_path / "h")


def test_damaged_statistics_are_not_read(shards_of, tmp_path):
    plan, tables = shards_of(None)
    write_statistics(
        tmp_path / "s.npz", statistics.fit_statistics(plan, tables, histograms=tmp_path / "h")
    )
    flip(tmp_path / "s.npz")
    with pytest.raises(DamagedArtifactError, match=r"s\.npz: damaged; delete it and build again"):
        read_statistics(tmp_path / "s.npz")


def test_statistics_come_back_as_they_were(shards_of, tmp_path):
    plan, tables = shards_of(None, kind="robust", per="global")
    fitted = statistics.fit_statistics(plan, tables, histograms=tmp_path / "h")
    write_statistics(tmp_path / "s.npz", fitted)
    again = read_statistics(tmp_path / "s.npz")
    assert again.n_clips == fitted.n_clips
    assert again.summary.count == fitted.summary.count
    for name in ("histogram", "edges", "centre", "scale"):
        assert getattr(again, name).dtype == getattr(fitted, name).dtype
        np.testing.assert_array_equal(getattr(again, name), getattr(fitted, name))
    for name in ("mean", "std", "min", "max"):
        np.testing.assert_array_equal(getattr(again.summary, name), getattr(fitted.summary, name))


def test_statistics_do_not_depend_on_how_many_clips_are_merged_at_once(
    shards_of, tmp_path, monkeypatch
):
    plan, tables = shards_of({"train": 0.6, "test": 0.4})
    whole = statistics.fit_statistics(plan, tables, histograms=tmp_path / "h").summary
    monkeypatch.setattr(statistics, "_CLIPS", 2)
    again = statistics.fit_statistics(plan, tables, histograms=tmp_path / "h").summary
    assert again.count == whole.count
    for name in ("mean", "std", "min", "max"):
        np.testing.assert_array_equal(getattr(again, name), getattr(whole, name))
