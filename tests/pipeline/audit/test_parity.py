import json
import logging

import numpy as np
import pytest

from basilar import FeatureSet
from basilar.pipeline.audit import parity
from basilar.pipeline.audit.parity import Way
from basilar.pipeline.records.record import Record
from tests.pipeline.deployment.test_export import make_set

NAMES = ["pipeline", "bundle, bare", "MLflow model", "served model", "stream"]


@pytest.mark.slow
def test_all_ways_give_the_bits_that_are_stored(tmp_path, audio_folder, monkeypatch):
    monkeypatch.setenv("PATH", "/usr/bin:/bin")  # the environment need not be activated
    fs, manifest = make_set(tmp_path / "root", audio_folder)
    clips = fs.path / "clips.parquet"
    record = Record("store", fs.attributes, fs.typed_recipe, manifest, clips, fs.path)
    ways = parity.parity(record, n_clips=4)
    assert ways == [Way(name, identical=True, difference=0.0) for name in NAMES]


@pytest.fixture
def without_the_slow_ways(monkeypatch):
    """No processes: what is stored comes back from them."""

    def refuse(*_):
        raise ValueError("no server")

    monkeypatch.setattr(parity, "_bare", lambda _, clips: [np.zeros((1, 1))] * len(clips))
    for way in ("_predicted", "_served"):
        monkeypatch.setattr(parity, way, refuse)


def test_a_way_that_differs_is_named_with_the_difference(
    built, basilar, monkeypatch, without_the_slow_ways
):
    logging.getLogger("mlflow").setLevel(logging.INFO)  # as it is in a process of its own
    read = FeatureSet.read
    monkeypatch.setattr(FeatureSet, "read", lambda *of: read(*of) + np.float32(0.5))
    how = ("--root", built.root, "--clips", 2, "--json")
    code, out, err = basilar("parity", built.plan.key, *how)
    said = json.loads(out)
    assert (code, said["verdict"], err) == (1, "different", "")
    pipeline, bare, model, served, stream = (Way(**way) for way in said["ways"])
    assert not pipeline.identical
    assert 0 < pipeline.difference < 0.5  # of normalized features
    assert (bare.identical, bare.note[:12]) == (False, "shape (1, 1)")
    assert model.note == served.note == "no server"
    assert stream.cannot
    assert "cannot be streamed" in stream.note


def test_a_set_without_its_store_is_refused(root, built, basilar):
    (store,) = (root / "features").glob("*.zarr")
    store.rename(root / "gone")
    code, _, error = basilar("parity", built.plan.key, "--root", root)
    assert code == 2
    assert "to do: basilar reproduce makes it again\n" in error


def test_the_bare_process_cannot_import_what_a_bundle_does_without(tmp_path):
    clip = parity.Clip(tmp_path / "x.wav", 0.0, None)
    with pytest.raises(ValueError, match=r"FileNotFoundError: .*no bundle here"):
        parity._bare(tmp_path / "bundle", [clip])
    assert {"zarr", "mlflow", "pandas", "luigi"} <= set(parity._NOT_IN_A_BUNDLE)
