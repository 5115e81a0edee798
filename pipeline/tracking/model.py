"""The bundle of a feature set as an MLflow model."""

import base64
import logging
import tempfile
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow import pyfunc
from mlflow.entities import (
    LoggedModelOutput,
)
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.tracking import MlflowClient
from mlflow.types import ColSpec, DataType, Schema, TensorSpec
from mlflow.types.schema import AnyType

from basilar.pipeline.deployment.export import write_bundle
from basilar.pipeline.errors import TrackerError
from basilar.pipeline.manifests.manifest import Manifest
from basilar.pipeline.tracking.summary import parameters
from basilar.pipeline.training.feature_set import FeatureSet

_NEEDS = ("basilar", "mlflow", "numpy", "soxr", "soundfile", "av", "pydantic", "pandas")


def log_model(client: MlflowClient, run_id: str, fs: FeatureSet, manifest: Manifest) -> None:
    """Log the bundle of a feature set as a pyfunc model from code, without pickle."""
    logged = client.create_logged_model(
        client.get_run(run_id).info.experiment_id,
        name="bundle",
        source_run_id=run_id,
        tags={"basilar.key": fs.key, "basilar.digest": fs.digest},
        params=parameters(fs.typed_recipe),
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


def quieten() -> None:
    """Silence MLflow's messages about tables that it creates and examples that it tries."""
    logging.getLogger("mlflow").setLevel(logging.WARNING)


def save_model(folder: Path, bundle: Path, fs: FeatureSet, model: Model | None = None) -> None:
    """Save a bundle as an MLflow model: code (`deployment.mlflow_model`), inputs, requirements."""
    types: dict[str, Any] = {
        "audio": DataType.string,
        "samples": AnyType(),
        "sample_rate": DataType.long,
    }
    inputs = Schema([ColSpec(kind, name, required=False) for name, kind in types.items()])
    complex_parts = (2,) if fs.dtype.kind == "c" else ()
    output = TensorSpec(np.dtype(np.float32), (-1, -1, fs.n_bins, *complex_parts))
    example = base64.b64encode((bundle / "golden" / "canary.flac").read_bytes()).decode()
    quieten()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow's, about its types and pandas
        pyfunc.save_model(
            folder,
            mlflow_model=model or Model(),
            python_model=str(Path(__file__).parents[1] / "deployment" / "mlflow_model.py"),
            artifacts={"bundle": str(bundle)},
            signature=ModelSignature(inputs=inputs, outputs=Schema([output])),
            input_example=pd.DataFrame({"audio": [example]}),
            pip_requirements=[f"{name}=={version(name)}" for name in _NEEDS],
            metadata={"basilar.key": fs.key, "basilar.digest": fs.digest},
        )


def predict(model: Path, rows: list[dict[str, Any]]) -> list[np.ndarray[Any, Any]]:
    """The predictions of a saved model for rows, in this process."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found: list[np.ndarray[Any, Any]] = pyfunc.load_model(str(model)).predict(
            pd.DataFrame(rows)
        )
    return found


def register(client: MlflowClient, run_id: str, *, register_as: str) -> None:
    """Register the model of a run under NAME, unless it is, and point the ALIAS to it."""
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
