import json
import shutil
import sqlite3
from contextlib import closing
from importlib.metadata import version
from pathlib import Path

import pytest

from pipeline import Bundle, FeatureSet
from pipeline.build import embedded_tracking_uri
from pipeline.manifest import SCHEMA, Manifest, read_manifest
from pipeline.recover import NoRecordError
from tests.conftest import write_clips
from tests.pipeline.test_store import LOG_MEL, publish, recipe_of

EMPTY = Manifest(Path(), SCHEMA.empty_table())


@pytest.fixture(autouse=True, scope="module")
def _mlflow():
    """Imported when the first of these tests runs: it takes seconds, and makes every fork dear."""
    global Model, MlflowClient, MlflowException, mlflow, tracking
    import mlflow
    from mlflow.exceptions import MlflowException
    from mlflow.models import Model
    from mlflow.tracking import MlflowClient

    from pipeline import tracking


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A feature set in a root whose embedded tracker it is logged to."""
    folder = tmp_path_factory.mktemp("logged")
    audio, root = write_clips(folder / "audio"), folder / "root"
    (audio / "broken.wav").write_bytes(b"RIFF broken")
    plan, path = publish(root, audio, recipe_of(LOG_MEL))
    tracking.log_run(path, plan.manifest, embedded_tracking_uri(root), folder=root / "mlflow")
    return path


@pytest.fixture
def logged(store, tmp_path):
    """Its own copy of that root for a test: (feature set, client, run)."""
    root = shutil.copytree(store.parent, tmp_path / "root")
    with closing(sqlite3.connect(root / "mlflow" / "mlflow.db")) as database, database:
        for place in ("experiments.artifact_location", "runs.artifact_uri"):
            table, column = place.split(".")
            new = f"replace({column}, '{store.parent}', '{root}')"
            database.execute(f"UPDATE {table} SET {column} = {new}")
    client = MlflowClient(embedded_tracking_uri(root))
    (run,) = client.search_runs([client.get_experiment_by_name("basilar").experiment_id])
    return FeatureSet.open(root / store.name), client, run


def test_a_run_holds_recipe_statistics_hashes_and_data_set(logged, store, tmp_path):
    fs, client, run = logged
    assert client.get_experiment(run.info.experiment_id).name == "basilar"
    assert run.info.status == "FINISHED"
    assert run.data.params["representation.n_mels"] == "40"
    assert run.data.params["resample.sample_rate"] == "8000"
    tags = {k: v for k, v in run.data.tags.items() if k.startswith("basilar.")}
    assert tags == {
        "basilar.key": fs.key,
        "basilar.digest": fs.digest,
        "basilar.recipe_hash": fs.attributes["recipe_hash"],
        "basilar.manifest_hash": fs.attributes["manifest_hash"],
        "basilar.path": str(store),
    }
    metrics = run.data.metrics
    assert (metrics["clips"], metrics["quarantined"], metrics["clips_train"]) == (12, 1, 12)
    assert metrics["frames"] == fs.attributes["frames"]
    assert metrics["bytes"] > metrics["frames"] * 160
    assert metrics["hours"] == pytest.approx(fs.clips["duration"].sum() / 3600)
    assert metrics["mean"] == pytest.approx(fs.stats["mean"].mean())
    assert metrics["min"] == fs.stats["min"].min()
    assert {"seconds_decode", "seconds_resample", "seconds_representation"} <= metrics.keys()
    (dataset,) = run.inputs.dataset_inputs
    assert dataset.dataset.digest == fs.digest
    names = {artifact.path for artifact in client.list_artifacts(run.info.run_id)}
    assert names == {
        "recipe.toml",
        "feature_set.json",
        "quarantine.csv",
        "manifest.parquet",
        "clips.parquet",
        "statistics_per_bin.json",
        "report.html",
    }
    page = Path(client.download_artifacts(run.info.run_id, "report.html")).read_text("utf-8")
    assert fs.digest in page
    assert "1 of 13 clips could not be used" in page
    manifest = read_manifest(Path(client.download_artifacts(run.info.run_id, "manifest.parquet")))
    assert manifest.hash == fs.attributes["manifest_hash"]
    assert (manifest.root / "broken.wav").exists()
    table = client.download_artifacts(run.info.run_id, "statistics_per_bin.json", str(tmp_path))
    content = json.loads(Path(table).read_text())
    assert content["columns"] == ["bin", "mean", "std", "min", "max"]
    assert len(content["data"]) == 40
    for name in ("mean", "std", "min", "max"):  # lines over the bins, on MLflow's page
        line = client.get_metric_history(run.info.run_id, f"per_bin/{name}")
        assert [point.step for point in line] == list(range(40))
        assert [point.value for point in line] == fs.stats[name].tolist()
    note = run.data.tags["mlflow.note.content"]
    assert note.startswith(f"12 clips, 0.00 h, as {fs.attributes['frames']} frames of 40 bins of ")
    assert "`log_mel` at 8000 Hz; 1 quarantined." in note


def model_of(client, run):
    (output,) = client.get_run(run.info.run_id).outputs.model_outputs
    return client.get_logged_model(output.model_id)


def test_a_report_that_cannot_be_drawn_is_a_warning(logged, tmp_path, monkeypatch, caplog):
    fs, client, run = logged
    file = client.download_artifacts(run.info.run_id, "manifest.parquet", str(tmp_path))
    client.delete_run(run.info.run_id)
    monkeypatch.setattr("pipeline.report.of_set.render", lambda found: 1 / 0)
    uri, folder = embedded_tracking_uri(tmp_path / "root"), tmp_path / "root" / "mlflow"
    again = tracking.log_run(fs.path, read_manifest(Path(file)), uri, folder=folder)
    assert client.get_run(again).info.status == "FINISHED"
    names = {artifact.path for artifact in client.list_artifacts(again)}
    assert "recipe.toml" in names
    assert "report.html" not in names
    (warning,) = [record.getMessage() for record in caplog.records if record.name == "basilar"]
    assert "ZeroDivisionError" in warning
    assert f"basilar report {fs.key[:12]}" in warning


def test_its_bundle_is_logged_as_a_model_without_pickle(logged, tmp_path):
    fs, client, run = logged
    model = model_of(client, run)
    assert (model.status, model.source_run_id) == ("READY", run.info.run_id)
    assert model.tags["basilar.key"] == fs.key
    assert model.params == run.data.params
    folder = Path(model.artifact_location.removeprefix("file://"))
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert {"MLmodel", "served.py", "artifacts/bundle/bundle.json"} <= names
    assert not {name for name in names if name.endswith((".pkl", ".pickle", ".pyc"))}
    source = Path(tracking.__file__).with_name("served.py")
    assert (folder / "served.py").read_bytes() == source.read_bytes()
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
        again = tracking.log_run(fs.path, EMPTY, uri, folder=folder, register_as=register_as)
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

    monkeypatch.setattr(tracking, "save_model", fail)
    uri = embedded_tracking_uri(tmp_path / "root")
    with pytest.raises(tracking.TrackerError, match="RuntimeError: half-way"):
        tracking.log_run(fs.path, EMPTY, uri, folder=tmp_path / "root" / "mlflow")
    assert client.search_runs([run.info.experiment_id]) == []
    assert len(client.search_logged_models([run.info.experiment_id])) == before


def test_a_feature_set_is_logged_once(logged, tmp_path):
    fs, client, run = logged
    uri = embedded_tracking_uri(tmp_path / "root")
    again = tracking.log_run(fs.path, EMPTY, uri, folder=tmp_path / "root" / "mlflow")
    assert again == run.info.run_id
    assert len(client.search_runs([run.info.experiment_id])) == 1


@pytest.mark.parametrize(("root", "patience"), [("root", 600), ("another", 0)])
def test_a_run_that_was_cut_off_is_replaced(logged, tmp_path, monkeypatch, root, patience):
    """Soon in the root's own tracker, which nobody else logs to by its lock."""
    fs, client, run = logged
    client.update_run(run.info.run_id, status="RUNNING")
    monkeypatch.setattr(tracking, "_UNFINISHED_SECONDS", patience)
    uri = embedded_tracking_uri(tmp_path / "root")
    again = tracking.log_run(fs.path, EMPTY, uri, folder=tmp_path / root / "mlflow")
    assert again != run.info.run_id
    assert [r.info.run_id for r in client.search_runs([run.info.experiment_id])] == [again]


def test_names_of_splits_become_names_of_metrics(logged):
    fs, _, _ = logged
    fs.clips["split"] = "hold out: 1"
    assert tracking.metrics(fs)["clips_hold_out__1"] == 12


def test_more_bins_than_a_request_takes_are_logged(logged, tmp_path, monkeypatch):
    fs, client, run = logged
    client.delete_run(run.info.run_id)
    monkeypatch.setattr(tracking, "_AT_ONCE", 7)
    uri = embedded_tracking_uri(tmp_path / "root")
    again = tracking.log_run(fs.path, EMPTY, uri, folder=tmp_path / "root" / "mlflow")
    line = client.get_metric_history(again, "per_bin/max")
    assert [point.value for point in line] == fs.stats["max"].tolist()


def test_a_tracker_that_refuses_is_named(logged, tmp_path):
    fs, _, _ = logged
    with pytest.raises(tracking.TrackerError, match="nonsense://x"):
        tracking.log_run(fs.path, EMPTY, "nonsense://x", folder=tmp_path / "mlflow")


@pytest.mark.parametrize("user", ["me", "me:secret", "me:s@cret"])
def test_errors_of_a_tracker_tell_no_password(logged, tmp_path, monkeypatch, user):
    fs, _, _ = logged
    uri = f"http://{user}@127.0.0.1:9"

    def fail(*_, **__):
        raise MlflowException(f"API request to {uri}/api/2.0/mlflow failed")

    monkeypatch.setattr(tracking, "MlflowClient", fail)
    for ask in (
        lambda: tracking.log_run(fs.path, EMPTY, uri, folder=tmp_path / "mlflow"),
        lambda: tracking.fetch_run(uri, "ab", tmp_path),
    ):
        with pytest.raises(tracking.TrackerError) as raised:
            ask()
        assert "http://127.0.0.1:9: MlflowException: API request to http://127" in str(raised.value)
        assert "@" not in str(raised.value)


def test_a_run_that_another_process_is_logging_is_left_to_it(logged, tmp_path):
    fs, client, run = logged
    client.update_run(run.info.run_id, status="RUNNING")
    uri = embedded_tracking_uri(tmp_path / "root")
    with pytest.raises(tracking.TrackerError, match="is being logged by another"):
        tracking.log_run(fs.path, EMPTY, uri, folder=tmp_path / "another" / "mlflow")
    assert client.get_run(run.info.run_id).info.lifecycle_stage == "active"


def test_a_tracker_beside_the_roots_own_is_not_taken_for_it(logged, tmp_path):
    fs, _, run = logged
    root = tmp_path / "root"
    shutil.copy(root / "mlflow" / "mlflow.db", root / "mlflow.db")
    client = MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    client.update_run(run.info.run_id, status="RUNNING")
    with pytest.raises(tracking.TrackerError, match="is being logged by another"):
        tracking.log_run(fs.path, EMPTY, client.tracking_uri, folder=root / "mlflow")
    assert client.get_run(run.info.run_id).info.lifecycle_stage == "active"


def test_a_run_that_fails_half_way_leaves_nothing(logged, tmp_path, monkeypatch):
    fs, client, run = logged
    client.delete_run(run.info.run_id)

    def fail(*_):
        raise RuntimeError("half-way")

    monkeypatch.setattr(tracking, "per_bin_table", fail)
    uri = embedded_tracking_uri(tmp_path / "root")
    with pytest.raises(tracking.TrackerError, match="RuntimeError: half-way"):
        tracking.log_run(fs.path, EMPTY, uri, folder=tmp_path / "root" / "mlflow")
    assert client.search_runs([run.info.experiment_id]) == []


def test_a_database_that_is_none_is_a_tracker_that_does_not_answer(logged, tmp_path):
    fs, _, _ = logged
    folder = tmp_path / "other" / "mlflow"
    folder.mkdir(parents=True)
    (folder / "mlflow.db").write_bytes(b"no database" * 1000)
    with pytest.raises(tracking.TrackerError, match="DatabaseError"):
        tracking.log_run(fs.path, EMPTY, embedded_tracking_uri(tmp_path / "other"), folder=folder)


@pytest.mark.parametrize("name", ["r#x", "r x", "ré", "r&a=b;c", "r:y@z"])
def test_roots_of_any_name_hold_their_own_tracker(logged, tmp_path, name):
    fs, _, _ = logged
    root = tmp_path / name
    run_id = tracking.log_run(fs.path, EMPTY, embedded_tracking_uri(root), folder=root / "mlflow")
    assert (root / "mlflow" / "mlflow.db").stat().st_size > 0
    assert (root / "mlflow" / "artifacts" / run_id / "artifacts" / "recipe.toml").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"root", name}


@pytest.mark.parametrize("name", ["r?q=1", "r%20x"])
def test_roots_that_a_uri_cannot_name_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match=r"with \? or % in its name; take another root"):
        embedded_tracking_uri(tmp_path / name)


def test_a_moved_root_writes_where_it_is_now(logged, tmp_path):
    fs, _client, run = logged
    moved = (tmp_path / "root").rename(tmp_path / "moved")
    again = FeatureSet.open(moved / fs.path.name)
    MlflowClient(embedded_tracking_uri(moved)).delete_run(run.info.run_id)
    run_id = tracking.log_run(
        again.path, EMPTY, embedded_tracking_uri(moved), folder=moved / "mlflow"
    )
    assert (moved / "mlflow" / "artifacts" / run_id / "artifacts" / "recipe.toml").exists()
    assert not (tmp_path / "root").exists()


def log_training(fs, uri, folder, name="baseline 1", **changed):
    said = {"parameters": {"seed": 0}, "metrics": {"accuracy_of a:b": 0.5}} | changed
    return tracking.log_training(fs.path, uri, folder=folder, name=name, **said)


def test_a_training_is_a_run_that_names_its_feature_set(logged, tmp_path):
    fs, client, run = logged
    root = tmp_path / "root"
    run_id = log_training(fs, embedded_tracking_uri(root), root / "mlflow")
    assert run_id != run.info.run_id
    training = client.get_run(run_id)
    assert training.info.experiment_id == run.info.experiment_id
    assert (training.info.status, training.info.run_name) == ("FINISHED", "baseline 1")
    assert training.data.params == {"seed": "0"}
    assert training.data.metrics == {"accuracy_of_a_b": 0.5}
    assert training.data.tags["basilar.feature_set"] == run.data.tags["basilar.key"]
    assert "basilar.key" not in training.data.tags  # it is not the run of the feature set
    assert training.inputs.dataset_inputs[0].dataset.digest == fs.digest
    again = tracking.log_run(fs.path, EMPTY, embedded_tracking_uri(root), folder=root / "mlflow")
    assert again == run.info.run_id


def test_a_training_is_logged_once(logged, tmp_path):
    fs, _, _ = logged
    root = tmp_path / "root"
    uri, folder = embedded_tracking_uri(root), root / "mlflow"
    first = log_training(fs, uri, folder)
    assert log_training(fs, uri, folder) == first
    assert log_training(fs, uri, folder, name="baseline 2") != first


def test_a_tracker_that_refuses_a_training_is_named(logged, tmp_path):
    fs, _, _ = logged
    with pytest.raises(tracking.TrackerError, match="nonsense://x"):
        log_training(fs, "nonsense://x", tmp_path / "mlflow")


def test_a_run_is_fetched_by_the_beginning_of_its_key(logged, store, tmp_path):
    fs, client, run = logged
    uri = embedded_tracking_uri(tmp_path / "root")
    folder = tmp_path / "run"
    assert tracking.fetch_run(uri, fs.key[:5], folder) == store
    assert json.loads((folder / "feature_set.json").read_text()) == fs.attributes
    assert read_manifest(folder / "manifest.parquet").hash == fs.attributes["manifest_hash"]
    assert (folder / "clips.parquet").read_bytes() == (fs.path / "clips.parquet").read_bytes()
    other = client.create_run(run.info.experiment_id, tags={"basilar.key": fs.key[:5] + "x"})
    tracking.fetch_run(uri, fs.key[:5], folder)  # what is not finished is not there
    client.set_terminated(other.info.run_id, "FINISHED")
    with pytest.raises(NoRecordError, match=f"begins with '{fs.key[:5]}'; there is: {fs.key[:5]}"):
        tracking.fetch_run(uri, fs.key[:5], folder)
