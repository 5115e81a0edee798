"""The Luigi DAG: Decode → Resample → Represent for each shard, FitNormalization → Publish → LogRun.

The tasks of a shard are in `shard_tasks.py`; here are those of the whole set.
A task is identified by its root and the key of its output; the parameters `build` and `shard` and
the description `about` are left out of its identity. Every `run()` takes the lock of its output,
looks whether another build has made it meanwhile, which Luigi does not, reads its inputs, calls the
stage and commits. Luigi does not look upstream of a complete task, so reruns stay cached.
A rerun that computes nothing should take no time, so Zarr and MLflow are imported by `run()` alone.
"""

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import luigi

from basilar.pipeline import errors, storage
from basilar.pipeline.build import registry
from basilar.pipeline.build.build import Build, build_of, logged_run, run_file
from basilar.pipeline.build.shard_tasks import Represent, Target, Task, attempt, name_of
from basilar.pipeline.errors import TooManyBadError
from basilar.pipeline.plan import Plan
from basilar.pipeline.process import configure
from basilar.pipeline.storage import atomic, files

if TYPE_CHECKING:
    from basilar.pipeline.store.shard_tables import ShardTables
    from basilar.pipeline.store.statistics import Statistics


class _SetTask(Task):
    """A task that makes one thing of all shards."""

    @classmethod
    def of(cls, build: str) -> Self:
        """This task of a build."""
        the_build = build_of(build)
        plan = the_build.plan
        return cls(
            about=f"{name_of(plan)}, {len(plan.manifest)} clips in {len(plan.shards)} shards",
            root=storage.name(the_build.root),
            key=f"{cls.address(plan)}.{plan.layout_hash}",
            build=build,
        )

    @staticmethod
    def address(plan: Plan) -> str:
        """The hash of what the task makes, whatever its layout."""
        return plan.key

    def shards(self) -> "list[ShardTables]":
        """The tables of the shards. A damaged or deleted shard is made again here."""
        from basilar.pipeline.store import shard_tables, statistics

        build, found = self.the_build, []
        for shard in build.plan.shards:
            try:
                found.append(shard_tables.read_shard(build.shard_folder(shard)))
            except errors.DamagedArtifactError:
                statistics.forget(build.root / "artifacts", {shard.keys["representation"]})
                Represent.of(self.build, shard).run()
                found.append(shard_tables.read_shard(build.shard_folder(shard)))
        return found


class MapShards(_SetTask):
    """The features of all shards, computed on a Dask cluster."""

    def output(self) -> list[luigi.LocalTarget]:  # type: ignore[override]
        build = self.the_build
        return [Target(storage.name(build.shard_folder(s))) for s in build.plan.shards]

    def run(self) -> None:
        """Map the shards that are missing over the cluster."""
        from basilar.pipeline.build import dask_engine

        build = self.the_build
        missing = build.work().pending["representation"]

        def tell(done: int) -> None:
            self.tell(f"{done} of {len(missing)} shards", 100 * done // len(missing))

        dask_engine.map_shards(self.build, missing, address=build.dask, tell=tell)


def _represented(build: str) -> list[luigi.Task]:
    """The tasks that make the features of all shards."""
    the_build = build_of(build)
    if the_build.dask:
        return [MapShards.of(build)]
    return [Represent.of(build, shard) for shard in the_build.plan.shards]


class FitNormalization(_SetTask):
    """The statistics of the fit split."""

    @staticmethod
    def address(plan: Plan) -> str:
        return plan.fit_key

    def requires(self) -> list[luigi.Task]:
        """The features of all shards."""
        return _represented(self.build)

    def path(self) -> Path:
        return self.the_build.statistics

    def make(self) -> None:
        """Merge the statistics of the shards over the fit split."""
        from basilar.pipeline.store import statistics

        build, shards = self.the_build, self.shards()
        refuse_too_many_bad(build, shards)
        fitted = statistics.fit_statistics(build.plan, shards, histograms=build.histograms)
        statistics.write_statistics(self.path(), fitted)
        self.tell(f"fitted on {fitted.n_clips} clips")


class Publish(_SetTask):
    """The feature set: all shards in one Zarr store."""

    def requires(self) -> list[luigi.Task]:
        """The statistics and the features of all shards."""
        return [FitNormalization.of(self.build), *_represented(self.build)]

    def path(self) -> Path:
        return self.the_build.store

    def make(self) -> None:
        """Link the shards into one store."""
        from basilar.pipeline.store import publish

        build, shards = self.the_build, self.shards()
        n_bad = refuse_too_many_bad(build, shards)
        publish.publish(
            self.path(),
            build.plan,
            self._fitted(),
            shards=shards,
            catalogue=build.root / "catalogue" / "features",
        )
        for folder in (self.path(), *map(build.shard_folder, build.plan.shards)):
            storage.drop(folder)
        self.tell(f"{len(build.plan.manifest) - n_bad} clips, {n_bad} quarantined")

    def _fitted(self) -> "Statistics":
        """The statistics, made again if they are damaged or were deleted meanwhile."""
        from basilar.pipeline.store import statistics

        file = self.the_build.statistics
        try:
            return statistics.read_statistics(file)
        except (FileNotFoundError, errors.DamagedArtifactError):
            atomic.remove(file)
            FitNormalization.of(self.build).run()
            return statistics.read_statistics(file)


class LogRun(_SetTask):
    """The feature set's run in MLflow. A tracker that does not answer fails no build."""

    def requires(self) -> Publish:
        """The published feature set."""
        return Publish.of(self.build)

    def complete(self) -> bool:
        """The feature set is there, and its run is logged, or this build has tried to log it."""
        build = self.the_build
        if not storage.exists(build.store):
            return False
        if logged_run(build) is not None:
            return True
        marker = run_file(build)
        return storage.exists(marker) and files.read_json(marker)["attempt"] == attempt()

    def path(self) -> Path:
        return run_file(self.the_build)

    def is_made(self) -> bool:
        """Whether the run is logged."""
        return logged_run(self.the_build) is not None

    def make(self) -> None:
        """Log the feature set, or leave it to the next build if the tracker does not answer."""
        build = self.the_build
        configure()  # before mlflow is imported
        from basilar.pipeline import errors
        from basilar.pipeline.tracking import runs  # imports mlflow, which no other task needs

        run_id, built = None, self._built()
        try:
            folder = build.root / "mlflow"
            manifest = build.plan.manifest
            run_id = runs.log_run(
                build.store,
                manifest,
                build.tracking_uri,
                folder=folder,
                register_as=build.register_as,
                built=built,
            )
        except errors.TrackerError as error:
            logging.getLogger("basilar").warning("not logged to MLflow: %s", error)
        marker = {
            "run_id": run_id,
            "uri": storage.shown(build.tracking_uri),
            "attempt": attempt(),
            "registered_as": build.register_as,
            "built": built,
        }
        files.write_json(self.path(), marker)
        self.tell(f"MLflow run {run_id}" if run_id else "MLflow did not answer")

    def _built(self) -> dict[str, Any] | None:
        """The record, for the report, of the build that was the first to log the set."""
        build = self.the_build
        known = registry.recorded(build.root, build.plan.key)
        begun = registry.begun(build.root, self.build)
        if known is not None or begun is None:
            return known
        return {
            "started": begun["started"],
            "seconds": time.time() - begun["started"],
            "shards": len(build.plan.shards),
            "pending": {stage: len(missing) for stage, missing in begun["pending"].items()},
        }


def refuse_too_many_bad(build: Build, shards: "list[ShardTables]") -> int:
    """The number of quarantined clips. Raises TooManyBadError, with a list, if it is too many."""
    from basilar.pipeline.store import shard_tables

    n_clips, bad = len(build.plan.manifest), list(shard_tables.quarantined(build.plan, shards))
    allowed = max(1, int(build.max_bad * n_clips + 1e-6))
    if len(bad) <= allowed and len(bad) < n_clips:
        return len(bad)
    shown = [f"  {clip_id}: {e.stage}: {e.reason}: {e.message}" for clip_id, e in bad[:50]]
    if len(bad) > 50:
        shown.append(f"  … and {len(bad) - 50} more")
    raise TooManyBadError(
        f"{storage.name(build.root)}: {len(bad)} of {n_clips} clips cannot be used, {allowed} are "
        "allowed, and nothing is published; mend or remove them, or raise --max-bad\n"
        + "\n".join(shown)
    )
