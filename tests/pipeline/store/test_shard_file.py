import numpy as np
import pytest

from basilar.pipeline.errors import DamagedArtifactError
from basilar.pipeline.storage.files import read_json
from basilar.pipeline.store import shard_file
from basilar.pipeline.store.layout import Layout
from basilar.pipeline.store.shard_file import ShardFile
from tests.pipeline.store.test_reader import create, noise


@pytest.fixture
def opened(tmp_path):
    """Opens the one shard file of 100 rows, mapped or not; and the rows, and the file."""
    x = noise(100, 8)
    array = create(tmp_path / "features", shape=x.shape, chunk_rows=16, shard_rows=128)
    array[...] = x
    layout = Layout.of(read_json(tmp_path / "features" / "zarr.json"))
    file = tmp_path / "features" / "c" / "0" / "0"
    return lambda mapped: ShardFile(file, layout, 0, mapped=mapped), x, file


def test_rows_are_mapped_or_read(opened):
    open_file, x, _ = opened
    assert np.array_equal(open_file(True).part(3, 7), x[3:7])
    out = np.empty((4, 8), x.dtype)
    open_file(False).read_into(out, 3 * x.itemsize * 8)
    assert np.array_equal(out, x[3:7])


@pytest.mark.parametrize("mapped", [True, False])
def test_an_index_that_changed_is_damage_that_names_the_file(opened, mapped):
    open_file, _, file = opened
    data = bytearray(file.read_bytes())
    data[-10] ^= 1
    file.write_bytes(data)
    with pytest.raises(DamagedArtifactError, match=f"{file}: .*its index changed"):
        open_file(mapped)


@pytest.mark.skipif(not shard_file._CAN_ADVISE, reason="the system takes no advice on maps")
def test_the_system_reads_ahead_only_where_blocks_follow_one_another(opened, monkeypatch):
    monkeypatch.setattr(shard_file, "_BLOCK", 1)  # a block is a row
    open_file, x, _ = opened
    file, advised = open_file(True), []

    class Map:
        def madvise(self, *advice):
            advised.append(advice)

    file._map = Map()
    for n_advised, row in enumerate([50, 20, 70, 71], start=1):
        assert np.array_equal(file.part(row, row + 1), x[row : row + 1])
        assert len(advised) == n_advised
    file.part(72, 73)  # the second in turn
    file.part(73, 74)
    assert len(advised) == 4
