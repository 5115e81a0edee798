import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from basilar.pipeline.compute.quarantine import Quarantined
from basilar.pipeline.recipes.recipe import Recipe
from basilar.pipeline.store.attributes import checked_attributes
from basilar.pipeline.store.schema import (
    CLIP_COLUMNS,
    QUARANTINE_COLUMNS,
    STORE_SCHEMA,
    provenance,
    write_quarantine,
)


def test_a_table_of_the_quarantine_has_its_columns_with_ids_and_without(tmp_path):
    entry = Quarantined("0" * 64, "decode", "crashed", "it: died; send it")
    for row in (tuple(entry), ("a/00.wav", *entry)):
        write_quarantine(tmp_path, [row])
        (found,) = pq.read_table(tmp_path / "quarantine.parquet").to_pylist()
        assert list(found) == QUARANTINE_COLUMNS.names
        assert found["id"] == (row[0] if len(row) > len(entry) else None)
        assert Quarantined(**{name: found[name] for name in Quarantined._fields}) == entry
    write_quarantine(tmp_path, [])
    assert pq.read_schema(tmp_path / "quarantine.parquet").equals(QUARANTINE_COLUMNS)


def test_the_record_has_the_schema_and_what_readers_ask_for(tmp_path):
    recipe = Recipe.from_dict({"representation": {"kind": "mel", "n_fft": 2046, "n_mels": 20}})
    record = provenance(recipe)
    assert record["schema"] == STORE_SCHEMA
    assert Recipe.from_dict(record["recipe"]) == recipe
    assert record["versions"]["numpy"] == np.__version__
    rest = {
        **dict.fromkeys(("key", "digest", "recipe_hash", "manifest_hash"), "0" * 32),
        **dict.fromkeys(("clips", "frames", "quarantined"), 1),
        **{"op_versions": {}, "decoders": [], "shard_seconds": 600.0},
    }
    assert checked_attributes({**record, **rest}, tmp_path) == {**record, **rest}


def test_texts_and_times_of_clips_may_be_missing_and_have_one_type():
    assert {CLIP_COLUMNS[name] for name in ("id", "label", "content")} == {pa.string()}
    assert {CLIP_COLUMNS[name] for name in ("offset", "duration")} == {pa.float64()}
