"""Fetch the record of a feature set from its MLflow run."""

import re
from dataclasses import replace
from pathlib import Path

from mlflow.tracking import MlflowClient

from basilar.pipeline import storage
from basilar.pipeline.errors import NoRecordError
from basilar.pipeline.records.record import Record, read_record
from basilar.pipeline.tracking.runs import EXPERIMENT, tracker_error


def fetch_record(uri: str, key: str, folder: Path) -> Record:
    """Download the record of the set whose key begins with `key` from its MLflow run.

    Raises NoRecordError, TrackerError, or DamagedArtifactError if it cannot be trusted.
    """
    store = _download(uri, key, folder)
    record = read_record(folder, "mlflow")
    return replace(record, store=store if storage.exists(store / "zarr.json") else None)


def _download(uri: str, key: str, folder: Path) -> Path:
    """Download the record that `log_run` logged, and return the path of the set's store.

    Raises NoRecordError unless one set has a key that begins with `key`; TrackerError if the
    tracker does not answer.
    """
    if not re.fullmatch("[0-9a-f]+", key):
        raise NoRecordError(
            f"{key}: it is not a key, nor the beginning of one; use digits and the letters a to f"
        )
    try:
        client = MlflowClient(tracking_uri=uri)
        experiments = client.search_experiments(filter_string=f"name LIKE '{EXPERIMENT}%'")
        runs = client.search_runs(
            [experiment.experiment_id for experiment in experiments],
            f"tags.`basilar.key` LIKE '{key}%' AND attributes.status = 'FINISHED'",
        )
        keys = sorted({run.data.tags["basilar.key"] for run in runs})
        if len(keys) != 1:
            known = (
                f"there is: {', '.join(found[:12] for found in keys)}" if keys else "there is none"
            )
            where = storage.shown(uri)
            raise NoRecordError(f"{where}: no single key of its runs begins with {key!r}; {known}")
        for name in ("feature_set.json", "manifest.parquet", "clips.parquet"):
            client.download_artifacts(runs[0].info.run_id, name, str(folder))
        return storage.place(runs[0].data.tags["basilar.path"])
    except NoRecordError:
        raise
    except Exception as error:  # as in log_run
        raise tracker_error(uri, error) from error
