import shutil
import sqlite3
from contextlib import closing

import pytest
from mlflow.tracking import MlflowClient

from basilar import FeatureSet
from basilar.pipeline.tracking import runs
from basilar.pipeline.tracking.location import embedded_tracking_uri
from tests.conftest import write_clips
from tests.pipeline.store.test_publish import LOG_MEL, publish, recipe_of


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    """A feature set in a root whose embedded tracker it is logged to."""
    folder = tmp_path_factory.mktemp("logged")
    audio, root = write_clips(folder / "audio"), folder / "root"
    (audio / "broken.wav").write_bytes(b"RIFF broken")
    plan, path = publish(root, audio, recipe_of(LOG_MEL))
    runs.log_run(path, plan.manifest, embedded_tracking_uri(root), folder=root / "mlflow")
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
