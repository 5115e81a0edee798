from importlib.metadata import version
from pathlib import Path

import mlflow
import pytest
from mlflow.models import Model

from basilar import Bundle
from basilar.pipeline import errors
from basilar.pipeline.deployment import mlflow_model
from basilar.pipeline.tracking import model, runs
from basilar.pipeline.tracking.location import embedded_tracking_uri
from tests.pipeline.tracking.test_runs import EMPTY

CODE = Path(mlflow_model.__file__)


def model_of(client, run):
    (output,) = client.get_run(run.info.run_id).outputs.model_outputs
    return client.get_logged_model(output.model_id)


def test_its_bundle_is_logged_as_a_model_without_pickle(logged, tmp_path):
    fs, client, run = logged
    model = model_of(client, run)
    assert (model.status, model.source_run_id) == ("READY", run.info.run_id)
    assert model.tags["basilar.key"] == fs.key
    assert model.params == run.data.params
    folder = Path(model.artifact_location.removeprefix("file://"))
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert {"MLmodel", "mlflow_model.py", "artifacts/bundle/bundle.json"} <= names
    assert not {name for name in names if name.endswith((".pkl", ".pickle", ".pyc"))}
    assert (folder / "mlflow_model.py").read_bytes() == CODE.read_bytes()
    assert Bundle.load(folder / "artifacts" / "bundle").key == fs.key
    described = Model.load(folder)
    assert described.metadata == {"basilar.key": fs.key, "basilar.digest": fs.digest}
    assert described.signature.outputs.inputs[0].shape == (-1, -1, 40)
    assert {column.name for column in described.signature.inputs.inputs} == {
        *("audio", "samples", "sample_rate"),
    }
    needs = (folder / "requirements.txt").read_text().split()
    assert f"soxr=={version('soxr')}" in needs
    assert client.search_registered_models() == []
    assert mlflow.active_run() is None
    assert str(tmp_path) not in mlflow.get_tracking_uri()
    assert not Path("mlruns").exists()


def test_a_model_is_registered_when_asked_and_once(logged, tmp_path):
    fs, client, run = logged
    uri, folder = embedded_tracking_uri(tmp_path / "root"), tmp_path / "root" / "mlflow"
    for register_as in ("birds", "birds@champion", "birds@champion"):
        again = runs.log_run(fs.path, EMPTY, uri, folder=folder, register_as=register_as)
        assert again == run.info.run_id
    (registered,) = client.search_model_versions("name = 'birds'")
    assert registered.source == model_of(client, run).artifact_location
    assert registered.run_id == run.info.run_id
    assert client.get_model_version_by_alias("birds", "champion").version == registered.version


def test_a_model_that_cannot_be_logged_leaves_nothing(logged, tmp_path, monkeypatch):
    fs, client, run = logged
    client.delete_run(run.info.run_id)
    before = len(client.search_logged_models([run.info.experiment_id]))

    def fail(*_):
        raise RuntimeError("half-way")

    monkeypatch.setattr(model, "save_model", fail)
    uri = embedded_tracking_uri(tmp_path / "root")
    with pytest.raises(errors.TrackerError, match="RuntimeError: half-way"):
        runs.log_run(fs.path, EMPTY, uri, folder=tmp_path / "root" / "mlflow")
    assert client.search_runs([run.info.experiment_id]) == []
    assert len(client.search_logged_models([run.info.experiment_id])) == before
