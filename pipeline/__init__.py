"""Everything that touches files, Luigi, Zarr or MLflow, around the pure functions of `dsp`."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.compute.transform import Transform
    from pipeline.deployment.bundle import Bundle
    from pipeline.training.feature_set import FeatureSet
    from pipeline.training.loader import Loader

__all__ = ["Bundle", "FeatureSet", "Loader", "Transform"]
_MODULES = {
    "Bundle": "bundle",
    "FeatureSet": "dataset",
    "Loader": "loader",
    "Transform": "transform",
}


def __getattr__(name: str) -> Any:
    """Import what is public when it is asked for: no part pays for the libraries of another."""
    if name not in _MODULES:
        raise AttributeError(f"module 'pipeline' has no attribute {name!r}")
    return getattr(import_module(f"pipeline.{_MODULES[name]}"), name)
