"""The record of a feature set, from its MLflow run."""

import re
from dataclasses import replace
from pathlib import Path

from mlflow.tracking import MlflowClient

from basilar.pipeline import storage
from basilar.pipeline.errors import NoRecordError
from basilar.pipeline.records.record import Record, read_record
from basilar.pipeline.tracking.runs import EXPERIMENT, tracker_error


def fetch_record(uri: str, key: str, folder: Path) -> Record:
    """The record in the MLflow run of a key, or of its beginning, downloaded into a folder.

    Raises NoRecordError, TrackerError, or DamagedArtifactError if it is not to be believed.
    """
    store = _download(uri, key, folder)
    record = read_record(folder, "mlflow")
    return replace(record, store=store if storage.exists(store / "zarr.json") else None)


def _download(uri: str, key: str, folder: Path) -> Path:
    """Download what `log_run` logged of the set whose key begins with `key` into a folder.

    Returns where its store was. Raises NoRecordError if no set has this key, or several have;
    TrackerError if the tracker does not answer.
    """
    if not re.fullmatch("[0-9a-f]+", key):
        raise NoRecordError(
            f"{key}: it is no key, nor the beginning of one; name digits and a to f"
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
            raise NoRecordError(f"{where}: not one key of its runs begins with {key!r}; {known}")
        for name in ("feature_set.json", "manifest.parquet", "clips.parquet"):
            client.download_artifacts(runs[0].info.run_id, name, str(folder))
        return storage.place(runs[0].data.tags["basilar.path"])
    except NoRecordError:
        raise
    except Exception as error:  # as in log_run
        raise tracker_error(uri, error) from error
