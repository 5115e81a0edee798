"""The Luigi DAG: Decode → Resample → Represent for each shard, FitNormalization → Publish → LogRun.

A stage of a shard is a task if its artifact is kept; else the next task computes it on the way, and
nothing of it is written. Keys, values and what counts as done are the same either way.
A task is identified by its root and the key of what it makes; how it gets there (`build`, `shard`)
is left out of its identity, and so is what people are told of it (`about`). Every `run()` takes the
lock of its output and looks whether another build has made it meanwhile, which Luigi does not,
reads, calls the stage and commits. Luigi does not look upstream of a complete task, so reruns stay
cached.
A rerun that computes nothing should take no time, so Zarr and MLflow are imported by `run()` alone.
"""

import logging
import time
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import luigi
from luigi.parameter import ParameterVisibility

from pipeline import artifacts, locks, running, stages, storage
from pipeline.build import Build, build_of, logged_run, run_file
from pipeline.keys import STAGES, hash_of
from pipeline.scratch import Spool
from pipeline.shards import Plan, Shard
from pipeline.transform import Transform
from pipeline.waveforms import Waveforms, read_waveforms, write_waveforms

if TYPE_CHECKING:
    from pipeline.statistics import ShardTables

_TELL_EVERY = 1.0  # seconds

# Names the build in this process and those it forks: a LogRun whose tracker did not answer counts
# as complete in the build that asked, so that nothing above it fails or waits, and as open later.
_attempt = {"id": uuid.uuid4().hex}

# What a task reads is computed again if it is gone or damaged; Luigi would refuse to run the task.
_config = luigi.configuration.get_config()
if not _config.has_option("worker", "check_unfulfilled_deps"):
    _config.set("worker", "check_unfulfilled_deps", "false")


class TooManyBadError(RuntimeError):
    """More clips were quarantined than `max_bad` allows."""


class Target(luigi.LocalTarget):
    """A path, or a URL, that exists when what it names is whole."""

    def exists(self) -> bool:
        """Whether it is there."""
        return storage.exists(storage.place(self.path))


class _Task(luigi.Task):
    """A task that makes one thing under a root."""

    # The first that Luigi's page shows. Of several recipes that share a task, one is named.
    about = luigi.Parameter(significant=False, positional=False, default="")
    root = luigi.Parameter(description="folder of all artifacts and feature sets")
    key = luigi.Parameter(description="hash that addresses what the task makes")
    build = luigi.Parameter(
        significant=False, positional=False, visibility=ParameterVisibility.HIDDEN
    )

    @property
    def the_build(self) -> Build:
        """The build this task is part of."""
        return build_of(self.build)

    def path(self) -> Path:
        """Where the task's output lies."""
        raise NotImplementedError

    def output(self) -> luigi.LocalTarget:
        """The target whose existence means the task is complete."""
        return Target(storage.name(self.path()))

    def run(self) -> None:
        """Make the output, unless another process has made it by the time its lock is had."""
        root = storage.place(self.root)
        locks.enter(root)
        with locks.sole(root, str(self.path().relative_to(root))):
            if not self.made_already():
                self.make()

    def made_already(self) -> bool:
        """Whether there is nothing to make."""
        return storage.exists(self.path())

    def make(self) -> None:
        """Make the output and commit it."""
        raise NotImplementedError

    def tell(self, message: str, percentage: int = 100) -> None:
        """Tell Luigi's scheduler how far the task is.

        Its page takes a message for HTML: only counts and hashes belong there, and no names.
        """
        # Luigi sets both while it runs a task; a Dask worker calls `run` alone.
        if self.set_status_message is not None and self.set_progress_percentage is not None:
            self.set_status_message(message)
            self.set_progress_percentage(percentage)


class _SetTask(_Task):
    """A task that makes one thing of all shards."""

    @classmethod
    def of(cls, build: str) -> Self:
        """This task of a build."""
        the_build = build_of(build)
        plan = the_build.plan
        return cls(
            about=f"{_name(plan)}, {len(plan.manifest)} clips in {len(plan.shards)} shards",
            root=storage.name(the_build.root),
            key=f"{cls.address(plan)}.{plan.layout}",
            build=build,
        )

    @staticmethod
    def address(plan: Plan) -> str:
        """The hash of what the task makes, whatever its layout."""
        return plan.key


def _name(plan: Plan) -> str:
    return plan.recipe.name or plan.recipe.representation.kind


class _ShardTask(_Task):
    """A task that makes one stage of one shard."""

    shard = luigi.IntParameter(
        significant=False, positional=False, visibility=ParameterVisibility.HIDDEN
    )
    stage: ClassVar[str]  # decode, resample or representation

    @classmethod
    def of(cls, build: str, shard: Shard) -> Self:
        """This stage of a shard of a build."""
        the_build = build_of(build)
        plan = the_build.plan
        where = f"shard {shard.index + 1} of {len(plan.shards)}"
        return cls(
            about=f"{_name(plan)}, {where}, {len(shard.sources)} clips",
            root=storage.name(the_build.root),
            key=the_build.artifact(cls.stage, shard).name,
            build=build,
            shard=shard.index,
        )

    @property
    def the_shard(self) -> Shard:
        """The shard this task works on."""
        return self.the_build.plan.shards[self.shard]

    def path(self) -> Path:
        return self.the_build.artifact(self.stage, self.the_shard)

    @property
    def transform(self) -> Transform:
        """What the stages compute with, in a process that was found to compute what it should."""
        self.the_build.guard()
        return Transform(self.the_build.plan.recipe)

    @property
    def priority(self) -> int:  # type: ignore[override]
        """Long shards first, so that short ones fill in the end.

        Among those about as long, builds at work at once take them in different orders, and so
        share their work.
        """
        shard = self.the_shard
        order = hash_of("order", attempt=_attempt["id"], shard=shard.keys["decode"])
        return int(shard.seconds).bit_length() << 24 | int(order[:6], 16)

    def requires(self) -> "list[_ShardTask]":
        """The nearest stage before this one whose artifacts are kept, if there is any."""
        build, before = self.the_build, STAGES.index(self.stage)
        kept = [task for task in (Decode, Resample)[:before] if task.stage in build.keep]
        return [task.of(self.build, self.the_shard) for task in kept[-1:]]

    def run(self) -> None:
        """Make the output, then forget the working copies of what it was made from."""
        super().run()
        for stage in STAGES[: STAGES.index(self.stage)]:
            storage.drop(self.the_build.artifact(stage, self.the_shard))

    def made_already(self) -> bool:
        """Whether the output is there, or what is made of it."""
        build, later = self.the_build, STAGES[STAGES.index(self.stage) :]
        return any(storage.exists(build.artifact(stage, self.the_shard)) for stage in later)

    def make(self) -> None:
        """Commit what decode or resample makes."""
        write_waveforms(self.path(), partial(self.computed, self.stage))

    def found(self, stage: str) -> Waveforms | None:
        """What a stage made of the shard, if it is there and whole."""
        file = self.the_build.artifact(stage, self.the_shard)
        try:
            return read_waveforms(file)
        except FileNotFoundError:
            return None
        except artifacts.DamagedArtifactError:
            artifacts.remove(file, durable=False)
            return None

    def computed(self, stage: str, spool: Spool) -> Waveforms:
        """What decode or resample makes of the shard, from what is there of the stage before."""
        build, sources = self.the_build, self.the_shard.sources
        decoded = self.found("decode") if stage == "resample" else None
        if decoded is not None:
            return stages.resample(decoded, self.transform, spool=spool)
        return stages.decode(
            sources,
            self.transform,
            root=build.plan.manifest.root,
            spool=spool,
            timeout=build.clip_timeout,
            tell=self._tell(len(sources)),
            resampled=stage == "resample",
        )

    def _tell(self, n_clips: int) -> Callable[[int, int], None]:
        """What tells Luigi's scheduler, once a second, how far the decoding is."""
        said = time.monotonic()

        def tell(done: int, quarantined: int) -> None:
            nonlocal said
            if time.monotonic() - said > _TELL_EVERY or done == n_clips:
                said = time.monotonic()
                message = f"{done} of {n_clips} clips, {quarantined} quarantined"
                self.tell(message, 100 * done // n_clips)

        return tell


class Decode(_ShardTask):
    """Audio files to one channel of samples at their own rate."""

    stage = "decode"


class Resample(_ShardTask):
    """Decoded clips to one sample rate."""

    stage = "resample"


class Represent(_ShardTask):
    """Resampled clips to features, and the counts that statistics are made of."""

    stage = "representation"

    def make(self) -> None:
        """Compute the representation of the clips of the shard, and count its values."""
        from pipeline import statistics

        self._represent()
        # Here, where shards are made at once, and not one after the other in FitNormalization.
        build, made = self.the_build, statistics.read_shard(self.path())
        statistics.counted(build.plan, self.the_shard, made, histograms=build.histograms)
        storage.drop(self.path())

    def _represent(self) -> None:
        from pipeline import store

        build, folder = self.the_build, self.path().parent
        with Spool(folder) as spool:
            waveforms = self.found("resample") or self.computed("resample", spool)
        represented = stages.represent(waveforms, self.transform, folder=folder)
        store.write_shard(
            self.path(),
            represented,
            recipe=build.plan.recipe,
            shard=self.the_shard,
            canary=build.guard(),
        )
        n_clips = len(self.the_shard.sources)
        self._tell(n_clips)(n_clips, len(represented.quarantined))


class MapShards(_SetTask):
    """The features of all shards, computed on a Dask cluster."""

    def output(self) -> list[luigi.LocalTarget]:  # type: ignore[override]
        build = self.the_build
        return [Target(storage.name(build.shard_folder(s))) for s in build.plan.shards]

    def run(self) -> None:
        """Map the shards that are missing over the cluster."""
        from pipeline import cluster

        build = self.the_build
        missing = build.work().pending["representation"]

        def tell(done: int) -> None:
            self.tell(f"{done} of {len(missing)} shards", 100 * done // len(missing))

        cluster.map_shards(self.build, missing, address=build.dask, tell=tell)


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
        build = self.the_build
        return build.root / "artifacts" / "statistics" / f"{build.plan.fit_key}.npz"

    def make(self) -> None:
        """Merge what the shards say of the fit split."""
        from pipeline import statistics

        build = self.the_build
        shards = [statistics.read_shard(build.shard_folder(s)) for s in build.plan.shards]
        refuse_too_many_bad(build, shards)
        fitted = statistics.fit(build.plan, shards, histograms=build.histograms)
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
        from pipeline import statistics, store

        build = self.the_build
        shards = [statistics.read_shard(build.shard_folder(s)) for s in build.plan.shards]
        n_bad = refuse_too_many_bad(build, shards)
        fitted = statistics.read_statistics(FitNormalization.of(self.build).path())
        store.publish(
            self.path(),
            build.plan,
            fitted,
            shard_folder=build.shard_folder,
            catalogue=build.root / "catalogue" / "features",
        )
        for folder in (self.path(), *map(build.shard_folder, build.plan.shards)):
            storage.drop(folder)
        self.tell(f"{len(build.plan.manifest) - n_bad} clips, {n_bad} quarantined")


class LogRun(_SetTask):
    """The feature set's run in MLflow. A tracker that does not answer fails no build."""

    def requires(self) -> Publish:
        """The published feature set."""
        return Publish.of(self.build)

    def complete(self) -> bool:
        """The feature set is there, and its run is logged, or was tried by this very build."""
        build = self.the_build
        if not storage.exists(build.store):
            return False
        if logged_run(build) is not None:
            return True
        marker = run_file(build)
        return storage.exists(marker) and artifacts.read_json(marker)["attempt"] == _attempt["id"]

    def path(self) -> Path:
        return run_file(self.the_build)

    def made_already(self) -> bool:
        """Whether the run is logged."""
        return logged_run(self.the_build) is not None

    def make(self) -> None:
        """Log the feature set, or leave it to the next build if the tracker does not answer."""
        build = self.the_build
        from pipeline import tracking  # imports mlflow, which no other task needs

        run_id, built = None, self._built()
        try:
            folder = build.root / "mlflow"
            manifest = build.plan.manifest
            run_id = tracking.log_run(
                build.store,
                manifest,
                build.tracking_uri,
                folder=folder,
                register_as=build.register_as,
                built=built,
            )
        except tracking.TrackerError as error:
            logging.getLogger("basilar").warning("not logged to MLflow: %s", error)
        marker = {
            "run_id": run_id,
            "uri": build.tracking_uri,
            "attempt": _attempt["id"],
            "registered_as": build.register_as,
            "built": built,
        }
        artifacts.write_json(self.path(), marker)
        self.tell(f"MLflow run {run_id}" if run_id else "MLflow did not answer")

    def _built(self) -> dict[str, Any] | None:
        """What the report says of the build that came first to log the set."""
        build = self.the_build
        known = running.recorded(build.root, build.plan.key)
        begun = running.begun(build.root, self.build)
        if known is not None or begun is None:
            return known
        return {
            "started": begun["started"],
            "seconds": time.time() - begun["started"],
            "shards": len(build.plan.shards),
            "pending": {stage: len(missing) for stage, missing in begun["pending"].items()},
        }


def new_attempt() -> None:
    """Begin a build: a tracker that did not answer is asked again, once."""
    _attempt["id"] = uuid.uuid4().hex


def refuse_too_many_bad(build: Build, shards: "list[ShardTables]") -> int:
    """How many clips are quarantined. Raises TooManyBadError, listing them, if it is too many."""
    from pipeline import statistics

    n_clips, bad = len(build.plan.manifest), list(statistics.quarantined(build.plan, shards))
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
