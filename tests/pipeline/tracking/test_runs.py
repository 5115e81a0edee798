import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import mlflow.store.db.utils
import pytest
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from basilar import FeatureSet
from basilar.pipeline import errors
from basilar.pipeline.manifests.manifest import Manifest
from basilar.pipeline.manifests.table import CLIP_COLUMNS
from basilar.pipeline.storage import atomic
from basilar.pipeline.tracking import fetch, runs, summary
from basilar.pipeline.tracking.location import embedded_tracking_uri

EMPTY = Manifest(Path(), CLIP_COLUMNS.empty_table())


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
    manifest = Manifest.read(Path(client.download_artifacts(run.info.run_id, "manifest.parquet")))
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


def test_a_report_that_cannot_be_drawn_is_a_warning(logged, tmp_path, monkeypatch, caplog):
    fs, client, run = logged
    file = client.download_artifacts(run.info.run_id, "manifest.parquet", str(tmp_path))
    client.delete_run(run.info.run_id)
    monkeypatch.setattr("basilar.pipeline.report.of_set.render", lambda found: 1 / 0)
    uri, folder = embedded_tracking_uri(tmp_path / "root"), tmp_path / "root" / "mlflow"
    again = runs.log_run(fs.path, Manifest.read(Path(file)), uri, folder=folder)
    assert client.get_run(again).info.status == "FINISHED"
    names = {artifact.path for artifact in client.list_artifacts(again)}
    assert "recipe.toml" in names
    assert "report.html" not in names
    (warning,) = [record.getMessage() for record in caplog.records if record.name == "basilar"]
    assert "ZeroDivisionError" in warning
    assert f"basilar report {fs.key[:12]}" in warning


def test_a_feature_set_is_logged_once(logged, tmp_path):
    fs, client, run = logged
    uri = embedded_tracking_uri(tmp_path / "root")
    again = runs.log_run(fs.path, EMPTY, uri, folder=tmp_path / "root" / "mlflow")
    assert again == run.info.run_id
    assert len(client.search_runs([run.info.experiment_id])) == 1


@pytest.mark.parametrize(("root", "patience"), [("root", 600), ("another", 0)])
def test_a_run_that_was_cut_off_is_replaced(logged, tmp_path, monkeypatch, root, patience):
    """Soon in the root's own tracker, which nobody else logs to by its lock."""
    fs, client, run = logged
    client.update_run(run.info.run_id, status="RUNNING")
    monkeypatch.setattr(runs, "_UNFINISHED_SECONDS", patience)
    uri = embedded_tracking_uri(tmp_path / "root")
    again = runs.log_run(fs.path, EMPTY, uri, folder=tmp_path / root / "mlflow")
    assert again != run.info.run_id
    assert [r.info.run_id for r in client.search_runs([run.info.experiment_id])] == [again]


def test_more_bins_than_a_request_takes_are_logged(logged, tmp_path, monkeypatch):
    fs, client, run = logged
    client.delete_run(run.info.run_id)
    monkeypatch.setattr(runs, "_AT_ONCE", 7)
    uri = embedded_tracking_uri(tmp_path / "root")
    again = runs.log_run(fs.path, EMPTY, uri, folder=tmp_path / "root" / "mlflow")
    line = client.get_metric_history(again, "per_bin/max")
    assert [point.value for point in line] == fs.stats["max"].tolist()


def test_a_tracker_that_refuses_is_named(logged, tmp_path):
    fs, _, _ = logged
    with pytest.raises(errors.TrackerError, match="nonsense://x"):
        runs.log_run(fs.path, EMPTY, "nonsense://x", folder=tmp_path / "mlflow")


@pytest.mark.parametrize("user", ["me", "me:secret", "me:s@cret"])
def test_errors_of_a_tracker_tell_no_password(logged, tmp_path, monkeypatch, user):
    fs, _, _ = logged
    uri = f"http://{user}@127.0.0.1:9"

    def fail(*_, **__):
        raise MlflowException(f"API request to {uri}/api/2.0/mlflow failed")

    for module in (runs, fetch):
        monkeypatch.setattr(module, "MlflowClient", fail)
    for ask in (
        lambda: runs.log_run(fs.path, EMPTY, uri, folder=tmp_path / "mlflow"),
        lambda: fetch.fetch_record(uri, "ab", tmp_path),
    ):
        with pytest.raises(errors.TrackerError) as raised:
            ask()
        assert "http://127.0.0.1:9: MlflowException: API request to http://127" in str(raised.value)
        assert "@" not in str(raised.value)


def test_a_run_that_another_process_is_logging_is_left_to_it(logged, tmp_path):
    fs, client, run = logged
    client.update_run(run.info.run_id, status="RUNNING")
    uri = embedded_tracking_uri(tmp_path / "root")
    with pytest.raises(errors.TrackerError, match="is being logged by another"):
        runs.log_run(fs.path, EMPTY, uri, folder=tmp_path / "another" / "mlflow")
    assert client.get_run(run.info.run_id).info.lifecycle_stage == "active"


def test_a_tracker_beside_the_roots_own_is_not_taken_for_it(logged, tmp_path):
    fs, _, run = logged
    root = tmp_path / "root"
    shutil.copy(root / "mlflow" / "mlflow.db", root / "mlflow.db")
    client = MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    client.update_run(run.info.run_id, status="RUNNING")
    with pytest.raises(errors.TrackerError, match="is being logged by another"):
        runs.log_run(fs.path, EMPTY, client.tracking_uri, folder=root / "mlflow")
    assert client.get_run(run.info.run_id).info.lifecycle_stage == "active"


def test_a_run_that_fails_half_way_leaves_nothing(logged, tmp_path, monkeypatch):
    fs, client, run = logged
    client.delete_run(run.info.run_id)

    def fail(*_):
        raise RuntimeError("half-way")

    monkeypatch.setattr(summary, "per_bin_table", fail)
    uri = embedded_tracking_uri(tmp_path / "root")
    with pytest.raises(errors.TrackerError, match="RuntimeError: half-way"):
        runs.log_run(fs.path, EMPTY, uri, folder=tmp_path / "root" / "mlflow")
    assert client.search_runs([run.info.experiment_id]) == []


def test_a_database_that_is_none_is_a_tracker_that_does_not_answer(logged, tmp_path):
    fs, _, _ = logged
    folder = tmp_path / "other" / "mlflow"
    folder.mkdir(parents=True)
    (folder / "mlflow.db").write_bytes(b"no database" * 1000)
    with pytest.raises(errors.TrackerError, match="DatabaseError"):
        runs.log_run(fs.path, EMPTY, embedded_tracking_uri(tmp_path / "other"), folder=folder)


def test_a_build_that_was_killed_while_tables_are_made_leaves_no_half_of_them(logged, tmp_path):
    fs, _, _ = logged
    folder = tmp_path / "killed" / "mlflow"
    uri = embedded_tracking_uri(folder.parent)
    if not (child := os.fork()):
        try:  # after the first tables, before they are brought up to date
            mlflow.store.db.utils._upgrade_db = lambda _: os._exit(9)
            runs.log_run(fs.path, EMPTY, uri, folder=folder)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert list(atomic.leftovers(folder.parent))
    run_id = runs.log_run(fs.path, EMPTY, uri, folder=folder)
    assert MlflowClient(uri).get_run(run_id).info.status == "FINISHED"


def test_a_moved_root_writes_where_it_is_now(logged, tmp_path):
    fs, _client, run = logged
    moved = (tmp_path / "root").rename(tmp_path / "moved")
    again = FeatureSet.open(moved / fs.path.name)
    MlflowClient(embedded_tracking_uri(moved)).delete_run(run.info.run_id)
    run_id = runs.log_run(again.path, EMPTY, embedded_tracking_uri(moved), folder=moved / "mlflow")
    assert (moved / "mlflow" / "artifacts" / run_id / "artifacts" / "recipe.toml").exists()
    assert not (tmp_path / "root").exists()


def log_training(fs, uri, folder, name="baseline 1", **changed):
    said = {"parameters": {"seed": 0}, "metrics": {"accuracy_of a:b": 0.5}} | changed
    return runs.log_training(fs.path, uri, folder=folder, name=name, **said)


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
    again = runs.log_run(fs.path, EMPTY, embedded_tracking_uri(root), folder=root / "mlflow")
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
    with pytest.raises(errors.TrackerError, match="nonsense://x"):
        log_training(fs, "nonsense://x", tmp_path / "mlflow")


def test_making_the_tables_says_nothing(tmp_path):
    """`basilar ui --json` makes them, and its output is one object."""
    database = tmp_path / "mlflow.db"
    code = (
        "import sys; from pathlib import Path\n"
        "from basilar.pipeline.tracking.runs import create_database\n"
        "create_database('sqlite:///' + sys.argv[1], Path(sys.argv[1]))"
    )
    done = subprocess.run([sys.executable, "-c", code, database], capture_output=True, check=True)
    assert (done.stdout, done.stderr, database.exists()) == (b"", b"", True)
