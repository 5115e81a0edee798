import json

import pytest

from basilar.pipeline.errors import NoRecordError
from basilar.pipeline.manifests.manifest import Manifest
from basilar.pipeline.tracking import fetch
from basilar.pipeline.tracking.location import embedded_tracking_uri


def test_a_run_is_fetched_by_the_beginning_of_its_key(logged, store, tmp_path):
    fs, client, run = logged
    uri = embedded_tracking_uri(tmp_path / "root")
    folder = tmp_path / "run"
    assert fetch.fetch_record(uri, fs.key[:5], folder).store == store
    assert json.loads((folder / "feature_set.json").read_text()) == fs.attributes
    assert Manifest.read(folder / "manifest.parquet").hash == fs.attributes["manifest_hash"]
    assert (folder / "clips.parquet").read_bytes() == (fs.path / "clips.parquet").read_bytes()
    other = client.create_run(run.info.experiment_id, tags={"basilar.key": fs.key[:5] + "x"})
    fetch.fetch_record(uri, fs.key[:5], folder)  # what is not finished is not there
    client.set_terminated(other.info.run_id, "FINISHED")
    with pytest.raises(NoRecordError, match=f"begins with '{fs.key[:5]}'; there is: {fs.key[:5]}"):
        fetch.fetch_record(uri, fs.key[:5], folder)
