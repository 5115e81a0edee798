"""Damage that checksums do not show: changed together with them, or written wrong."""

import numpy as np
import pytest
import zarr

from basilar.pipeline.audit.consistency import check
from basilar.pipeline.records.record import find_record, recorded_keys
from basilar.pipeline.training.feature_set import FeatureSet
from tests.damage import edit_json, edit_table, flip, store_of


def problems(root):
    (key,) = recorded_keys(root)
    record = find_record(root, key)
    return list(check(root, record, FeatureSet.open(record.store), map))


def test_a_sound_store_agrees_with_itself(built):
    assert problems(built.root) == []


def test_a_changed_value_is_found_in_its_clip_and_file(root):
    file = store_of(root) / "features" / "c" / "1" / "0"
    fs = FeatureSet.open(store_of(root))
    first = fs.clips["id"][fs.files.tolist().index(1)]
    flip(file, 0.0)
    said = problems(root)
    assert said[0] == (str(file), f"{first}: its values do not hash to values_sha256")


def test_a_damaged_shard_index_is_found(root):
    file = store_of(root) / "features" / "c" / "1" / "0"
    flip(file, 0.999)
    assert {p.file for p in problems(root)} >= {str(file)}


@pytest.mark.parametrize("column", ["id", "label", "split", "sha256", "content", "offset"])
def test_a_table_that_is_not_the_manifests_is_found(root, column):
    file = store_of(root) / "clips.parquet"
    edit_table(file, column, 3, 0.5 if column == "offset" else "other")
    assert any(p.file == str(file) and f"{column} is " in p.problem for p in problems(root))


@pytest.mark.parametrize("name", ["start", "n_frames"])
def test_an_array_that_is_not_its_column_is_found(root, name):
    array = zarr.open_array(store_of(root) / name, mode="r+")
    array[4] += 1
    assert [p.file for p in problems(root)] == [str(store_of(root) / name)]


@pytest.mark.parametrize("name", ["clips", "frames", "quarantined"])
def test_a_wrong_total_is_found(root, name):
    file = store_of(root) / "zarr.json"
    edit_json(file, lambda v: v["attributes"]["basilar"].update({name: 999}))
    assert (str(file), name) in [(p.file, p.problem.split()[0]) for p in problems(root)]


@pytest.mark.parametrize(
    "name", ["mean", "std", "min", "max", "centre", "scale", "histogram", "edges"]
)
def test_a_statistic_that_is_not_of_the_values_is_found(root, name):
    array = zarr.open_array(store_of(root) / "stats" / name, mode="r+")
    array[0] = np.asarray(array[0]) + 1
    assert [p.file for p in problems(root)] == [str(store_of(root) / "stats" / name)]


def test_counts_of_statistics_are_checked(root):
    file = store_of(root) / "stats" / "zarr.json"
    edit_json(file, lambda v: v["attributes"].update(clips=3))
    assert [p.file for p in problems(root)] == [str(file)]


@pytest.mark.parametrize("name", ["sum", "sum_squares", "min", "max"])
def test_moments_that_are_not_of_the_values_are_found(root, name):
    array = zarr.open_array(store_of(root) / "moments" / name, mode="r+")
    array[2, 0] += 1e-9 + abs(array[2, 0])
    said = problems(root)
    clip = FeatureSet.open(store_of(root)).clips["id"][2]
    assert said[0] == (str(store_of(root) / "moments"), f"those of {clip} do not match its values")


def test_quarantine_of_what_is_no_clip_is_found(root):
    file = store_of(root) / "quarantine.parquet"
    edit_table(file, "id", 0, "nothing")
    assert (str(file), "nothing is not a clip of the manifest") in problems(root)


@pytest.mark.parametrize("name", ["features/*.json", "features/*.parquet", "recipes/*.json"])
@pytest.mark.parametrize("how", ["gone", "other", "flipped"])
def test_a_catalogue_that_could_not_replace_the_store_is_found(root, name, how):
    (file,) = (root / "catalogue").glob(name)
    if how == "gone":
        file.unlink()
    elif how == "flipped":
        data = bytearray(file.read_bytes())
        data[0] ^= 1
        file.unlink()
        file.write_bytes(data)
    elif file.suffix == ".parquet":
        edit_table(file, "label", 0, "x")
    else:
        edit_json(file, lambda v: (v.get("recipe", v)["representation"]).update(n_mels=9))
    assert [p.file for p in problems(root)] == [str(file)]
