"""The MLflow model of a bundle, as code: MLflow keeps this file with the model and runs it.

A request is a table with a row a clip. Either `audio`: base64 of the bytes of an encoded file; or
`samples`: a list of numbers, or base64 of little-endian float32, and `sample_rate` in Hz. The
answer is a list of features (frames, bins), normalized, float32; JSON keeps every bit of them.
Complex features come as (frames, bins, 2).
"""

import base64
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc.model import PythonModel
from numpy.typing import NDArray

from pipeline.audio import AudioError
from pipeline.bundle import Bundle


class ServedBundle(PythonModel):
    """Computes the features of clips by the bundle it was logged with."""

    def load_context(self, context: Any) -> None:
        """Open the bundle. Raises BundleError or CanaryError."""
        self.bundle = Bundle.load(context.artifacts["bundle"])

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> list[NDArray[Any]]:
        """The features of each row. Raises MlflowException, naming the row that has no clip."""
        found = []
        for number, row in enumerate(model_input.to_dict("records")):
            try:
                features = self._features({str(name): value for name, value in row.items()})
            except AudioError as error:
                raise _refused(number, error.message) from None
            except (ValueError, TypeError) as error:
                raise _refused(number, str(error)) from None
            parts = features.dtype.kind == "c"
            found.append(features.view("f4").reshape(*features.shape, 2) if parts else features)
        return found

    def _features(self, row: Mapping[str, Any]) -> NDArray[Any]:
        given = {name: value for name, value in row.items() if np.all(pd.notna(value))}
        if given.keys() == {"audio"}:
            with tempfile.NamedTemporaryFile() as file:
                file.write(base64.b64decode(given["audio"], validate=True))
                file.flush()
                return self.bundle.transform_file(Path(file.name))
        if given.keys() != {"samples", "sample_rate"}:
            raise ValueError(f"{sorted(given)}: give audio, or samples and sample_rate")
        samples = given["samples"]
        if isinstance(samples, str):
            y = np.frombuffer(base64.b64decode(samples, validate=True), "<f4")
        else:
            y = np.asarray(samples, np.float32)
        return self.bundle.transform(y, sample_rate=int(given["sample_rate"]))


def _refused(number: int, message: str) -> MlflowException:
    return MlflowException(f"row {number}: {message}", error_code=INVALID_PARAMETER_VALUE)


set_model(ServedBundle())
