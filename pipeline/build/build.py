"""A build: a plan, the root it is carried out in, and the options. Luigi's tasks get it as text."""

import contextlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from basilar.pipeline import errors, storage
from basilar.pipeline.build import registry
from basilar.pipeline.compute.guard import deviations, guard
from basilar.pipeline.compute.here import decoders_of
from basilar.pipeline.defaults import CLIP_TIMEOUT, KEEP, MAX_BAD
from basilar.pipeline.errors import CanaryError, ManifestError
from basilar.pipeline.hashing import canonical, hash_of
from basilar.pipeline.manifests.manifest import Manifest
from basilar.pipeline.manifests.table import release_memory
from basilar.pipeline.plan import Plan, Shard, Work, outstanding
from basilar.pipeline.recipes.hashes import STAGES
from basilar.pipeline.recipes.recipe import Recipe
from basilar.pipeline.storage import atomic, files, locks
from basilar.pipeline.tracking.location import is_embedded

_MOST_BUILDS = 64  # that a process remembers


@dataclass(frozen=True, kw_only=True)
class Build:
    """One build: a plan, its root, and its options. Its text form is a task's parameter."""

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
        """Check that this process computes what the build was planned with: the warnings.

        Raises CanaryError if it does not, or computes something else than was released.
        """
        plan, catalogue = self.plan, self.root / "catalogue"
        decoders = decoders_of(plan.manifest)
        warnings = guard(plan.recipe, decoders=decoders, catalogue=catalogue)
        found = deviations(plan.recipe, decoders=decoders, catalogue=catalogue)
        here = {name: deviation.identity for name, deviation in found.items()}
        if here != plan.deviations:
            pairs = {*here.items()} ^ {*plan.deviations.items()}
            names = ", ".join(sorted({name for name, _ in pairs}))
            raise CanaryError(
                f"{names}: here it has other bits than where this build was planned, and a key is "
                "for one set of bits; build on machines of one kind, or each kind for itself"
            )
        return warnings

    def register(self, *, scheduler: str = "") -> str:
        """Enter recipe and manifest into the root's catalogue and return the build as text.

        Every build begins here, and is at work in the root until the process ends, or
        `locks.session` does; other processes see that it runs, and by which luigid they can help.
        If no other build runs, what killed builds left is removed. Artifacts that lack clips which
        crashed or timed out are removed if the set is neither published nor being built. Raises
        CanaryError, before anything is written.
        """
        guard(self.plan.recipe, decoders=decoders_of(self.plan.manifest))
        with contextlib.suppress(errors.BusyError), locks.alone(self.root):
            atomic.sweep(self.root)
        locks.enter(self.root)
        self.guard()
        recipe, manifest = self.plan.recipe, self.plan.manifest
        file = self.root / "catalogue" / "recipes" / f"{self.plan.hashes['normalization']}.json"
        if not storage.exists(file):
            files.write_json(file, recipe.resolved())
        _enter_manifest(self.root, manifest)
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
                **({"deviations": dict(self.plan.deviations)} if self.plan.deviations else {}),
            }
        )
        _remember(text, self)
        if not storage.exists(self.store):
            # Here, and not again in each of the processes that tasks are forked into.
            import pandas  # noqa: F401  # PyArrow does so when it makes a table

            from basilar.pipeline.store import publish  # noqa: F401

            if not any(record["build"] == text for record in registry.records(self.root)):
                self._forget_losses()
        registry.begin(
            self.root,
            text,
            key=self.plan.key,
            name=recipe.name or recipe.representation.kind,
            scheduler=scheduler,
            pending={s: [shard.index for shard in p] for s, p in self.work().pending.items()},
        )
        release_memory()  # before processes are forked
        return text

    @cached_property
    def store(self) -> Path:
        """Where the feature set is published."""
        return self.root / "features" / f"{self.plan.key}.zarr"

    def artifact(self, stage: str, shard: Shard) -> Path:
        """The path of a stage's artifact for a shard."""
        suffix = f".{self.plan.layout_hash}" if stage == "representation" else ""
        return self.root / "artifacts" / stage / f"{shard.keys[stage]}{suffix}"

    @property
    def histograms(self) -> Path:
        """The folder of the histograms of shards."""
        return self.root / "artifacts" / "histogram"

    @property
    def statistics(self) -> Path:
        """The path of the statistics of the fit split."""
        return self.root / "artifacts" / "statistics" / f"{self.plan.fit_key}.npz"

    def shard_folder(self, shard: Shard) -> Path:
        """The folder of the features of a shard."""
        return self.artifact("representation", shard)

    def work(self, *, begun: bool = True) -> Work:
        """The part of the plan that is missing under the root, now or once the build has begun."""
        lost = set() if begun else {artifact for _, artifact, _ in self._losses()}

        def exists(stage: str, shard: Shard) -> bool:
            artifact = self.artifact(stage, shard)
            return artifact not in lost and storage.exists(artifact)

        return outstanding(self.plan, published=storage.exists(self.store), exists=exists)

    def note_loss(self, artifact: Path) -> None:
        """Note, before it is committed, that an artifact lacks clips that crashed or timed out."""
        files.write_json(self._loss(artifact), {"clip_timeout": self.clip_timeout})

    def _loss(self, artifact: Path) -> Path:
        return self.root / "artifacts" / "lost" / f"{artifact.parent.name}-{artifact.name}"

    def _losses(self) -> Iterator[tuple[Shard, Path, Path]]:
        """The artifacts of the plan that lack clips, each with its shard and its note."""
        noted = set(storage.children(self.root / "artifacts" / "lost", "[!.]*"))
        for shard in self.plan.shards if noted else ():
            for artifact in (self.artifact(stage, shard) for stage in STAGES):
                if (note := self._loss(artifact)) in noted:
                    yield shard, artifact, note

    def _forget_losses(self) -> None:
        """Remove what earlier builds made without clips that crashed or timed out.

        No key depends on how long a clip may take, or on how much memory there was: other sets, and
        this one if it is built again, must not inherit it.
        """
        keys = set()
        for shard, artifact, note in self._losses():
            with locks.sole(self.root, str(artifact.relative_to(self.root))):
                atomic.remove(artifact)
                atomic.remove(note)
            keys.add(shard.keys["representation"])
        if keys:
            from basilar.pipeline.store import statistics

            statistics.forget(self.root / "artifacts", keys)


_builds: dict[str, Build] = {}  # by their text


def build_of(text: str) -> Build:
    """The build that a task's parameter describes."""
    if text not in _builds:
        _remember(text, _read(text))
    return _builds[text]


def _remember(text: str, build: Build) -> None:
    _builds[text] = build
    for oldest in list(_builds)[:-_MOST_BUILDS]:
        del _builds[oldest]


def _read(text: str) -> Build:
    fields: dict[str, Any] = json.loads(text)
    root, audio_root = storage.place(fields["root"]), storage.place(fields["audio_root"])
    manifest = _manifest_of(_manifest_file(root, fields["manifest"]))
    if manifest.root != audio_root:
        manifest = replace(manifest, root=audio_root)
    recipe = Recipe.from_dict(fields["recipe"])
    plan = Plan(recipe, manifest, fields["shard_seconds"], fields.get("deviations", {}))
    return Build(
        root=root,
        plan=plan,
        tracking_uri=fields["tracking_uri"],
        keep=tuple(fields["keep"]),
        max_bad=fields["max_bad"],
        register_as=fields["register_as"],
        clip_timeout=fields["clip_timeout"],
        dask=fields["dask"],
    )


@lru_cache(maxsize=2)
def _manifest_of(file: Path) -> Manifest:
    """A manifest, once for all the recipes that are built over it."""
    return Manifest.read(file)


def _enter_manifest(root: Path, manifest: Manifest) -> None:
    """Record in a root's catalogue where the audio is now."""
    file, known = _manifest_file(root, manifest.hash), None
    if storage.exists(file):
        with contextlib.suppress(ManifestError):  # a damaged one is written again
            known = Manifest.read(file)
    same = known is not None and known.table.equals(manifest.table)
    if same and known is not None and known.root.resolve() == manifest.root.resolve():
        return
    try:
        manifest.write(file)
    except OSError:
        if not same:  # from a root that is read-only, a set can be had wherever its audio is
            raise
    _builds.clear()  # paths are not part of their text
    _manifest_of.cache_clear()


def _manifest_file(root: Path, manifest_hash: str) -> Path:
    return root / "catalogue" / "manifests" / f"{manifest_hash}.parquet"


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
    embedded = is_embedded(build.tracking_uri, build.root)
    if not storage.exists(marker) or (embedded and not database.exists()):
        return None
    known = files.read_json(marker)
    run_id: str | None = known["run_id"]
    return run_id if build.register_as in ("", known.get("registered_as")) else None
