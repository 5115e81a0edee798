"""Build a feature set as a Luigi workflow.

    python -m luigi --module basilar.workflows.build_feature_set BuildFeatureSet \
        --recipe params/log_mel.toml --manifest manifest.parquet --root features --local-scheduler

Copy this file to make a workflow of your own: a task that requires `BuildFeatureSet` finds the
feature set at `self.input().path`.
"""

import os
from functools import cached_property
from pathlib import Path

import luigi
from luigi.parameter import ParameterVisibility

from basilar.pipeline import storage
from basilar.pipeline.build.build import Build
from basilar.pipeline.build.set_tasks import LogRun
from basilar.pipeline.build.shard_tasks import Target
from basilar.pipeline.compute.here import plan_here
from basilar.pipeline.defaults import CLIP_TIMEOUT, KEEP, MAX_BAD, SHARD_SECONDS
from basilar.pipeline.manifests.manifest import Manifest
from basilar.pipeline.process import configure
from basilar.pipeline.recipes.recipe import Recipe
from basilar.pipeline.tracking.location import embedded_tracking_uri

configure()  # Luigi's command imports this module, and runs no line of it before its tasks


class PlaceParameter(luigi.PathParameter):
    """A local path, or the URL of an object store, whose value is its working copy."""

    def normalize(self, x: str | Path) -> Path:
        """The path, or the working copy."""
        path = storage.place(x)
        return path.absolute() if self.absolute else path

    def serialize(self, x: Path) -> str:
        """The path, or the URL."""
        return storage.name(x)


class BuildFeatureSet(luigi.WrapperTask):
    """The feature set of a recipe over a manifest, published under a root and logged to MLflow."""

    recipe = luigi.PathParameter(description="recipe (TOML), or the name of a shipped one")
    manifest = PlaceParameter(description="manifest (Parquet), made by: basilar scan")
    root = PlaceParameter(absolute=True, description="folder or URL for artifacts and feature sets")
    shard_seconds = luigi.FloatParameter(
        default=SHARD_SECONDS, significant=False, description="audio per shard, s"
    )
    audio_root = luigi.OptionalPathParameter(
        default=None, significant=False, description="where the audio is now, if it was moved"
    )
    keep = luigi.Parameter(
        default=",".join(KEEP), significant=False, description="stages whose artifacts are kept"
    )
    max_bad = luigi.FloatParameter(
        default=MAX_BAD, significant=False, description="share of bad clips that is allowed"
    )
    tracking_uri = luigi.Parameter(
        default=os.environ.get("MLFLOW_TRACKING_URI", ""),
        significant=False,
        visibility=ParameterVisibility.HIDDEN,  # it may hold a password
        description="MLflow tracker; default: under the root",
    )
    register_as = luigi.Parameter(
        default="", significant=False, description="model in MLflow to register: NAME or NAME@ALIAS"
    )

    clip_timeout = luigi.FloatParameter(
        default=CLIP_TIMEOUT, significant=False, description="limit for decoding a clip, s"
    )
    dask = luigi.Parameter(
        default="",
        significant=False,
        description="compute shards on this Dask cluster: tcp://host:port, or a scheduler file",
    )

    @cached_property
    def planned(self) -> Build:
        """The build, planned once before anything runs."""
        manifest = Manifest.read(self.manifest)
        if self.audio_root is not None:
            manifest = manifest.moved_to(self.audio_root)
        recipe = Recipe.load(self.recipe)
        plan = plan_here(recipe, manifest, self.shard_seconds, root=self.root)
        keep = tuple(name for name in self.keep.split(",") if name)
        tracker = self.tracking_uri or embedded_tracking_uri(self.root)
        return Build(
            root=self.root,
            plan=plan,
            tracking_uri=tracker,
            keep=keep,
            max_bad=self.max_bad,
            register_as=self.register_as,
            clip_timeout=self.clip_timeout,
            dask=self.dask,
        )

    @cached_property
    def _log_run(self) -> luigi.Task:
        return LogRun.of(self.planned.register())

    def requires(self) -> luigi.Task:
        """The run in MLflow, which requires all stages."""
        return self._log_run

    def output(self) -> luigi.LocalTarget:
        """The published feature set."""
        return Target(storage.name(self.planned.store))
