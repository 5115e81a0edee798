"""The attributes of a feature set, checked before they are used: a store may be anyone's."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from basilar.pipeline import storage
from basilar.pipeline.errors import DamagedArtifactError, ForeignStoreError
from basilar.pipeline.storage.files import read_json


class Published:
    """What is known by the attributes of a feature set."""

    attributes: dict[str, Any]

    @property
    def key(self) -> str:
        """The key of the feature set."""
        return str(self.attributes["key"])

    @property
    def digest(self) -> str:
        """The hash of its values."""
        return str(self.attributes["digest"])


def store_attributes(path: Path) -> dict[str, Any]:
    """The attributes of the feature set at a path.

    Raises FileNotFoundError, ForeignStoreError for another Zarr store, or DamagedArtifactError.
    """
    file = path / "zarr.json"
    if not storage.exists(file):
        raise FileNotFoundError(
            f"{storage.name(path)}: no feature set here; basilar ls lists those of a root"
        )
    found = read_json(file)
    found = found.get("attributes") if isinstance(found, dict) else None
    own = found.get("basilar") if isinstance(found, dict) else None
    if not isinstance(own, dict) or (own.get("kind"), own.get("schema")) != ("feature set", 1):
        raise ForeignStoreError(
            f"{path}: a Zarr store, but not a Basilar feature set of schema 1; open it with "
            "zarr.open, or name another"
        )
    return checked_attributes(own, file)


def checked_attributes(attributes: Any, file: Path) -> dict[str, Any]:
    """The attributes of a feature set as `store.publish` writes them, which may be anyone's.

    What they name becomes part of paths: hashes are hashes. Raises DamagedArtifactError.
    """
    found: dict[str, Any] = attributes if isinstance(attributes, dict) else {}
    for name, right in _ATTRIBUTES.items():
        if name not in found and name in _OPTIONAL:
            continue
        if name not in found or not right(found[name]):
            said = f"{name} is {repr(found[name])[:60]}" if name in found else f"it has no {name!r}"
            raise DamagedArtifactError(
                f"{file}: it cannot be read ({said}); restore it, or build again"
            )
    return found


def _is_hash(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{32}", value) is not None


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**48


def _is_table(key: Callable[[Any], bool], of: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, dict) and all(key(k) and of(v) for k, v in value.items())


def _is_list_of_texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_seconds(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < 1e12


def _is_recipe(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(value.get(section), dict) and _is_text(value[section].get(name))
        for section, name in (("representation", "kind"), ("normalization", "kind"))
    )


def _is_shard(value: Any) -> bool:
    return _is_text(value) and re.fullmatch(r"[0-9a-z][0-9a-z.]*", value) is not None


# `portable` is of stores made before `dsp.kernel`.
_OPTIONAL = {"canary", "hashes", "seconds", "shards", "machine", "cpu", "portable"}
_ATTRIBUTES: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("key", "digest", "recipe_hash", "manifest_hash"), _is_hash),
    **dict.fromkeys(("clips", "frames", "quarantined"), _is_count),
    "recipe": _is_recipe,
    "portable": lambda value: isinstance(value, bool),
    "versions": _is_table(_is_text, _is_text),
    "op_versions": lambda value: isinstance(value, dict),
    "decoders": _is_list_of_texts,
    "shard_seconds": lambda value: _is_seconds(value) and value > 0,
    "canary": _is_list_of_texts,
    "hashes": _is_table(_is_text, _is_hash),
    "seconds": _is_table(_is_text, _is_seconds),
    "shards": _is_table(_is_shard, _is_count),
    **dict.fromkeys(("machine", "cpu"), _is_text),
}
