"""Records of feature sets: the provenance of a set, from which it can be built again.

Every published key is recorded three times: in its store, in the root's catalogue, which outlives
the store, and in its MLflow run. A record that does not hash to its own key is rejected.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from basilar.pipeline import storage
from basilar.pipeline.compute.here import plan_here
from basilar.pipeline.errors import DamagedArtifactError, NoRecordError
from basilar.pipeline.manifests.manifest import Manifest
from basilar.pipeline.plan import Plan
from basilar.pipeline.recipes.hashes import feature_key, recipe_hashes
from basilar.pipeline.recipes.recipe import Recipe
from basilar.pipeline.storage.files import read_table
from basilar.pipeline.store.attributes import Published, checked_attributes
from basilar.pipeline.training.feature_set import FeatureSet


@dataclass(frozen=True)
class Record(Published):
    """The record of a published feature set.

    `source` is where it was found: store, catalogue or mlflow. `clips_file` is its table of clips,
    `store` the folder of its values, if it is available.
    """

    source: str
    attributes: dict[str, Any]
    recipe: Recipe
    manifest: Manifest
    clips_file: Path
    store: Path | None = None

    @cached_property
    def clips(self) -> list[dict[str, Any]]:
        """Its clips in content order, as rows of the store's table."""
        try:
            rows: list[dict[str, Any]] = read_table(self.clips_file).to_pylist()
        except (OSError, ValueError, pa.ArrowException) as error:
            raise DamagedArtifactError(
                f"{self.clips_file}: it cannot be read ({error}); restore it, or build again"
            ) from None
        return rows

    def plan(self, manifest: Manifest | None = None, shard_seconds: float | None = None) -> Plan:
        """The plan that made it; a manifest with new paths, or another shard size, may be given."""
        seconds = shard_seconds or self.attributes["shard_seconds"]
        return plan_here(self.recipe, manifest or self.manifest, seconds, strict=False)

    def open(self) -> FeatureSet:
        """The set itself, whose recipe is validated already. Raises ValueError without a store."""
        if self.store is None:
            raise ValueError(f"{self.key}: its store was deleted; basilar reproduce makes it again")
        fs = FeatureSet.open(self.store)
        fs.typed_recipe = self.recipe
        return fs


def recorded_keys(root: Path) -> list[str]:
    """All keys that were ever published under a root, sorted."""
    stores = {path.stem for path in storage.children(root / "features", "[!.]*.zarr")}
    catalogue = root / "catalogue" / "features"
    entries = {path.stem for path in storage.children(catalogue, "[!.]*.json")}
    return sorted(stores | entries)


def find_record(root: Path, key: str) -> Record:
    """The record of a key from its store or, without a sound store, from the root's catalogue.

    Raises NoRecordError if there is none, DamagedArtifactError if neither can be trusted.
    """
    store = root / "features" / f"{key}.zarr"
    catalogue = root / "catalogue" / "features"
    problems = []
    for source, file, clips_file in (
        ("store", store / "zarr.json", store / "clips.parquet"),
        ("catalogue", catalogue / f"{key}.json", catalogue / f"{key}.parquet"),
    ):
        if not storage.exists(file):
            continue
        try:
            attributes, recipe = read_attributes_and_recipe(file)
            manifest = manifest_of(root, attributes)
        except DamagedArtifactError as error:
            problems.append(str(error))
            continue
        values = store if storage.exists(store) else None
        record = Record(source, attributes, recipe, manifest, clips_file, values)
        wrong = [
            f"{file}: {problem}; restore it, or build again"
            for problem in inconsistencies(record, key)
        ]
        if not wrong:
            return record
        problems += wrong
    if not problems:
        raise NoRecordError(
            f"{root}: {key} is neither in features nor in the catalogue; basilar ls lists what is"
        )
    raise DamagedArtifactError("\n".join(dict.fromkeys(problems)))


def read_record(folder: Path, source: str) -> Record:
    """The record in `feature_set.json`, `manifest.parquet` and `clips.parquet` of a folder.

    Raises DamagedArtifactError if it cannot be trusted.
    """
    attributes, recipe = read_attributes_and_recipe(folder / "feature_set.json")
    manifest = _read_manifest(folder / "manifest.parquet")
    record = Record(source, attributes, recipe, manifest, folder / "clips.parquet")
    if wrong := list(inconsistencies(record, record.key)):
        raise DamagedArtifactError(
            f"{source}: its record is damaged ({', '.join(wrong)}); take it from a --root"
        )
    return record


def read_attributes(file: Path) -> dict[str, Any]:
    """A feature set's attributes from `zarr.json`, the catalogue or MLflow; no recipe is validated.

    Raises DamagedArtifactError if the file is damaged.
    """
    with _damage_of(file):
        return checked_attributes(_read_attributes(file), file)


def read_attributes_and_recipe(file: Path) -> tuple[dict[str, Any], Recipe]:
    """As `read_attributes`, and the recipe among them, which was validated on the way."""
    with _damage_of(file):
        attributes = _read_attributes(file)
        recipe = Recipe.from_dict(attributes["recipe"])
        return checked_attributes(attributes, file), recipe


def _read_attributes(file: Path) -> dict[str, Any]:
    found = json.loads(storage.fetch(file).read_text("utf-8"))
    attributes: dict[str, Any] = found if "key" in found else found["attributes"]["basilar"]
    return attributes


@contextmanager
def _damage_of(file: Path) -> Iterator[None]:
    """Whatever goes wrong with the content of a file is a DamagedArtifactError that names it."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        problem = f"it has no {error}" if isinstance(error, KeyError) else error
        said = str(problem).replace("\n", ", ")  # a recipe may have several mistakes
        raise DamagedArtifactError(
            f"{file}: it cannot be read ({said}); restore it, or build again"
        ) from None


def attributes_of(store: Path) -> dict[str, Any]:
    """A store's attributes, without opening it through Zarr. Raises DamagedArtifactError."""
    return _of_its_name(store, read_attributes(store / "zarr.json"))


def attributes_and_recipe_of(store: Path) -> tuple[dict[str, Any], Recipe]:
    """As `attributes_of`, and the recipe among them, which was validated on the way."""
    attributes, recipe = read_attributes_and_recipe(store / "zarr.json")
    return _of_its_name(store, attributes), recipe


def _of_its_name(store: Path, attributes: dict[str, Any]) -> dict[str, Any]:
    if attributes["key"] != store.stem:
        raise DamagedArtifactError(
            f"{store}: it is the feature set {attributes['key']}, under another name; rename it to "
            f"{attributes['key']}.zarr, or delete it"
        )
    return attributes


def manifest_of(root: Path, attributes: dict[str, Any]) -> Manifest:
    """The manifest that attributes name, from a root's catalogue. Raises DamagedArtifactError."""
    name = attributes["manifest_hash"]
    file = root / "catalogue" / "manifests" / f"{name}.parquet"
    manifest = _read_manifest(file)
    if manifest.hash != name:
        raise DamagedArtifactError(
            f"{file}: damaged, it hashes to {manifest.hash}; restore it, or build again"
        )
    return manifest


def inconsistencies(record: Record, key: str) -> Iterator[str]:
    """Yield the parts of a record that do not hash to their recorded value, or to `key`."""
    attributes = record.attributes
    manifest_hash = record.manifest.hash
    try:
        hashes = recipe_hashes(record.recipe, attributes["op_versions"], attributes["recipe"])
        recipe_hash = hashes["normalization"]
    except (KeyError, AttributeError) as error:
        yield f"op_versions and recipe do not fit together: {error}"
        return
    if recipe_hash != attributes["recipe_hash"]:
        yield f"the recipe hashes to {recipe_hash}, not to {attributes['recipe_hash']}"
    if manifest_hash != attributes["manifest_hash"]:
        yield f"the manifest hashes to {manifest_hash}, not to {attributes['manifest_hash']}"
    found = feature_key(recipe_hash, manifest_hash, attributes["decoders"])
    if not key == attributes["key"] == found:
        yield f"key, recipe, manifest and decoders do not fit: {key}, {attributes['key']}, {found}"


def _read_manifest(file: Path) -> Manifest:
    try:
        return Manifest.read(file)
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise DamagedArtifactError(
            f"{file}: it cannot be read ({error}); restore it, or build again"
        ) from None
