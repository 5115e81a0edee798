"""Scan a folder that grows, build every recipe over it, and point to the newest sets, every night.

    python -m luigi --module basilar.workflows.nightly Nightly --audio audio \
        --recipes params/log_mel.toml,params/mfcc.toml --root features --local-scheduler

A scan opens only new files. Recipes share work: clips are decoded once for each distinct `[decode]`
and resampled once for each distinct `[resample]`. If recipes decode alike but resample in different
ways, the decoded audio is kept: 0.6 GB an hour at 44.1 kHz. `ROOT/latest/NAME.json`, named after
the recipe's file, is replaced when the new set is complete; `FeatureSet.open` opens it. A recipe
that fails keeps its old pointer and does not stop the others; Luigi then exits with 1.
"""

import contextlib
import datetime
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any

import luigi

from basilar.pipeline import storage
from basilar.pipeline.build.shard_tasks import Target
from basilar.pipeline.errors import DamagedArtifactError, RecipeError
from basilar.pipeline.manifests.scan import scan
from basilar.pipeline.recipes.recipe import Recipe
from basilar.pipeline.records.record import read_attributes
from basilar.pipeline.storage.files import read_json, write_json
from basilar.workflows.build_feature_set import BuildFeatureSet, PlaceParameter


class Latest(luigi.Task):
    """The pointer to the newest feature set of a recipe."""

    recipe = luigi.PathParameter(description="recipe (TOML), or the name of a shipped one")
    manifest = PlaceParameter(description="manifest (Parquet)")
    root = PlaceParameter(absolute=True, description="folder or URL for artifacts and feature sets")
    keep_decoded = luigi.BoolParameter(significant=False, description="keep decoded audio")

    def requires(self) -> BuildFeatureSet:
        """The feature set."""
        build = BuildFeatureSet(recipe=self.recipe, manifest=self.manifest, root=self.root)
        if not self.keep_decoded:
            return build
        keep = ",".join(sorted({*build.keep.split(","), "decode"}))
        return BuildFeatureSet(
            recipe=self.recipe, manifest=self.manifest, root=self.root, keep=keep
        )

    def output(self) -> luigi.LocalTarget:
        """The pointer, which may still name an older set."""
        name = Path(self.recipe).with_suffix(".json").name
        return Target(storage.name(self.root / "latest" / name))

    def complete(self) -> bool:
        """Whether the pointer names this set, and the set is published and logged."""
        pointer = storage.place(self.output().path)
        storage.drop(pointer)  # another machine may have replaced it
        try:
            known = read_json(pointer)["key"] if storage.exists(pointer) else None
        except DamagedArtifactError:
            return False
        required = self.requires()
        return bool(known == required.planned.plan.key and required.complete())

    def run(self) -> None:
        """Write the pointer."""
        store = self.requires().planned.store
        attributes = read_attributes(store / "zarr.json")
        pointer = {
            "key": attributes["key"],
            "digest": attributes["digest"],
            "since": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        }
        write_json(storage.place(self.output().path), pointer)


def share_decoded(files: list[Path]) -> bool:
    """Whether two recipes decode alike and resample in different ways."""
    found = []
    for file in files:
        with contextlib.suppress(RecipeError, OSError):  # it fails as its own task
            found.append(Recipe.load(file))
    pairs = combinations(found, 2)
    return any(a.decode == b.decode and a.resample != b.resample for a, b in pairs)


class Nightly(luigi.WrapperTask):
    """The newest feature sets of several recipes over a folder of audio."""

    audio = PlaceParameter(absolute=True, description="folder or URL of audio")
    recipes = luigi.Parameter(description="recipes (TOML, or shipped names), separated by commas")
    root = PlaceParameter(absolute=True, description="folder or URL for artifacts and feature sets")
    label = luigi.OptionalParameter(default=None, description="as in basilar scan")
    group = luigi.OptionalParameter(default=None, description="as in basilar scan")
    split: Any = luigi.DictParameter(default={}, description='shares: {"train": 0.8, "test": 0.2}')

    def requires(self) -> list[Latest]:
        """The pointers of all recipes."""
        recipes = [Path(name.strip()) for name in self.recipes.split(",") if name.strip()]
        if len({recipe.stem for recipe in recipes}) < len(recipes):
            raise ValueError(
                f"recipes: {self.recipes}: two files have one name, so their pointers would, too; "
                "rename one"
            )
        where = {"manifest": self.manifest, "root": self.root}
        shared = share_decoded(recipes)
        return [Latest(recipe=recipe, keep_decoded=shared, **where) for recipe in recipes]

    def complete(self) -> bool:
        """Whether all pointers are up to date; an unreadable recipe fails as its own task."""
        try:
            return all(latest.complete() for latest in self.requires())
        except (RecipeError, OSError):
            return False

    @cached_property
    def manifest(self) -> Path:
        """The manifest of the folder as it is now, written to the catalogue of the root."""
        found = scan(self.audio, label=self.label, group=self.group, split=dict(self.split) or None)
        file: Path = self.root / "catalogue" / "manifests" / f"{found.hash}.parquet"
        found.write(file)
        return file
