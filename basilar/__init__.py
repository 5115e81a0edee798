"""Folders of audio to feature sets for machine learning: one transform for training and deployment.

Names are imported when they are used: opening a feature set loads none of the libraries of builds.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from basilar import errors as errors
    from basilar.pipeline.build.entry import build as build
    from basilar.pipeline.compute.transform import Transform as Transform
    from basilar.pipeline.deployment.bundle import Bundle as Bundle
    from basilar.pipeline.manifests.manifest import Manifest as Manifest
    from basilar.pipeline.manifests.scan import scan as scan
    from basilar.pipeline.recipes.recipe import Recipe as Recipe
    from basilar.pipeline.training.feature_set import FeatureSet as FeatureSet
    from basilar.pipeline.training.find import open_set as open
    from basilar.pipeline.training.loader import Loader as Loader

    __version__: str

_HOMES = {  # of each name: its module, and what it is called there
    "Bundle": ("basilar.pipeline.deployment.bundle", "Bundle"),
    "FeatureSet": ("basilar.pipeline.training.feature_set", "FeatureSet"),
    "Loader": ("basilar.pipeline.training.loader", "Loader"),
    "Manifest": ("basilar.pipeline.manifests.manifest", "Manifest"),
    "Recipe": ("basilar.pipeline.recipes.recipe", "Recipe"),
    "Transform": ("basilar.pipeline.compute.transform", "Transform"),
    "build": ("basilar.pipeline.build.entry", "build"),
    "open": ("basilar.pipeline.training.find", "open_set"),
    "scan": ("basilar.pipeline.manifests.scan", "scan"),
}
__all__ = [
    "Bundle",
    "FeatureSet",
    "Loader",
    "Manifest",
    "Recipe",
    "Transform",
    "__version__",
    "build",
    "errors",
    "open",
    "scan",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("basilar")
    if name == "errors":
        return import_module("basilar.errors")
    if name not in _HOMES:
        raise AttributeError(f"module 'basilar' has no attribute {name!r}")
    module, attribute = _HOMES[name]
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return __all__
