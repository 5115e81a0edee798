import json

import numpy as np
import pytest

from basilar.pipeline.errors import DamagedArtifactError
from basilar.pipeline.store import layout
from basilar.pipeline.store.layout import Layout, open_zarr
from tests.pipeline.store.test_reader import create


def parts(metadata):
    """Each place in zarr.json: what holds it, and its key or index."""
    for key in list(metadata) if isinstance(metadata, dict) else range(len(metadata)):
        yield metadata, key
        if isinstance(metadata[key], dict | list) and key != "attributes":
            yield from parts(metadata[key])


@pytest.mark.parametrize("codec", ["none", "compact"])
def test_nothing_in_the_metadata_is_passed_over(tmp_path, codec):
    folder = tmp_path / "features"
    create(folder, shape=(512, 16), chunk_rows=8, shard_rows=64, codec=codec)
    metadata = json.loads((folder / "zarr.json").read_text())
    found = Layout.of(metadata)
    free = {"attributes", "dimension_names", *layout._BLOSC_SETTINGS}
    places = [(holder, key) for holder, key in parts(metadata) if key not in free]
    names = metadata["dimension_names"]
    assert len(places) > 30
    for holder, key in places:
        if holder is names:
            continue
        kept, holder[key] = holder[key], "other"
        with pytest.raises(ValueError, match=r"^it"):
            Layout.of(metadata)
        holder[key] = kept
        if isinstance(holder, dict):
            holder["unknown"] = 1
            with pytest.raises(ValueError, match=r"^its"):
                Layout.of(metadata)
            del holder["unknown"]
    assert Layout.of(metadata) == found


def test_arrays_of_numbers_are_opened_and_no_others(tmp_path):
    folder = tmp_path / "features"
    create(folder, shape=(64, 4), chunk_rows=8, shard_rows=64)[:] = np.ones((64, 4))
    assert open_zarr(folder)[3].tolist() == [1, 1, 1, 1]
    metadata = json.loads((folder / "zarr.json").read_text())
    for name, value, problem in (
        ("codecs", [{"name": "numcodecs.pickle"}], "its codecs are not known: numcodecs.pickle"),
        ("data_type", "bool", "bool are no features"),
        ("shape", "wide", "damaged"),
    ):
        (folder / "zarr.json").write_text(json.dumps({**metadata, name: value, "fill_value": 0}))
        with pytest.raises(DamagedArtifactError, match=problem):
            open_zarr(folder)
