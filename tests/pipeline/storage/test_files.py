import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from basilar.pipeline.storage import files
from tests.damage import flip


def test_a_bit_flipped_in_a_table_is_found_when_it_is_read(tmp_path):
    table = pa.table({"number": np.random.default_rng(0).integers(0, 2**60, 1000)})
    pq.write_table(table, tmp_path / "t.parquet", write_page_checksum=True)
    assert files.read_table(tmp_path / "t.parquet").equals(table)
    flip(tmp_path / "t.parquet", 0.4)
    with pytest.raises(OSError, match="CRC"):
        files.read_table(tmp_path / "t.parquet")
