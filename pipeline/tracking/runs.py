"""Log feature sets and trainings to MLflow, each as one run.

The run of a feature set holds its recipe, data set, statistics and bundle. Only this room, and
`deployment.mlflow_model`, which MLflow executes, import mlflow. Before a run is made, its tag is
searched for, so that nothing is logged twice. A tracker that does not answer costs seconds: retries
are bounded, and TrackerError is raised.
"""

import contextlib
import json
import logging
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock
from mlflow.entities import (
    Dataset,
    DatasetInput,
    InputTag,
    Metric,
    Param,
    RunTag,
)
from mlflow.tracking import MlflowClient

from basilar.pipeline import storage
from basilar.pipeline.errors import TrackerError
from basilar.pipeline.manifests.manifest import Manifest
from basilar.pipeline.recipes.recipe import Recipe
from basilar.pipeline.storage import atomic, files
from basilar.pipeline.tracking.location import DATABASE, is_embedded
from basilar.pipeline.tracking.model import log_model, quieten, register
from basilar.pipeline.tracking.summary import (
    description,
    metric_name,
    metrics,
    parameters,
    per_bin_metrics,
    per_bin_table,
)
from basilar.pipeline.training.feature_set import FeatureSet

EXPERIMENT = "basilar"
Step = Callable[[MlflowClient, str], None]  # an action on a run, given by its id
_AT_ONCE = 1000  # metrics that MLflow takes in one request
_HEARD_SECONDS = 3600.0  # of audio that is measured for the report of a run
_UNFINISHED_SECONDS = 600  # an unfinished run that is older was cut off


def log_run(
    store: Path,
    manifest: Manifest,
    uri: str,
    *,
    folder: Path,
    register_as: str = "",
    built: dict[str, Any] | None = None,
) -> str:
    """Log a published feature set to the tracker at `uri` and return its run id.

    The complete recipe and manifest are logged: the set can be rebuilt from its run alone. Its
    bundle is logged as a model, which is also registered if `register_as` is NAME or NAME@ALIAS.
    `folder` is ROOT/mlflow: it holds the lock, and the artifacts of the root's own tracker
    (`tracking.location.embedded_tracking_uri(ROOT)`). `built` is the record of the build for the
    report (`build.registry.recorded`). Raises TrackerError if the tracker does not answer or
    refuses.
    """
    fs = FeatureSet.open(store)
    recipe = fs.typed_recipe
    name = f"{recipe.name or 'feature set'} {fs.key[:12]}"
    fill = partial(_fill, fs=fs, recipe=recipe, manifest=manifest, built=built)
    then = partial(register, register_as=register_as) if register_as else None
    tag = RunTag("basilar.key", fs.key)
    return _log_once(uri, folder, name=name, tag=tag, fill=fill, then=then)


def log_training(
    store: Path,
    uri: str,
    *,
    folder: Path,
    name: str,
    parameters: Mapping[str, object],
    metrics: Mapping[str, float],
) -> str:
    """Log the results of training on a feature set as a separate run, and return its id.

    The run's tag `basilar.feature_set` is the key, which is the tag `basilar.key` of the feature
    set's own run; the feature set is also the run's input. `name` identifies the training: a name
    is logged only once. For the other parameters see `log_run`.
    """
    fs = FeatureSet.open(store)
    tag = RunTag("basilar.training", name)

    def fill(client: MlflowClient, run_id: str) -> None:
        client.log_batch(
            run_id,
            params=[Param(key, str(value)) for key, value in parameters.items()],
            metrics=[Metric(metric_name(key), value, 0, 0) for key, value in metrics.items()],
            tags=[
                tag,
                RunTag("basilar.feature_set", fs.key),
                RunTag("basilar.recipe_hash", fs.attributes["recipe_hash"]),
                RunTag("basilar.digest", fs.digest),
            ],
        )
        _log_input(client, run_id, fs, context="training")

    return _log_once(uri, folder, name=name, tag=tag, fill=fill)


def _log_once(
    uri: str, folder: Path, *, name: str, tag: RunTag, fill: Step, then: Step | None = None
) -> str:
    """The id of the finished run that has `tag`, or of a new one, which `fill` fills and tags.

    `then` is called in either case. Raises TrackerError.
    """
    quieten()
    embedded = is_embedded(uri, folder.parent)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        # Two processes that create one SQLite database corrupt it; two loggers would log twice.
        with FileLock(folder / ".lock"):
            if embedded:
                create_database(uri, folder / DATABASE)
            client = MlflowClient(tracking_uri=uri, registry_uri=uri)
            experiment = _experiment(client, (folder / "artifacts") if embedded else None)
            # All who log to the embedded tracker hold this lock, so an unfinished run was cut off.
            patience = 0 if embedded else _UNFINISHED_SECONDS
            run_id = _finished(client, experiment, tag, patience) or _log(
                client, experiment, name, fill
            )
            if then is not None:
                then(client, run_id)
            return run_id
    except TrackerError:
        raise
    except Exception as error:
        # MLflow, its database and its transports raise errors of many types. The feature set is on
        # disk in any case, so none of them may fail a build.
        raise tracker_error(uri, error) from error


def create_database(uri: str, database: Path) -> None:
    """Create the root's own tracker, whose lock is held, if it is missing.

    MLflow makes its tables one by one and cannot continue where it was killed among them. So they
    are made in a temporary file, which becomes the database when all are there.
    """
    if not database.exists():
        quieten()
        with atomic.replacing(database) as temporary:
            made = MlflowClient(tracking_uri=uri.removesuffix(database.name) + temporary.name)
            made.search_experiments(max_results=1)


def tracker_error(uri: str, error: Exception) -> TrackerError:
    """A TrackerError with the first line of an error: a database adds its whole statement."""
    where, said = storage.shown(uri), storage.shown(str(error).split("\n")[0])
    return TrackerError(
        f"{where}: {type(error).__name__}: {said}; start it, or name another tracker"
    )


def _finished(client: MlflowClient, experiment: str, tag: RunTag, patience: float) -> str | None:
    """The id of the finished run that has `tag`, or None.

    A run that was not finished within `patience` seconds was cut off, and is deleted.
    """
    for run in client.search_runs([experiment], f"tags.`{tag.key}` = '{tag.value}'"):
        if run.info.status == "FINISHED":
            return str(run.info.run_id)
        if time.time() - run.info.start_time / 1000 < patience:
            raise TrackerError(
                f"run {run.info.run_id}: it is being logged by another process; wait for it"
            )
        client.delete_run(run.info.run_id)
    return None


def _experiment(client: MlflowClient, location: Path | None) -> str:
    """The experiment's id; `location` is the folder of artifacts of the root's own tracker."""
    where = None if location is None else location.absolute().as_uri()
    found = client.get_experiment_by_name(EXPERIMENT)
    if found is not None and where in (None, found.artifact_location):
        return str(found.experiment_id)
    if found is not None:  # the root was moved; this experiment still writes to its old place
        name = f"{EXPERIMENT} until {time.strftime('%Y-%m-%d %H:%M:%S')}"
        client.rename_experiment(found.experiment_id, name)
    return str(client.create_experiment(EXPERIMENT, artifact_location=where))


def _log(client: MlflowClient, experiment: str, name: str, fill: Step) -> str:
    """Make and fill a new run; if that fails, delete it."""
    run_id = str(client.create_run(experiment, run_name=name).info.run_id)
    try:
        fill(client, run_id)
        client.set_terminated(run_id, "FINISHED")
    except BaseException:
        with contextlib.suppress(Exception):
            client.delete_run(run_id)
        raise
    return run_id


def _fill(
    client: MlflowClient,
    run_id: str,
    fs: FeatureSet,
    recipe: Recipe,
    manifest: Manifest,
    built: dict[str, Any] | None,
) -> None:
    attributes = fs.attributes
    tags = {name: attributes[name] for name in ("key", "recipe_hash", "digest", "manifest_hash")}
    client.log_batch(
        run_id,
        params=[Param(name, value) for name, value in parameters(recipe).items()],
        metrics=[Metric(name, value, 0, 0) for name, value in metrics(fs).items()],
        tags=[RunTag(f"basilar.{name}", value) for name, value in tags.items()]
        + [
            RunTag("basilar.path", storage.name(fs.path)),
            RunTag("mlflow.note.content", description(fs)),
        ],
    )
    bins = per_bin_metrics(fs)
    for first in range(0, len(bins), _AT_ONCE):
        client.log_batch(run_id, metrics=bins[first : first + _AT_ONCE])
    _log_input(client, run_id, fs, context="features")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "recipe.toml").write_text(recipe.to_toml(), "utf-8")
        files.write_json(folder / "feature_set.json", attributes)
        manifest.write(folder / "manifest.parquet")
        atomic.link(fs.path / "clips.parquet", folder / "clips.parquet")
        fs.quarantine.to_csv(folder / "quarantine.csv", index=False)
        _write_report(folder / "report.html", fs, manifest, built)
        client.log_artifacts(run_id, str(folder))
    client.log_table(run_id, per_bin_table(fs), artifact_file="statistics_per_bin.json")
    log_model(client, run_id, fs, manifest)


def _write_report(
    file: Path, fs: FeatureSet, manifest: Manifest, built: dict[str, Any] | None
) -> None:
    """Write the report of a feature set; if this fails, warn."""
    try:
        from basilar.pipeline.report import of_set
        from basilar.pipeline.report.collect import collect

        found = collect(fs, manifest, built=built, seconds=_HEARD_SECONDS)
        file.write_text(of_set.render(found), "utf-8")
    except Exception as error:  # of any type: a report must not cost the run
        logging.getLogger("basilar").warning(
            "no report of %s in its MLflow run (%s: %s); to draw it: basilar report %s --root ROOT "
            "-o report.html",
            fs.key[:12],
            type(error).__name__,
            error,
            fs.key[:12],
        )


def _log_input(client: MlflowClient, run_id: str, fs: FeatureSet, *, context: str) -> None:
    """Log a feature set as the data set of a run."""
    dataset = Dataset(
        name=fs.recipe.get("name") or "feature set",
        digest=fs.digest,
        source_type="local",
        source=json.dumps({"uri": storage.name(fs.path)}),
        profile=json.dumps({"clips": len(fs), "frames": fs.attributes["frames"]}),
    )
    tags = [InputTag("mlflow.data.context", context)]
    client.log_inputs(run_id, datasets=[DatasetInput(dataset, tags)])
