"""MLflow: one run a feature set, with recipe, data set, statistics and bundle; one a training.

Only this module, and `pipeline.deployment.mlflow_model`, which MLflow runs, import mlflow. A run is looked for by
its tag before it is made, so that nothing has two. A tracker that does not answer costs seconds:
retries are bounded, and TrackerError is raised.
"""

import base64
import contextlib
import json
import logging
import os
import re
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

# Before mlflow is imported: no telemetry, whole values, no minutes of retries, and no chatter.
for _name, _value in {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_TRUNCATE_LONG_VALUES": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}.items():
    os.environ.setdefault(_name, _value)

import numpy as np
import pandas as pd
from filelock import FileLock
from mlflow import pyfunc
from mlflow.entities import (
    Dataset,
    DatasetInput,
    InputTag,
    LoggedModelOutput,
    Metric,
    Param,
    RunTag,
)
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.tracking import MlflowClient
from mlflow.types import ColSpec, DataType, Schema, TensorSpec
from mlflow.types.schema import AnyType

from pipeline import storage
from pipeline.build.build import is_embedded
from pipeline.deployment.export import write_bundle
from pipeline.errors import NoRecordError, TrackerError
from pipeline.manifests.manifest import Manifest, write_manifest
from pipeline.recipes.recipe import Recipe
from pipeline.storage import atomic, checksums, files
from pipeline.training.feature_set import FeatureSet

EXPERIMENT = "basilar"
_NEEDS = ("basilar", "mlflow", "numpy", "scipy", "soxr", "soundfile", "av", "pydantic", "pandas")
Step = Callable[[MlflowClient, str], None]  # something done with a run, by its id
_AT_ONCE = 1000  # metrics that MLflow takes in one request
_HEARD_SECONDS = 3600.0  # of audio that the report of a run listens to
_UNFINISHED_SECONDS = 600  # after which a run that is not finished never will be


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

    Recipe and manifest are logged whole: the set can be rebuilt from its run alone. Its bundle is
    logged as a model, which is also registered if `register_as` is NAME or NAME@ALIAS. `folder`
    is ROOT/mlflow: it holds the lock, and the artifacts of the root's own tracker, which is
    `pipeline.build.build.embedded_tracking_uri(ROOT)`. `built` is what the report says of the build
    (`pipeline.build.registry.recorded`). Raises TrackerError if the tracker does not answer or refuses.
    """
    fs = FeatureSet.open(store)
    recipe = Recipe.from_dict(fs.recipe)
    name = f"{recipe.name or 'feature set'} {fs.key[:12]}"
    fill = partial(_fill, fs=fs, recipe=recipe, manifest=manifest, built=built)
    then = partial(_register, register_as=register_as) if register_as else None
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
    """Log what training on a feature set came to, as a run of its own, and return its id.

    The run's tag `basilar.feature_set` is the key that the feature set's own run has as its tag
    `basilar.key`; the feature set is its input, too. `name` is the run's, and tells trainings
    apart: what is logged under a name is not logged again. For the rest see `log_run`.
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

    `then` is done in either case. Raises TrackerError.
    """
    _quiet()
    embedded = is_embedded(uri, folder.parent)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        # Two first users of one SQLite database corrupt it, and two loggers would log twice.
        with FileLock(folder / ".lock"):
            client = MlflowClient(tracking_uri=uri, registry_uri=uri)
            experiment = _experiment(client, (folder / "artifacts") if embedded else None)
            # Who logs to the embedded tracker has this lock: what is not finished never will be.
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
        # MLflow, its database and its transports raise what they like: whatever it is, what is to
        # be logged is on the disk, and nothing must fail for it.
        raise _failed(uri, error) from error


def fetch_run(uri: str, key: str, folder: Path) -> Path:
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
        raise _failed(uri, error) from error


def _failed(uri: str, error: Exception) -> TrackerError:
    """The first line of an error: a database's goes on with all of its statement."""
    where, said = storage.shown(uri), storage.shown(str(error).split("\n")[0])
    return TrackerError(
        f"{where}: {type(error).__name__}: {said}; start it, or name another tracker"
    )


def _finished(client: MlflowClient, experiment: str, tag: RunTag, patience: float) -> str | None:
    """The id of the run that has `tag`, if it is there.

    One that was not finished within `patience` seconds was cut off, and is deleted.
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
    """The experiment's id; `location` is where the root's own tracker keeps its artifacts."""
    where = None if location is None else location.absolute().as_uri()
    found = client.get_experiment_by_name(EXPERIMENT)
    if found is not None and where in (None, found.artifact_location):
        return str(found.experiment_id)
    if found is not None:  # the root was moved, and this experiment writes to where it was
        name = f"{EXPERIMENT} until {time.strftime('%Y-%m-%d %H:%M:%S')}"
        client.rename_experiment(found.experiment_id, name)
    return str(client.create_experiment(EXPERIMENT, artifact_location=where))


def _log(client: MlflowClient, experiment: str, name: str, fill: Step) -> str:
    """Fill a new run; if that fails half-way, the run is deleted."""
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
        write_manifest(manifest, folder / "manifest.parquet")
        atomic.link(fs.path / "clips.parquet", folder / "clips.parquet")
        fs.quarantine.to_csv(folder / "quarantine.csv", index=False)
        _write_report(folder / "report.html", fs, manifest, built)
        client.log_artifacts(run_id, str(folder))
    client.log_table(run_id, per_bin_table(fs), artifact_file="statistics_per_bin.json")
    _log_model(client, run_id, fs, manifest)


def _write_report(
    file: Path, fs: FeatureSet, manifest: Manifest, built: dict[str, Any] | None
) -> None:
    """Draw the report of a feature set; one that cannot be drawn is a warning."""
    try:
        from pipeline.report import of_set
        from pipeline.report.collect import collect

        found = collect(fs, manifest, built=built, seconds=_HEARD_SECONDS)
        file.write_text(of_set.render(found), "utf-8")
    except Exception as error:  # whatever it is: a picture is no reason to lose what is logged
        logging.getLogger("basilar").warning(
            "no report of %s in its MLflow run (%s: %s); to draw it: basilar report %s --root ROOT "
            "-o report.html",
            fs.key[:12],
            type(error).__name__,
            error,
            fs.key[:12],
        )


def _log_input(client: MlflowClient, run_id: str, fs: FeatureSet, *, context: str) -> None:
    """Name a feature set as the data set of a run."""
    dataset = Dataset(
        name=fs.recipe.get("name") or "feature set",
        digest=fs.digest,
        source_type="local",
        source=json.dumps({"uri": storage.name(fs.path)}),
        profile=json.dumps({"clips": len(fs), "frames": fs.attributes["frames"]}),
    )
    tags = [InputTag("mlflow.data.context", context)]
    client.log_inputs(run_id, datasets=[DatasetInput(dataset, tags)])


def metric_name(name: str) -> str:
    """A name as MLflow takes it for a metric: other signs become `_`."""
    return re.sub("[^A-Za-z0-9_.-]", "_", name)


def _log_model(client: MlflowClient, run_id: str, fs: FeatureSet, manifest: Manifest) -> None:
    """Log the bundle of a feature set as a pyfunc model from code: no pickle."""
    logged = client.create_logged_model(
        client.get_run(run_id).info.experiment_id,
        name="bundle",
        source_run_id=run_id,
        tags={"basilar.key": fs.key, "basilar.digest": fs.digest},
        params=parameters(Recipe.from_dict(fs.recipe)),
    )
    try:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_bundle(folder / "bundle", fs, manifest=manifest, clips=0)
            save_model(folder / "model", folder / "bundle", fs, Model(model_id=logged.model_id))
            client.log_model_artifacts(logged.model_id, str(folder / "model"))
        client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
        client.finalize_logged_model(logged.model_id, "READY")
    except BaseException:
        client.delete_logged_model(logged.model_id)
        raise


def _quiet() -> None:
    """Not a word about tables that MLflow creates, or examples that it tries."""
    logging.getLogger("mlflow").setLevel(logging.WARNING)


def save_model(folder: Path, bundle: Path, fs: FeatureSet, model: Model | None = None) -> None:
    """Write a bundle as an MLflow model: `pipeline/served.py`, what it takes and what it needs."""
    types: dict[str, Any] = {
        "audio": DataType.string,
        "samples": AnyType(),
        "sample_rate": DataType.long,
    }
    inputs = Schema([ColSpec(kind, name, required=False) for name, kind in types.items()])
    complex_parts = (2,) if fs.dtype.kind == "c" else ()
    output = TensorSpec(np.dtype(np.float32), (-1, -1, fs.n_bins, *complex_parts))
    example = base64.b64encode((bundle / "golden" / "canary.flac").read_bytes()).decode()
    _quiet()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow's own, about its types and pandas
        pyfunc.save_model(
            folder,
            mlflow_model=model or Model(),
            python_model=str(Path(__file__).with_name("served.py")),
            artifacts={"bundle": str(bundle)},
            signature=ModelSignature(inputs=inputs, outputs=Schema([output])),
            input_example=pd.DataFrame({"audio": [example]}),
            pip_requirements=[f"{name}=={version(name)}" for name in _NEEDS],
            metadata={"basilar.key": fs.key, "basilar.digest": fs.digest},
        )


def predict(model: Path, rows: list[dict[str, Any]]) -> list[np.ndarray[Any, Any]]:
    """What a saved model answers to rows, in this process."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found: list[np.ndarray[Any, Any]] = pyfunc.load_model(str(model)).predict(
            pd.DataFrame(rows)
        )
    return found


def _register(client: MlflowClient, run_id: str, *, register_as: str) -> None:
    """Register the model of a run under a name, once, and let the alias point to it."""
    name, _, alias = register_as.partition("@")
    outputs = client.get_run(run_id).outputs
    if outputs is None or not outputs.model_outputs:
        raise TrackerError(
            f"run {run_id}: it has no model, an earlier version logged it; delete it, and build "
            "again"
        )
    model_id = outputs.model_outputs[0].model_id
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    location = client.get_logged_model(model_id).artifact_location
    known = client.search_model_versions(f"name = '{name}'")
    registered = next((version for version in known if version.source == location), None)
    registered = registered or client.create_model_version(
        name, location, run_id=run_id, model_id=model_id
    )
    if alias:
        client.set_registered_model_alias(name, alias, registered.version)


def parameters(recipe: Recipe) -> dict[str, str]:
    """The resolved recipe as flat names and values: `representation.n_fft`, …"""
    return {
        f"{section}.{name}": str(value)
        for section, values in recipe.resolved().items()
        if isinstance(values, dict)
        for name, value in values.items()
    }


def metrics(fs: FeatureSet) -> dict[str, float]:
    """The statistics of a feature set as flat names and numbers."""
    clips, stats = fs.clips, fs.stats
    files = checksums.read_checksums(fs.path)
    values: dict[str, Any] = {
        "clips": len(fs),
        "hours": clips["duration"].sum() / 3600,
        "frames": fs.attributes["frames"],
        "quarantined": fs.attributes["quarantined"],
        "bytes": sum(size for name, (size, _) in files.items() if name.startswith("features/")),
        "mean": stats["mean"].mean(),
        "std": (stats["std"] ** 2 + (stats["mean"] - stats["mean"].mean()) ** 2).mean() ** 0.5,
        "min": stats["min"].min(),
        "max": stats["max"].max(),
        **{
            metric_name(f"clips_{name}"): count
            for name, count in clips["split"].value_counts().items()
        },
        **{f"seconds_{stage}": spent for stage, spent in fs.attributes["seconds"].items()},
    }
    return {name: float(value) for name, value in values.items()}


def description(fs: FeatureSet) -> str:
    """What a run's page says of a feature set, in Markdown."""
    kind, rate = fs.recipe["representation"]["kind"], fs.recipe["resample"]["sample_rate"]
    hours, lost = fs.clips["duration"].sum() / 3600, fs.attributes["quarantined"]
    return (
        f"{len(fs)} clips, {hours:.2f} h, as {fs.attributes['frames']} frames of {fs.n_bins} bins "
        f"of `{kind}` at {rate} Hz; {lost} quarantined.\n\n"
        "* Charts over bins: *Model metrics*, `per_bin`; the step is the bin.\n"
        "* The report, to look at and listen to: *Artifacts*, `report.html`."
    )


def per_bin_table(fs: FeatureSet) -> pd.DataFrame:
    """Mean, standard deviation, minimum and maximum of each bin of the fit split."""
    columns = {name: fs.stats[name] for name in ("mean", "std", "min", "max")}
    return pd.DataFrame({"bin": range(len(columns["mean"])), **columns})


def per_bin_metrics(fs: FeatureSet) -> list[Metric]:
    """The same as metrics whose step is the bin, which MLflow draws as lines over the bins."""
    return [
        Metric(f"per_bin/{name}", float(value), 0, step)
        for name, column in per_bin_table(fs).drop(columns="bin").items()
        for step, value in enumerate(column)
    ]
