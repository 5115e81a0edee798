"""Everything that touches files, Luigi, Zarr or MLflow, around the pure functions of `dsp`."""

from typing import Any


def __getattr__(name: str) -> Any:
    """`from pipeline import Bundle` in a clone, which the README of older bundles says."""
    if name != "Bundle":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from basilar.pipeline.deployment.bundle import Bundle

    return Bundle
