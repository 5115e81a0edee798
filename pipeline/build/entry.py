"""`basilar.build`: from a recipe and a manifest, as objects, names or files, to a feature set.

The command of that name does the same by the same functions, and prints what they return.
"""

import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from basilar.dsp import kernel
from basilar.pipeline import storage
from basilar.pipeline.build import luigi_engine
from basilar.pipeline.build.build import Build
from basilar.pipeline.compute.here import plan_here
from basilar.pipeline.defaults import CACHE_BYTES, CLIP_TIMEOUT, KEEP, MAX_BAD, SHARD_SECONDS
from basilar.pipeline.errors import BuildFailedError, SchedulerError, UsageError
from basilar.pipeline.manifests.manifest import Manifest
from basilar.pipeline.manifests.scan import read_or_scan
from basilar.pipeline.process import configure
from basilar.pipeline.progress import Progress
from basilar.pipeline.recipes.hashes import STAGES
from basilar.pipeline.recipes.recipe import Recipe
from basilar.pipeline.records.record import attributes_of
from basilar.pipeline.store.reader import Access
from basilar.pipeline.tracking.location import embedded_tracking_uri
from basilar.pipeline.training.feature_set import FeatureSet

Engine = Literal["local", "luigid", "dask"]
PathOrURL = str | os.PathLike[str]  # a path, or a URL


@dataclass(frozen=True, kw_only=True, repr=False)
class BuildResult:
    """The result of a build; its fields are those that `basilar build --json` prints.

    `outcome` is `built`, `published` (all shards were there) or `cached` (so was the set). `stages`
    counts the shards that were computed and cached by stage. `seconds` is the time of the build.
    """

    key: str
    path: Path
    digest: str
    recipe_hash: str
    manifest_hash: str
    clips: int
    quarantined: int
    outcome: str
    shards_computed: int
    shards_cached: int
    stages: dict[str, dict[str, int]]
    seconds: float
    mlflow_run_id: str | None

    def open(
        self,
        *,
        access: Access = "auto",
        memory_limit: int | None = None,
        cache: PathOrURL | None = None,
        cache_bytes: int = CACHE_BYTES,
    ) -> FeatureSet:
        """Open the feature set, with the options of `FeatureSet.open`."""
        return FeatureSet.open(
            storage.name(self.path),
            access=access,
            memory_limit=memory_limit,
            cache=cache,
            cache_bytes=cache_bytes,
        )

    def __repr__(self) -> str:
        return (
            f"BuildResult: {self.outcome} {self.key} in {self.seconds:.1f} s\n"
            f"  {self.clips} clips, {self.quarantined} quarantined, digest {self.digest[:12]}\n"
            f"  {storage.name(self.path)}"
        )


def build(
    recipe: PathOrURL | Mapping[str, Any] | Recipe,
    manifest: PathOrURL | Manifest,
    *,
    root: PathOrURL,
    workers: int = os.cpu_count() or 1,
    shard_seconds: float = SHARD_SECONDS,
    audio_root: PathOrURL | None = None,
    keep: str | Iterable[str] = KEEP,
    max_bad: float = MAX_BAD,
    clip_timeout: float = CLIP_TIMEOUT,
    tracking_uri: str | None = None,
    register: str = "",
    engine: Engine = "local",
    scheduler: str = "",
    dask: str = "",
) -> BuildResult:
    """Build a feature set, or find it built, as the command `basilar build` does.

    `recipe` is the name of a shipped recipe, a TOML file, a table of sections or a `Recipe`;
    `manifest` is a `Manifest`, one that was written, or a folder or table to scan. Options have
    the meaning and the defaults that the command gives them: without `tracking_uri`, the run is
    logged to the tracker that `MLFLOW_TRACKING_URI` names, else to MLflow under the root.

    Raises BuildFailedError with the messages of what failed, RecipeError, ManifestError and
    UsageError.
    """
    configure()  # before a scan uses Arrow
    planned = prepare(
        recipe,
        manifest,
        root=root,
        shard_seconds=shard_seconds,
        audio_root=audio_root,
        keep=keep,
        max_bad=max_bad,
        clip_timeout=clip_timeout,
        tracking_uri=tracking_uri,
        register=register,
        engine=engine,
        scheduler=scheduler,
        dask=dask,
    )
    return carry_out(planned, workers=workers, scheduler=scheduler, tell=False)


def prepare(
    recipe: PathOrURL | Mapping[str, Any] | Recipe,
    manifest: PathOrURL | Manifest,
    *,
    root: PathOrURL,
    shard_seconds: float,
    audio_root: PathOrURL | None,
    keep: str | Iterable[str],
    max_bad: float,
    clip_timeout: float,
    tracking_uri: str | None,
    register: str,
    engine: Engine,
    scheduler: str,
    dask: str,
    progress: Progress = lambda items, total: items,
) -> Build:
    """Plan a build; nothing is written. Raises UsageError, RecipeError and ManifestError."""
    if (bool(scheduler), bool(dask)) != (engine == "luigid", engine == "dask"):
        raise UsageError(
            f"--engine {engine}: it does not fit --scheduler and --dask; luigid needs --scheduler, "
            "dask needs --dask, and no other engine takes them"
        )
    if not 0 < shard_seconds < float("inf"):
        raise UsageError(f"--shard-seconds: {shard_seconds:g} is refused; it must be above 0")
    if not 0 <= max_bad <= 1:
        raise UsageError(f"--max-bad: {max_bad:g} is refused; it must be a share from 0 to 1")
    if audio_root is not None and not storage.is_folder(storage.place(audio_root)):
        raise UsageError(
            f"{os.fspath(audio_root)}: no such folder; name the one that the audio is in now"
        )
    if isinstance(recipe, Mapping):
        recipe = Recipe.from_dict(dict(recipe))
    elif not isinstance(recipe, Recipe):
        recipe = Recipe.load(Path(recipe))
    if not isinstance(manifest, Manifest):
        manifest = read_or_scan(manifest, audio_root=audio_root, progress=progress)
    elif audio_root is not None:
        manifest = manifest.moved_to(audio_root)
    root = storage.place(root).absolute()
    if tracking_uri is None:
        tracking_uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    try:
        return Build(
            root=root,
            plan=plan_here(recipe, manifest, shard_seconds, root=root),
            tracking_uri=tracking_uri or embedded_tracking_uri(root),
            keep=_stages(keep),
            max_bad=max_bad,
            register_as=register,
            clip_timeout=clip_timeout,
            dask=dask,
        )
    except ValueError as error:
        raise UsageError(str(error)) from None


def carry_out(
    build: Build, *, workers: int, scheduler: str = "", show: bool = False, tell: bool = True
) -> BuildResult:
    """Carry out a build; `show` prints its progress on standard error, `tell` its failures.

    Raises BuildFailedError, or UsageError where no luigid answers.
    """
    if workers < 1:
        raise UsageError(f"--workers: {workers} is refused; it must be 1 or more")
    try:
        done = luigi_engine.run(build, workers=workers, scheduler=scheduler, show=show, tell=tell)
    except SchedulerError as error:
        raise UsageError(str(error)) from None
    key = build.plan.key
    if not done.succeeded:
        root = storage.name(build.root)
        raise BuildFailedError(
            f"{root}: the build of {key[:12]} failed; mend what failed, and build again, which "
            f"continues where it stopped{done.reasons}",
            done.failures or [f"{root}: what failed is said where it ran; see there"],
        )
    attributes = attributes_of(build.store)
    if attributes["recipe"]["store"] != build.plan.recipe.store.model_dump():
        logging.getLogger("basilar").warning(
            "note: %s is published with [store] %s; the values are the same. To store them "
            "as the recipe says, delete its path and build again.",
            *(key[:12], attributes["recipe"]["store"]),
        )
    if done.shards_computed and kernel.in_use() == "NumPy":
        logging.getLogger("basilar").warning(
            "note: NumPy computed the frames, which gives the same bits as the kernel in C and "
            "takes many times as long; basilar doctor says why."
        )
    names = ("digest", "recipe_hash", "manifest_hash", "clips", "quarantined")
    return BuildResult(
        key=key,
        path=build.store,
        **{name: attributes[name] for name in names},
        outcome=done.verb,
        shards_computed=done.shards_computed,
        shards_cached=len(build.plan.shards) - done.shards_computed,
        stages={
            stage: {"computed": done.computed[stage], "cached": done.cached[stage]}
            for stage in done.computed
        },
        seconds=round(done.seconds, 3),
        mlflow_run_id=done.mlflow_run_id,
    )


def _stages(keep: str | Iterable[str]) -> tuple[str, ...]:
    """The stages whose artifacts are kept: those that are named, and `representation`."""
    named = keep.split(",") if isinstance(keep, str) else list(keep)
    stages = {name.strip() for name in named if name.strip()} | {"representation"}
    if not stages <= set(STAGES):
        raise UsageError(
            f"--keep: {','.join(named)!r} names what is no stage; allowed are {', '.join(STAGES)}, "
            "separated by commas"
        )
    return tuple(sorted(stages))
