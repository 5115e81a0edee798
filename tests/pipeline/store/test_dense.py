import json

import numpy as np
import pytest
import zarr

from basilar.pipeline.errors import DamagedArtifactError
from basilar.pipeline.store import dense as dense_module
from basilar.pipeline.store.arrays import write_array
from basilar.pipeline.store.dense import dense, places


@pytest.mark.parametrize("dtype", ["int64", "float32", "float64"])
def test_one_plain_chunk_is_mapped(tmp_path, dtype):
    values = np.arange(1, 13).astype(dtype).reshape(4, 3)
    write_array(tmp_path / "a", values, ("clip", "bin"))
    found = dense(tmp_path / "a")
    assert found.dtype == values.dtype
    assert isinstance(found.base, np.memmap)
    np.testing.assert_array_equal(found, values)


def test_chunks_and_codecs_are_read_by_zarr(tmp_path):
    values = np.arange(12.0)
    for name, settings in (("parts", {"chunks": (5,)}), ("packed", {"compressors": "auto"})):
        array = zarr.create_array(
            tmp_path / name, shape=(12,), dtype="float64", **{"chunks": (12,), **settings}
        )
        array[:] = values
        np.testing.assert_array_equal(dense(tmp_path / name), values)


def edit(folder, **changes):
    file = folder / "zarr.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_a_header_that_says_what_cannot_be_is_damage(tmp_path, monkeypatch):
    write_array(tmp_path / "a", np.arange(12.0), ("clip",))
    edit(tmp_path / "a", data_type="complex64")
    with pytest.raises(DamagedArtifactError, match=r"its zarr\.json says what it cannot"):
        dense(tmp_path / "a")
    edit(tmp_path / "a", data_type="float64", shape=[2**40])
    with pytest.raises(DamagedArtifactError, match="are more than it holds"):
        dense(tmp_path / "a")
    monkeypatch.setattr(dense_module, "_MOST_LEFT_OUT", 0)
    edit(tmp_path / "a", shape=[-12])
    with pytest.raises(DamagedArtifactError, match="are more than it holds"):
        dense(tmp_path / "a")


def test_a_header_may_claim_just_as_much_as_may_be_left_out(tmp_path, monkeypatch):
    zarr.create_array(tmp_path / "zeros", shape=(12,), dtype="float64", chunks=(5,))
    monkeypatch.setattr(dense_module, "_MOST_LEFT_OUT", 96)
    np.testing.assert_array_equal(dense(tmp_path / "zeros"), np.zeros(12))
    monkeypatch.setattr(dense_module, "_MOST_LEFT_OUT", 95)
    with pytest.raises(DamagedArtifactError, match="are more than it holds"):
        dense(tmp_path / "zeros")


def write_places(folder, start, n_frames, dtype="int64"):
    for name, values in (("start", start), ("n_frames", n_frames)):
        write_array(folder / name, np.array(values, dtype), ("clip",))


def test_places_of_clips_lie_within_the_rows(tmp_path):
    write_places(tmp_path / "whole", [0, 5], [5, 3])
    start, frames = places(tmp_path / "whole", 2, 8)
    assert (start.tolist(), frames.tolist()) == ([0, 5], [5, 3])
    for number, (begin, count, dtype, said) in enumerate(
        [
            ([0, 6], [5, 3], "int64", "outside of its 8 rows"),
            ([-1, 5], [5, 3], "int64", "outside of its 8 rows"),
            ([0, 5], [5, -3], "int64", "outside of its 8 rows"),
            ([0, 5], [5, 2**62], "int64", "outside of its 8 rows"),
            ([0], [5], "int64", r"must be int64 \(2,\)"),
            ([0, 5], [5, 3], "float64", r"must be int64 \(2,\)"),
        ]
    ):
        write_places(tmp_path / str(number), begin, count, dtype)
        with pytest.raises(DamagedArtifactError, match=said):
            places(tmp_path / str(number), 2, 8)
