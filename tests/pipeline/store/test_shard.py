import numpy as np
import pytest
import zarr

from basilar.pipeline.compute import stages
from basilar.pipeline.hashing import values_hash
from basilar.pipeline.store.shard import write_shard
from tests.pipeline.store.test_publish import recipe_of


def write_arrays(folder, arrays, recipe):
    """A shard of given features."""

    def make(put):
        for x in arrays:
            put(x)
        n = len(arrays)
        return stages.Represented(
            clips=[
                stages.ClipFeatures(f"{i:064x}", values_hash(x), 8000, 1, 0, 0)
                for i, x in enumerate(arrays)
            ],
            moments=np.zeros((n, 4, arrays[0].shape[1])),
            quarantined=[],
            seconds={},
        )

    class AnyShard:
        keys = {"representation": "key"}  # noqa: RUF012  # read once

    write_shard(folder, make, recipe=recipe, shard=AnyShard)
    return zarr.open_group(folder, mode="r")


@pytest.mark.parametrize("codec", ["none", "compact", "archive"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "complex64"])
def test_every_value_comes_back_also_zeros_and_clips_longer_than_a_file(tmp_path, codec, dtype):
    kind = {"kind": "stft"} if dtype == "complex64" else {"kind": "magnitude", "dtype": dtype}
    recipe = recipe_of({**kind, "n_fft": 1022, "hop_length": 511}, codec=codec)
    rng = np.random.default_rng(0)
    lengths = (3, 700, 1, 300, 5)
    arrays = [rng.standard_normal((n, 512)).astype(dtype) for n in lengths]
    arrays[3][:] = 0  # a chunk of zeros must not be left out as if it were unused
    group = write_arrays(tmp_path / "shard", arrays, recipe)
    starts = np.asarray(group["start"])
    for start, x in zip(starts, arrays, strict=True):
        assert group["features"][start : start + len(x)].tobytes() == x.tobytes()
    used = np.zeros(group["features"].shape[0], bool)
    for start, x in zip(starts, arrays, strict=True):
        used[start : start + len(x)] = True
    assert np.isnan(group["features"][:][~used]).all()


def test_an_uncompressed_shard_file_is_the_array_itself_and_then_its_index(tmp_path):
    recipe = recipe_of({"kind": "magnitude", "n_fft": 1022, "hop_length": 511})
    x = np.random.default_rng(0).standard_normal((100, 512)).astype(np.float32)
    x[10:50] = 0
    group = write_arrays(tmp_path / "shard", [x], recipe)
    data = (tmp_path / "shard" / "features" / "c" / "0" / "0").read_bytes()
    n_chunks = group["features"].shards[0] // group["features"].chunks[0]
    assert data[: x.nbytes] == x.tobytes()
    assert len(data) == x.nbytes + 16 * n_chunks + 4
