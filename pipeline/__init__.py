"""Everything that touches files, Luigi, Zarr or MLflow, around the pure functions of `dsp`."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.dataset import FeatureSet
    from pipeline.transform import Transform

__all__ = ["FeatureSet", "Transform"]


def __getattr__(name: str) -> Any:
    """Import what is public when it is asked for: no part pays for the libraries of another."""
    if name == "FeatureSet":
        from pipeline.dataset import FeatureSet

        return FeatureSet
    if name == "Transform":
        from pipeline.transform import Transform

        return Transform
    raise AttributeError(f"module 'pipeline' has no attribute {name!r}")
