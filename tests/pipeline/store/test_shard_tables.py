import pytest

from basilar.pipeline.errors import DamagedArtifactError
from basilar.pipeline.store import shard_tables
from tests.damage import flip


@pytest.mark.parametrize(
    "name", ["moments/sum/c/0/0", "clips.parquet", "zarr.json", "n_frames/c/0", "files.json"]
)
def test_a_shard_of_which_anything_is_damaged_is_not_read(shards_of, name):
    _, tables = shards_of(None)
    folder = tables[0].folder
    flip(folder / name)
    with pytest.raises(DamagedArtifactError, match=rf"{folder / name}: damaged; .*again"):
        shard_tables.read_shard(folder)
    (folder / name).unlink()
    with pytest.raises(DamagedArtifactError, match=rf"{folder / name}: it is missing; build again"):
        shard_tables.read_shard(folder)
