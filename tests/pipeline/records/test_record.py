import json
import shutil

import pyarrow.parquet as pq
import pytest

from basilar.pipeline.errors import DamagedArtifactError, NoRecordError
from basilar.pipeline.records.record import find_record, read_attributes, read_record, recorded_keys
from tests.damage import edit_json, edit_table, flip, store_of


def test_a_store_is_its_own_record(built):
    key = built.plan.key
    assert recorded_keys(built.root) == [key]
    record = find_record(built.root, key)
    assert (record.source, record.key, record.store) == ("store", key, built.store)
    assert record.recipe == built.plan.recipe
    assert record.manifest.hash == built.plan.manifest.hash
    assert len(record.clips) == 12
    assert record.plan().shards == built.plan.shards
    assert len(record.plan(shard_seconds=600).shards) == 1


def test_the_catalogue_outlives_the_store(root, built):
    shutil.rmtree(root / "features")
    record = find_record(root, built.plan.key)
    assert (record.source, record.key, record.store) == ("catalogue", built.plan.key, None)
    assert record.recipe == built.plan.recipe
    assert len(record.clips) == 12
    assert recorded_keys(root) == [built.plan.key]


def test_a_store_that_does_not_say_what_it_is_gives_way_to_the_catalogue(root, built):
    file = store_of(root) / "zarr.json"
    recipe = {"representation": {"kind": "mel"}}
    edit_json(file, lambda v: v["attributes"]["basilar"].update(recipe=recipe))
    assert find_record(root, built.plan.key).source == "catalogue"
    file.write_text("{")
    record = find_record(root, built.plan.key)
    assert (record.source, record.store) == ("catalogue", store_of(root))


def catalogue(root, name):
    (file,) = (root / "catalogue").glob(name)
    return file


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda v: v["recipe"]["representation"].update(n_mels=9), "the recipe hashes to"),
        (lambda v: v["op_versions"].update(resample=9), "the recipe hashes to"),
        (lambda v: v.pop("op_versions"), "it has no 'op_versions'"),
        (lambda v: v["op_versions"].pop("decode"), "the recipe hashes to"),
        (lambda v: v.update(key="0" * 32), "key, recipe, manifest and decoders do not fit"),
        (lambda v: v.update(decoders=["x 1"]), "key, recipe, manifest and decoders do not fit"),
        (lambda v: v.update(manifest_hash="0" * 32), r"0{32}\.parquet: it cannot be read"),
        (lambda v: v.pop("digest"), "it has no 'digest'"),
        (lambda v: v["recipe"].pop("representation"), "representation is missing"),
        (lambda v: v["recipe"]["representation"].update(n_mels=0), "n_mels = 0 is refused"),
    ],
)
def test_a_record_that_does_not_hash_to_its_key_is_refused(root, built, change, problem):
    shutil.rmtree(root / "features")
    edit_json(catalogue(root, "features/*.json"), change)
    with pytest.raises(DamagedArtifactError, match=problem):
        find_record(root, built.plan.key)


@pytest.mark.parametrize("column", ["id", "label", "split", "group", "sha256", "offset"])
def test_a_changed_manifest_is_refused(root, built, column):
    file = catalogue(root, "manifests/*.parquet")
    edit_table(file, column, 2, 0.5 if column == "offset" else "0" * 64)
    with pytest.raises(DamagedArtifactError, match=r"manifests/.*\.parquet: damaged, it hashes"):
        find_record(root, built.plan.key)


@pytest.mark.parametrize("column", ["path", "decoder", "n_samples", "sha256"])
def test_a_bit_flipped_in_a_column_of_the_manifest_is_found(root, built, column):
    """Also in those that no hash depends on."""
    file = catalogue(root, "manifests/*.parquet")
    chunks = pq.ParquetFile(file).metadata.row_group(0)
    (chunk,) = [c for i in range(16) if (c := chunks.column(i)).path_in_schema == column]
    flip(file, (chunk.data_page_offset + chunk.total_compressed_size / 2) / file.stat().st_size)
    with pytest.raises(DamagedArtifactError, match=r"manifests/.*\.parquet: it cannot be read"):
        find_record(root, built.plan.key)


def test_a_key_that_was_never_published_is_not_there(root):
    with pytest.raises(NoRecordError, match="0000 is neither in features nor in the catalogue"):
        find_record(root, "0000")


def test_a_table_of_clips_that_cannot_be_read_is_named(root, built):
    record = find_record(root, built.plan.key)
    record.clips_file.write_bytes(b"no table")
    with pytest.raises(DamagedArtifactError, match=r"clips\.parquet: it cannot be read"):
        assert record.clips


def test_a_folder_of_a_run_is_a_record(root, built, tmp_path):
    shutil.copy(catalogue(root, "features/*.json"), tmp_path / "feature_set.json")
    shutil.copy(catalogue(root, "features/*.parquet"), tmp_path / "clips.parquet")
    shutil.copy(catalogue(root, "manifests/*.parquet"), tmp_path / "manifest.parquet")
    record = read_record(tmp_path, "mlflow")
    assert (record.source, record.key, record.store) == ("mlflow", built.plan.key, None)
    edit_json(tmp_path / "feature_set.json", lambda v: v.update(key="0" * 32))
    with pytest.raises(DamagedArtifactError, match="mlflow: its record is damaged"):
        read_record(tmp_path, "mlflow")


def test_attributes_are_the_same_from_store_and_catalogue(built):
    from_store = read_attributes(built.store / "zarr.json")
    entry = built.root / "catalogue" / "features" / f"{built.plan.key}.json"
    assert read_attributes(entry) == from_store == json.loads(entry.read_text())
