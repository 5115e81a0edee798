"""Plans whose keys say what this installation computes."""

from pathlib import Path

from basilar.pipeline import audio
from basilar.pipeline.compute.guard import deviations
from basilar.pipeline.defaults import SHARD_SECONDS
from basilar.pipeline.manifests.manifest import Manifest
from basilar.pipeline.plan import Plan
from basilar.pipeline.recipes.recipe import Recipe


def decoders_of(manifest: Manifest) -> set[audio.Decoder]:
    """The decoders of the files of a manifest."""
    return set(manifest.table.column("decoder").unique().to_pylist()) - {"", None}


def plan_here(
    recipe: Recipe,
    manifest: Manifest,
    shard_seconds: float = SHARD_SECONDS,
    *,
    root: Path | None = None,
    strict: bool = True,
) -> Plan:
    """A plan whose keys say what this installation computes.

    With `root`, also as compared to what the recipe computed there first. Raises CanaryError where
    `deviations` does.
    """
    found = deviations(
        recipe,
        decoders=decoders_of(manifest),
        catalogue=None if root is None else root / "catalogue",
        strict=strict,
    )
    here = {name: deviation.identity for name, deviation in found.items()}
    return Plan(recipe, manifest, shard_seconds, here)
