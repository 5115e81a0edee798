"""Labels, groups and splits: from paths, by shares, or from a table."""

import hashlib
import itertools
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from basilar.pipeline import storage
from basilar.pipeline.errors import ManifestError
from basilar.pipeline.manifests.rows import read_rows


def from_path(name: str, rule: str | None, path: str) -> str | None:
    """Apply a rule to a path: `parent` is the folder's name; else, the match of its group."""
    if rule is None:
        return None
    if rule == "parent":
        return Path(path).parent.name or None
    try:
        pattern = re.compile(rule)
    except re.error as error:
        raise ManifestError(
            f"--{name}: {rule!r} is not a regular expression ({error}); correct it, or write parent"
        ) from None
    if name not in pattern.groupindex and pattern.groups != 1:
        raise ManifestError(
            f"--{name}: {rule!r} has no group; it must be 'parent' or a regular expression with a "
            f"group (?P<{name}>…)"
        )
    match = pattern.search(path)
    if match is None:
        raise ManifestError(
            f"--{name}: {rule!r} does not match the path {path!r}; widen it, or move the file"
        )
    return match[name if name in pattern.groupindex else 1]


def splits_by(
    split: Mapping[str, float] | str | os.PathLike[str] | None,
) -> Callable[[dict[str, Any]], str | None]:
    """A function that gives a clip its split, by shares or from a CSV; None if it has none."""
    if split is None:
        return lambda clip: None
    if isinstance(split, str) and "=" in split:
        split = _shares(split)
    if not isinstance(split, Mapping):
        split = storage.place(split)
        if not storage.exists(split) or storage.is_folder(split):
            raise ManifestError(
                f"--split {split}: no such table; name a CSV, or shares like train=0.8,test=0.2"
            )
        rows = list(read_rows(storage.fetch(split))[0]())
        if not all({"id", "split"} <= row.keys() for row in rows):
            raise ManifestError(
                f"{split}: a row lacks id or split; every row must have the columns id and split"
            )
        given = {str(row["id"]): str(row["split"]) for row in rows}
        return lambda clip: given.get(clip["id"])
    total = sum(split.values())
    if not abs(total - 1) <= 1e-6 or min(split.values()) < 0:
        raise ManifestError(
            f"--split: the shares sum to {total:g}; they must not be negative, and sum to 1"
        )
    ends = list(zip(split, itertools.accumulate(split.values()), strict=True))

    def by_share(clip: dict[str, Any]) -> str:
        token = hashlib.sha256(f"split:{clip['group'] or clip['sha256']}".encode()).digest()
        place = int.from_bytes(token[:8]) / 2**64
        return next((name for name, end in ends if place < end), ends[-1][0])

    return by_share


def _shares(text: str) -> dict[str, float]:
    """Shares by name, as `train=0.8,test=0.2` gives them."""
    try:
        parts = [part.split("=") for part in text.split(",")]
        return {name.strip(): float(share) for name, share in parts}
    except ValueError:
        raise ManifestError(
            f"--split: {text!r} is not a list of shares; write shares as train=0.8,test=0.2"
        ) from None
