import numpy as np
import pyarrow.parquet as pq
import zarr

from basilar import FeatureSet
from basilar.pipeline.store import arrays, shard_tables
from basilar.pipeline.store import publish as publish_module
from tests.pipeline.store.test_publish import LOG_MEL, publish, recipe_of


def test_many_clips_are_written_some_at_a_time(audio_folder, tmp_path, monkeypatch):
    _, at_once = publish(tmp_path / "once", audio_folder, recipe_of(LOG_MEL))
    monkeypatch.setattr(publish_module, "_GROUP_ROWS", 5)
    monkeypatch.setattr(arrays, "_CHUNK_BYTES", 5 * 8 * 40)  # five rows of 40 bins
    _, path = publish(tmp_path / "some", audio_folder, recipe_of(LOG_MEL))
    assert FeatureSet.open(path).digest == FeatureSet.open(at_once).digest
    assert pq.ParquetFile(path / "clips.parquet").num_row_groups > 1
    assert pq.read_table(path / "clips.parquet").equals(pq.read_table(at_once / "clips.parquet"))
    for name in shard_tables.MOMENTS:
        array, whole = (zarr.open_array(p / "moments" / name) for p in (path, at_once))
        assert array.nchunks == 3
        np.testing.assert_array_equal(array[:], whole[:])
