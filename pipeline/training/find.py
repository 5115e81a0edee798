"""`basilar.open`: the feature set of a root that a key or a recipe names."""

import contextlib
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

from basilar.pipeline import storage
from basilar.pipeline.defaults import CACHE_BYTES
from basilar.pipeline.errors import DamagedArtifactError, NoRecordError
from basilar.pipeline.storage.files import read_json
from basilar.pipeline.store.reader import Access
from basilar.pipeline.training.feature_set import FeatureSet

_SHOWN = 10  # sets that a message lists


def open_set(
    root: str | os.PathLike[str],
    name: str | None = None,
    *,
    latest: bool = False,
    access: Access = "auto",
    memory_limit: int | None = None,
    cache: str | os.PathLike[str] | None = None,
    cache_bytes: int = CACHE_BYTES,
) -> FeatureSet:
    """Open a feature set of a root, a path or a URL, in training.

    `name` is a key, the beginning of one, or the name of a recipe; without it, the root has one
    set. Where it fits several, `latest` takes the one published last. Other options are those of
    `FeatureSet.open`, which opens a set by its own path. Raises NoRecordError, which lists what
    there is.
    """
    return FeatureSet.open(
        storage.name(find_set(storage.place(root), name, latest=latest)),
        access=access,
        memory_limit=memory_limit,
        cache=cache,
        cache_bytes=cache_bytes,
    )


def find_set(root: Path, name: str | None = None, *, latest: bool = False) -> Path:
    """The path of the one feature set of a root that `open_set` opens. Raises NoRecordError."""
    _refuse_absence(root)
    stores = {path.stem: path for path in storage.children(root / "features", "[!.]*.zarr")}
    found = [key for key in stores if key.startswith(name or "")]
    recipe = ""
    if name and not found:
        recipe = f" of the recipe {name!r}, and none"
        found = [key for key, path in stores.items() if _recipe_name(path) == name]
    if not found:
        _refuse(root, f"no feature set{recipe}", name, stores)
    if len(found) == 1:
        return stores[found[0]]
    published = sorted((_published(stores[key]), key) for key in found)
    if latest:
        return stores[published[-1][1]]
    times = ", ".join(
        f"{key[:12]} (published {datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC)"
        for seconds, key in published[-_SHOWN:]
    )
    which = f"of the recipe {name!r}" if recipe else f"with a key that begins with {name or ''!r}"
    raise NoRecordError(
        f"{storage.name(root)}: several feature sets {which}, {times}; name a key, or take the "
        "last with latest=True"
    )


def match_key(root: Path, key: str, keys: Sequence[str]) -> str:
    """The one of a root's keys that begins with `key`. Raises NoRecordError: none, or several."""
    _refuse_absence(root)
    found = [each for each in keys if each.startswith(key)]
    if len(found) == 1:
        return found[0]
    problem = "several feature sets" if found else "no feature set"
    _refuse(root, problem, key, found or keys)


def _refuse_absence(root: Path) -> None:
    if not storage.is_folder(root):
        raise NoRecordError(
            f"{storage.name(root)}: no such folder; name the --root that it was built in"
        )


def _refuse(
    root: Path, problem: str, key: str | None, keys: Sequence[str] | dict[str, Path]
) -> NoReturn:
    known = ", ".join(each[:12] for each in sorted(keys)[:_SHOWN]) or "none"
    begins = f"with a key that begins with {key or ''!r}"
    raise NoRecordError(f"{storage.name(root)}: {problem} {begins}; there is: {known}")


def _recipe_name(store: Path) -> str | None:
    """The name of the recipe of a store, or its kind, as `basilar ls` shows it; None if damaged."""
    with contextlib.suppress(OSError, LookupError, TypeError, DamagedArtifactError):
        recipe = read_json(store / "zarr.json")["attributes"]["basilar"]["recipe"]
        return str(recipe.get("name") or recipe["representation"]["kind"])
    return None


def _published(store: Path) -> float:
    """When a store was committed: the time of its `zarr.json`, in seconds since 1970."""
    if storage.is_remote(store):
        return storage.list_objects(store)["zarr.json"].st_mtime
    return (store / "zarr.json").stat().st_mtime
