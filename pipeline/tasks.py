"""The Luigi DAG: Decode → Resample → Represent for each shard, FitNormalization → Publish → LogRun.

A task is identified by its root and the key of what it makes; how it gets there (`build`, `shard`)
is left out of its identity. Every `run()` takes the lock of its output and looks whether another
build has made it meanwhile, which Luigi does not, reads, calls the stage and commits. Artifacts of
stages outside `keep` are removed once the next stage is committed; Luigi does not look upstream of
a complete task, so reruns stay cached.
A rerun that computes nothing should take no time, so Zarr and MLflow are imported by `run()` alone.
"""

import contextlib
import json
import logging
import re
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import luigi
from luigi.parameter import ParameterVisibility

from pipeline import artifacts, audio, canary, locks, running, stages, storage
from pipeline.artifacts import Waveforms
from pipeline.isolation import CLIP_TIMEOUT
from pipeline.keys import STAGES, canonical, hash_of
from pipeline.manifest import Manifest, read_manifest, write_manifest
from pipeline.recipe import Recipe
from pipeline.shards import Plan, Shard, Work, outstanding
from pipeline.transform import Transform

if TYPE_CHECKING:
    from pipeline.statistics import ShardTables

KEEP = ("resample", "representation")
MAX_BAD = 0.01
_TELL_EVERY = 1.0  # seconds

# Names the build in this process and those it forks: a LogRun whose tracker did not answer counts
# as complete in the build that asked, so that nothing above it fails or waits, and as open later.
_attempt = {"id": uuid.uuid4().hex}

# A temporary artifact that another build has removed is computed again where it is read; Luigi
# would refuse to run the task.
_config = luigi.configuration.get_config()
if not _config.has_option("worker", "check_unfulfilled_deps"):
    _config.set("worker", "check_unfulfilled_deps", "false")


class TooManyBadError(RuntimeError):
    """More clips were quarantined than `max_bad` allows."""


@dataclass(frozen=True)
class Build:
    """One build: a plan, where it is carried out, and how. Its text form is a task's parameter."""

    root: Path
    plan: Plan
    tracking_uri: str
    keep: tuple[str, ...] = KEEP
    max_bad: float = MAX_BAD
    register_as: str = ""  # NAME or NAME@ALIAS of a model in MLflow's registry
    clip_timeout: float = CLIP_TIMEOUT  # s, to decode one clip
    dask: str = ""  # address, or scheduler file, of the cluster that computes the shards

    def __post_init__(self) -> None:
        if not re.fullmatch(r"([^/:.%\"'@]+(@[A-Za-z][\w-]*)?)?", self.register_as):
            raise ValueError(
                f"register: {self.register_as!r} is no name of a model; write NAME or NAME@ALIAS, "
                "without / : . % or quotes in NAME"
            )
        if not set(self.keep) <= set(STAGES):
            raise ValueError(
                f"keep: {', '.join(self.keep)} are no stages; allowed are {', '.join(STAGES)}"
            )
        if not 0 < self.clip_timeout < float("inf"):
            raise ValueError(
                f"clip timeout: {self.clip_timeout:g} s is refused; it must be above 0 and finite"
            )

    def guard(self) -> list[str]:
        """Check that this process computes what it should: the warnings. Raises CanaryError."""
        catalogue = self.root / "catalogue"
        return canary.guard(self.plan.recipe, decoders=self._decoders, catalogue=catalogue)

    @cached_property
    def _decoders(self) -> set[audio.Decoder]:
        return set(self.plan.manifest.table.column("decoder").unique().to_pylist()) - {""}

    def register(self, *, scheduler: str = "") -> str:
        """Enter recipe and manifest into the root's catalogue and return the build as text.

        Every build begins here, and is at work in the root until the process ends, or
        `locks.session` does; others see that it runs, and by which luigid they can help. What
        killed builds left is removed if no other is at work. Raises CanaryError, before anything is
        written.
        """
        canary.guard(self.plan.recipe, decoders=self._decoders)
        with contextlib.suppress(locks.BusyError), locks.alone(self.root):
            artifacts.sweep(self.root)
        locks.enter(self.root)
        self.guard()
        recipe, manifest = self.plan.recipe, self.plan.manifest
        file = self.root / "catalogue" / "recipes" / f"{self.plan.hashes['normalization']}.json"
        if not storage.exists(file):
            artifacts.write_json(file, recipe.resolved())
        file = _manifest_file(self.root, manifest.hash)
        if not storage.exists(file) or not read_manifest(file).table.equals(manifest.table):
            write_manifest(manifest, file)
            build_of.cache_clear()  # paths are not part of its text
            _manifest_of.cache_clear()
        text = canonical(
            {
                "root": storage.name(self.root),
                "recipe": recipe.resolved(),
                "manifest": manifest.hash,
                "audio_root": storage.name(manifest.root),
                "shard_seconds": self.plan.shard_seconds,
                "keep": list(self.keep),
                "max_bad": self.max_bad,
                "tracking_uri": self.tracking_uri,
                "register_as": self.register_as,
                "clip_timeout": self.clip_timeout,
                "dask": self.dask,
            }
        )
        if not storage.exists(self.store):
            # Here, and not again in each of the processes that tasks are forked into.
            import pandas  # noqa: F401  # PyArrow does so when it makes a table

            from pipeline import store  # noqa: F401
        running.begin(
            self.root,
            text,
            key=self.plan.key,
            name=recipe.name or recipe.representation.kind,
            scheduler=scheduler,
            pending={s: [shard.index for shard in p] for s, p in self.work().pending.items()},
        )
        return text

    @cached_property
    def store(self) -> Path:
        """Where the feature set is published."""
        return self.root / "features" / f"{self.plan.key}.zarr"

    def artifact(self, stage: str, shard: Shard) -> Path:
        """Where what a stage makes of a shard lies."""
        suffix = f".{self.plan.layout}" if stage == "representation" else ""
        return self.root / "artifacts" / stage / f"{shard.keys[stage]}{suffix}"

    def shard_folder(self, shard: Shard) -> Path:
        """Where the features of a shard lie."""
        return self.artifact("representation", shard)

    def work(self) -> Work:
        """What of the plan is missing under the root."""
        return outstanding(
            self.plan,
            published=storage.exists(self.store),
            exists=lambda stage, shard: storage.exists(self.artifact(stage, shard)),
        )

    def awaits(self, stage: str, key: str) -> bool:
        """Whether this build has yet to read what a stage made of a shard."""
        for shard in self.plan.shards:
            if shard.keys[stage] == key:
                later = STAGES[STAGES.index(stage) + 1 :]
                made = any(storage.exists(self.artifact(name, shard)) for name in later)
                return not made and not storage.exists(self.store)
        return False

    def discard(self, stage: str, shard: Shard) -> None:
        """Remove what a stage made of a shard, if it is temporary and no build will read it.

        Builds that run at once look after they have committed: the last one sees the others done.
        """
        file, key = self.artifact(stage, shard), shard.keys[stage]
        if stage in self.keep or not file.exists():
            storage.drop(file)
            return
        if not any(build_of(text).awaits(stage, key) for text in running.builds(self.root)):
            artifacts.remove(file, durable=False)


@lru_cache(maxsize=64)
def build_of(text: str) -> Build:
    """The build that a task's parameter describes."""
    fields: dict[str, Any] = json.loads(text)
    root = storage.place(fields["root"])
    manifest = _manifest_of(_manifest_file(root, fields["manifest"]))
    manifest = replace(manifest, root=storage.place(fields["audio_root"]))
    recipe = Recipe.from_dict(fields["recipe"])
    plan = Plan(recipe, manifest, fields["shard_seconds"])
    return Build(
        root,
        plan,
        fields["tracking_uri"],
        tuple(fields["keep"]),
        fields["max_bad"],
        fields["register_as"],
        fields["clip_timeout"],
        fields["dask"],
    )


@lru_cache(maxsize=2)
def _manifest_of(file: Path) -> Manifest:
    """A manifest, once for all the recipes that are built over it."""
    return read_manifest(file)


def _manifest_file(root: Path, manifest_hash: str) -> Path:
    return root / "catalogue" / "manifests" / f"{manifest_hash}.parquet"


class Target(luigi.LocalTarget):
    """A path, or a URL, that exists when what it names is whole."""

    def exists(self) -> bool:
        """Whether it is there."""
        return storage.exists(storage.place(self.path))


class _Task(luigi.Task):
    """A task that makes one thing under a root."""

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


class _ShardTask(_Task):
    """A task that makes one stage of one shard."""

    shard = luigi.IntParameter(significant=False, positional=False)
    stage: ClassVar[str]  # decode, resample or representation

    @classmethod
    def of(cls, build: str, shard: Shard) -> Self:
        """This stage of a shard of a build."""
        the_build = build_of(build)
        key = the_build.artifact(cls.stage, shard).name
        return cls(root=storage.name(the_build.root), key=key, build=build, shard=shard.index)

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
        """Builds at work at once take shards in different orders, and so share their work."""
        key = self.the_shard.keys["decode"]
        return int(hash_of("order", attempt=_attempt["id"], shard=key)[:6], 16)

    def run(self) -> None:
        """Make the output, then remove what it was made from if that is not kept."""
        super().run()
        for stage in STAGES[: STAGES.index(self.stage)][-1:]:
            self.the_build.discard(stage, self.the_shard)

    def made_already(self) -> bool:
        """Whether the output is there, or what another build has made of it and removed it."""
        build, later = self.the_build, STAGES[STAGES.index(self.stage) :]
        return any(storage.exists(build.artifact(stage, self.the_shard)) for stage in later)

    def kept(self, stage: str) -> bool:
        """Whether a stage's artifacts outlive the next stage."""
        return stage in self.the_build.keep


class Decode(_ShardTask):
    """Audio files to one channel of samples at their own rate."""

    stage = "decode"

    def make(self) -> None:
        """Decode the clips of the shard."""
        artifacts.write_waveforms(self.path(), self.made(), durable=self.kept("decode"))

    def made(self) -> Waveforms:
        """What the task makes, read if it is there, else computed."""
        build, sources = self.the_build, self.the_shard.sources
        root, timeout = build.plan.manifest.root, build.clip_timeout
        return _read_or(
            self.path(),
            lambda: stages.decode(
                sources,
                self.transform,
                root=root,
                folder=self.path().parent,
                timeout=timeout,
                tell=self._tell(len(sources)),
            ),
        )

    def _tell(self, n_clips: int) -> Callable[[int, int], None]:
        """What tells Luigi's scheduler, once a second, how far the decoding is."""
        said = time.monotonic()

        def tell(done: int, quarantined: int) -> None:
            nonlocal said
            # Luigi sets both while it runs a task; a Dask worker calls `run` alone.
            if self.set_status_message is None or self.set_progress_percentage is None:
                return
            if time.monotonic() - said > _TELL_EVERY or done == n_clips:
                said = time.monotonic()
                self.set_status_message(f"{done} of {n_clips} clips, {quarantined} quarantined")
                self.set_progress_percentage(100 * done // n_clips)

        return tell


class Resample(_ShardTask):
    """Decoded clips to one sample rate."""

    stage = "resample"

    def requires(self) -> Decode:
        """The decoded shard."""
        return Decode.of(self.build, self.the_shard)

    def make(self) -> None:
        """Resample the clips of the shard."""
        artifacts.write_waveforms(self.path(), self.made(), durable=self.kept("resample"))

    def made(self) -> Waveforms:
        """What the task makes, read if it is there, else computed."""
        return _read_or(
            self.path(),
            lambda: stages.resample(
                self.requires().made(), self.transform, folder=self.path().parent
            ),
        )


class Represent(_ShardTask):
    """Resampled clips to features."""

    stage = "representation"

    def requires(self) -> Resample:
        """The resampled shard."""
        return Resample.of(self.build, self.the_shard)

    def make(self) -> None:
        """Compute the representation of the clips of the shard."""
        from pipeline import store

        represented = stages.represent(
            self.requires().made(), self.transform, folder=self.path().parent
        )
        store.write_shard(
            self.path(),
            represented,
            recipe=self.the_build.plan.recipe,
            shard=self.the_shard,
            canary=self.the_build.guard(),
        )
        storage.drop(self.path())


class MapShards(_Task):
    """The features of all shards, computed on a Dask cluster."""

    @classmethod
    def of(cls, build: str) -> "MapShards":
        """The shards of a build."""
        the_build = build_of(build)
        key = f"{the_build.plan.key}.{the_build.plan.layout}"
        return cls(root=storage.name(the_build.root), key=key, build=build)

    def output(self) -> list[luigi.LocalTarget]:  # type: ignore[override]
        build = self.the_build
        return [Target(storage.name(build.shard_folder(s))) for s in build.plan.shards]

    def run(self) -> None:
        """Map the shards that are missing over the cluster."""
        from pipeline import cluster

        build = self.the_build
        missing = build.work().pending["representation"]
        cluster.map_shards(self.build, missing, address=build.dask, tell=self._tell(len(missing)))

    def _tell(self, n_shards: int) -> Callable[[int], None]:
        def tell(done: int) -> None:
            if self.set_status_message is not None and self.set_progress_percentage is not None:
                self.set_status_message(f"{done} of {n_shards} shards")
                self.set_progress_percentage(100 * done // n_shards)

        return tell


def _represented(build: str) -> list[luigi.Task]:
    """The tasks that make the features of all shards."""
    the_build = build_of(build)
    if the_build.dask:
        return [MapShards.of(build)]
    return [Represent.of(build, shard) for shard in the_build.plan.shards]


def _read_or(path: Path, compute: Callable[[], Waveforms]) -> Waveforms:
    """An artifact, or what it would hold.

    Another build that shares a temporary artifact may have removed it, and a power cut may have
    left it damaged: neither fails a build.
    """
    try:
        return artifacts.read_waveforms(path)
    except FileNotFoundError:
        return compute()
    except artifacts.DamagedArtifactError:
        artifacts.remove(path, durable=False)
        return compute()


class FitNormalization(_Task):
    """The statistics of the fit split."""

    @classmethod
    def of(cls, build: str) -> "FitNormalization":
        """The statistics of a build."""
        the_build = build_of(build)
        return cls(
            root=storage.name(the_build.root),
            key=f"{the_build.plan.fit_key()}.{the_build.plan.layout}",
            build=build,
        )

    def requires(self) -> list[luigi.Task]:
        """The features of all shards."""
        return _represented(self.build)

    def path(self) -> Path:
        build = self.the_build
        return build.root / "artifacts" / "statistics" / f"{build.plan.fit_key()}.npz"

    def make(self) -> None:
        """Merge what the shards say of the fit split."""
        from pipeline import statistics

        build = self.the_build
        shards = [statistics.read_shard(build.shard_folder(s)) for s in build.plan.shards]
        refuse_too_many_bad(build, shards)
        histograms = build.root / "artifacts" / "histogram"
        fitted = statistics.fit(build.plan, shards, histograms=histograms)
        statistics.write_statistics(self.path(), fitted)


class Publish(_Task):
    """The feature set: all shards in one Zarr store."""

    @classmethod
    def of(cls, build: str) -> "Publish":
        """The feature set of a build."""
        the_build = build_of(build)
        key = f"{the_build.plan.key}.{the_build.plan.layout}"
        return cls(root=storage.name(the_build.root), key=key, build=build)

    def requires(self) -> list[luigi.Task]:
        """The statistics and the features of all shards."""
        return [FitNormalization.of(self.build), *_represented(self.build)]

    def path(self) -> Path:
        return self.the_build.store

    def make(self) -> None:
        """Link the shards into one store."""
        from pipeline import statistics, store

        build = self.the_build
        for shard in build.plan.shards:  # what a killed build made and could not remove
            for stage in STAGES[:2]:
                build.discard(stage, shard)
        refuse_too_many_bad(
            build, [statistics.read_shard(build.shard_folder(s)) for s in build.plan.shards]
        )
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


class LogRun(_Task):
    """The feature set's run in MLflow. A tracker that does not answer fails no build."""

    @classmethod
    def of(cls, build: str) -> "LogRun":
        """The run of a build: its last task."""
        the_build = build_of(build)
        key = f"{the_build.plan.key}.{the_build.plan.layout}"
        return cls(root=storage.name(the_build.root), key=key, build=build)

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


def embedded_tracking_uri(root: Path) -> str:
    """The MLflow store under a root: what is used where no other is named.

    Raises ValueError for a root whose name a database URI cannot hold, and for an object store.
    """
    if storage.is_remote(root):
        raise ValueError(
            f"{storage.name(root)}: MLflow cannot keep its database in an object store; name a "
            "tracker (--tracking-uri), such as sqlite:////home/me/mlflow.db"
        )
    database = str(root.absolute() / "mlflow" / "mlflow.db")
    if set(database) & set("?%"):
        raise ValueError(
            f"{root}: MLflow cannot keep its database in a folder with ? or % in its name; take "
            "another root, or name a tracker (--tracking-uri)"
        )
    return f"sqlite:///{database}"


def run_file(build: Build) -> Path:
    """Where the id of a feature set's MLflow run is kept, one for each tracker."""
    tracker = hash_of("tracker", uri=build.tracking_uri)[:8]
    return build.root / "runs" / f"{build.plan.key}-{tracker}.json"


def logged_run(build: Build) -> str | None:
    """The id of the MLflow run of a build's feature set; None if it was not logged.

    A run in the root's own tracker is gone with the tracker's database, and one whose model is to
    be registered under another name is not done.
    """
    marker, database = run_file(build), build.root / "mlflow" / "mlflow.db"
    embedded = not storage.is_remote(build.root) and (
        build.tracking_uri == embedded_tracking_uri(build.root)
    )
    if not storage.exists(marker) or (embedded and not database.exists()):
        return None
    known = artifacts.read_json(marker)
    run_id: str | None = known["run_id"]
    return run_id if build.register_as in ("", known.get("registered_as")) else None


def refuse_too_many_bad(build: Build, shards: "list[ShardTables]") -> None:
    """Raise TooManyBadError, listing them, if more clips are quarantined than is allowed."""
    from pipeline import statistics

    n_clips, bad = len(build.plan.manifest), list(statistics.quarantined(build.plan, shards))
    allowed = max(1, int(build.max_bad * n_clips + 1e-6))
    if len(bad) <= allowed and len(bad) < n_clips:
        return
    shown = [f"  {clip_id}: {e.stage}: {e.reason}: {e.message}" for clip_id, e in bad[:50]]
    if len(bad) > 50:
        shown.append(f"  … and {len(bad) - 50} more")
    raise TooManyBadError(
        f"{storage.name(build.root)}: {len(bad)} of {n_clips} clips cannot be used, {allowed} are "
        "allowed, and nothing is published; mend or remove them, or raise --max-bad\n"
        + "\n".join(shown)
    )
