"""Luigi's tasks of one shard, Decode → Resample → Represent, and what all tasks have in common.

A stage is a task if its artifact is kept; else the next task computes it on the way, and nothing of
it is written. Keys, values and what counts as done are the same either way.
"""

import logging
import time
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import ClassVar, Self

import luigi
from luigi.parameter import ParameterVisibility

from basilar.pipeline import errors, storage
from basilar.pipeline.build.build import Build, build_of
from basilar.pipeline.compute import stages
from basilar.pipeline.compute.transform import Transform
from basilar.pipeline.compute.waveforms import Waveforms, read_waveforms, write_waveforms
from basilar.pipeline.hashing import hash_of
from basilar.pipeline.manifests.table import release_memory
from basilar.pipeline.plan import Plan, Shard
from basilar.pipeline.recipes.hashes import STAGES
from basilar.pipeline.storage import atomic, locks
from basilar.pipeline.storage.scratch import Spool

_TELL_EVERY = 1.0  # seconds

# Names the build in this process and those it forks.
_attempt = {"id": uuid.uuid4().hex}


def new_attempt() -> None:
    """Begin a build: a tracker that did not answer is asked again, once."""
    _attempt["id"] = uuid.uuid4().hex


def attempt() -> str:
    """The name of the build that this process works on."""
    return _attempt["id"]


class Target(luigi.LocalTarget):
    """A path, or a URL, which exists when its content is complete."""

    def exists(self) -> bool:
        """Whether it is there."""
        return storage.exists(storage.place(self.path))


class Task(luigi.Task):
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
        """The path of the task's output."""
        raise NotImplementedError

    def output(self) -> luigi.LocalTarget:
        """The target whose existence means the task is complete."""
        return Target(storage.name(self.path()))

    def run(self) -> None:
        """Make the output, unless another process has made it before this one gets its lock."""
        root = storage.place(self.root)
        locks.enter(root)
        with locks.sole(root, str(self.path().relative_to(root))):
            if not self.is_made():
                self.make()

    def is_made(self) -> bool:
        """Whether there is nothing to make."""
        return storage.exists(self.path())

    def make(self) -> None:
        """Make the output and commit it."""
        raise NotImplementedError

    def tell(self, message: str, percentage: int = 100) -> None:
        """Tell Luigi's scheduler how far the task is.

        Luigi's page shows a message as HTML, so it has only counts and hashes, and no names.
        """
        # Luigi sets both while it runs a task; a Dask worker calls `run` alone.
        if self.set_status_message is not None and self.set_progress_percentage is not None:
            self.set_status_message(message)
            self.set_progress_percentage(percentage)


def name_of(plan: Plan) -> str:
    """The name of a plan in messages."""
    return plan.recipe.name or plan.recipe.representation.kind


class ShardTask(Task):
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
            about=f"{name_of(plan)}, {where}, {shard.n_contents} clips",
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
        """The transform that the stages use, after the canaries of this process were checked."""
        self.the_build.guard()
        return Transform(self.the_build.plan.recipe)

    @property
    def priority(self) -> int:  # type: ignore[override]
        """Long shards first, so that short ones fill in the end.

        Simultaneous builds take shards of about the same length in different orders, and so share
        the work.
        """
        shard = self.the_shard
        order = hash_of("order", attempt=attempt(), shard=shard.keys["decode"])
        return int(shard.seconds).bit_length() << 24 | int(order[:6], 16)

    def requires(self) -> "list[ShardTask]":
        """The nearest stage before this one whose artifacts are kept, if there is any."""
        build, before = self.the_build, STAGES.index(self.stage)
        kept = [task for task in (Decode, Resample)[:before] if task.stage in build.keep]
        return [task.of(self.build, self.the_shard) for task in kept[-1:]]

    def run(self) -> None:
        """Make the output, then remove the working copies of its inputs."""
        super().run()
        for stage in STAGES[: STAGES.index(self.stage)]:
            storage.drop(self.the_build.artifact(stage, self.the_shard))

    def is_made(self) -> bool:
        """Whether the output, or the output of a later stage, is there."""
        build, later = self.the_build, STAGES[STAGES.index(self.stage) :]
        return any(storage.exists(build.artifact(stage, self.the_shard)) for stage in later)

    def make(self) -> None:
        """Commit what decode or resample makes."""
        write_waveforms(self.path(), partial(self.compute, self.stage))

    def read_made(self, stage: str) -> Waveforms | None:
        """The artifact of a stage for the shard, if it is there and whole."""
        file = self.the_build.artifact(stage, self.the_shard)
        try:
            return read_waveforms(file)
        except FileNotFoundError:
            return None
        except errors.DamagedArtifactError:
            atomic.discard(file)
            return None

    def compute(self, stage: str, spool: Spool) -> Waveforms:
        """Decode or resample the shard, from the artifact of the stage before if there is one."""
        build, sources = self.the_build, self.the_shard.sources
        decoded = self.read_made("decode") if stage == "resample" else None
        if decoded is not None:
            return self.note_losses(stages.resample(decoded, self.transform, spool=spool))
        made = stages.decode(
            sources,
            self.transform,
            root=build.plan.manifest.root,
            spool=spool,
            timeout=build.clip_timeout,
            tell=self._tell(len(sources)),
            resampled=stage == "resample",
        )
        return self.note_losses(made)

    def note_losses(self, waveforms: Waveforms) -> Waveforms:
        """Record the clips that the machine, not their content, lost; return the waveforms."""
        if any(entry.reason in stages.LOST for entry in waveforms.quarantined):
            self.the_build.note_loss(self.path())
        return waveforms

    def _tell(self, n_clips: int) -> Callable[[int, int], None]:
        """A function that tells Luigi's scheduler, once a second, the progress of decoding."""
        said = time.monotonic()

        def tell(done: int, quarantined: int) -> None:
            nonlocal said
            if time.monotonic() - said > _TELL_EVERY or done == n_clips:
                said = time.monotonic()
                message = f"{done} of {n_clips} clips, {quarantined} quarantined"
                self.tell(message, 100 * done // n_clips)

        return tell


class Decode(ShardTask):
    """Audio files to one channel of samples at their own rate."""

    stage = "decode"


class Resample(ShardTask):
    """Decoded clips to one sample rate."""

    stage = "resample"


class Represent(ShardTask):
    """Resampled clips to features, and the counts that statistics are made of."""

    stage = "representation"

    def make(self) -> None:
        """Compute the representation of the clips of the shard, and the histogram of its values."""
        from basilar.pipeline.store import shard_tables, statistics

        self._represent()
        release_memory()
        # Here, where shards are made at once, and not one after the other in FitNormalization.
        build, made = self.the_build, shard_tables.read_shard(self.path())
        statistics.write_histogram(build.plan, self.the_shard, made, histograms=build.histograms)
        storage.drop(self.path())

    def is_made(self) -> bool:
        """Whether the output is there and whole; a damaged one is removed."""
        from basilar.pipeline.store import shard_tables

        if not super().is_made():
            return False
        try:
            shard_tables.read_shard(self.path())
        except errors.DamagedArtifactError as error:
            what = str(error).rpartition(";")[0]
            logging.getLogger("basilar").warning("%s; its shard is made again", what)
            atomic.remove(self.path())
            return False
        return True

    def _represent(self) -> None:
        from basilar.pipeline.store import shard

        build, folder = self.the_build, self.path().parent
        with Spool(folder) as spool:
            found = self.read_made("resample")
            waveforms = self.note_losses(found) if found else self.compute("resample", spool)
        release_memory()
        lost = shard.write_shard(
            self.path(),
            partial(stages.represent, waveforms, self.transform, folder=folder),
            recipe=build.plan.recipe,
            shard=self.the_shard,
            canary=build.guard(),
        )
        n_clips = self.the_shard.n_contents
        self._tell(n_clips)(n_clips, lost)
