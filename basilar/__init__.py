"""Folders of audio to feature sets for machine learning: one transform for training and deployment.

Names are imported when they are used: opening a feature set loads none of the libraries of builds.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from basilar import errors as errors
    from basilar.pipeline.compute.transform import Transform
    from basilar.pipeline.deployment.bundle import Bundle
    from basilar.pipeline.manifests.manifest import Manifest
    from basilar.pipeline.recipes.recipe import Recipe
    from basilar.pipeline.training.feature_set import FeatureSet
    from basilar.pipeline.training.loader import Loader

    __version__: str

_PLACES = {
    "Bundle": "basilar.pipeline.deployment.bundle",
    "FeatureSet": "basilar.pipeline.training.feature_set",
    "Loader": "basilar.pipeline.training.loader",
    "Manifest": "basilar.pipeline.manifests.manifest",
    "Recipe": "basilar.pipeline.recipes.recipe",
    "Transform": "basilar.pipeline.compute.transform",
}
__all__ = [
    "Bundle",
    "FeatureSet",
    "Loader",
    "Manifest",
    "Recipe",
    "Transform",
    "__version__",
    "errors",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("basilar")
    if name == "errors":
        return import_module("basilar.errors")
    if name not in _PLACES:
        raise AttributeError(f"module 'basilar' has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return __all__
