"""Manifests: the lock file of a data set, one row a clip, each with its file's SHA-256.

A manifest is a Parquet table sorted by id, with the folder that its paths start from (`root`) in
its metadata. CSV and JSON Lines are exported by suffix, and imported by `pipeline.scan`. A file
that looks like audio but cannot be read stays in the manifest with its `problem`: the build
quarantines it, so that nothing is lost without a word.
"""

import csv
import json
import os
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.artifacts import read_table, replacing
from pipeline.keys import content_hash, manifest_hash

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("path", pa.string()),  # relative to the root, with forward slashes
        ("sha256", pa.string()),  # of the whole file
        ("offset", pa.float64()),  # seconds; null: from the start
        ("duration", pa.float64()),  # seconds; null: to the end
        ("label", pa.string()),
        ("split", pa.string()),
        ("group", pa.string()),  # what must not cross splits: a speaker, an album
        ("sample_rate", pa.int64()),  # of the file, Hz
        ("channels", pa.int64()),
        ("n_samples", pa.int64()),  # of the file
        ("format", pa.string()),
        ("codec", pa.string()),
        ("decoder", pa.string()),
        ("lossy", pa.bool_()),
        ("problem", pa.string()),  # why the file could not be read; null: it could
    ]
)
_MAY_BE_NULL = {"offset", "duration", "label", "split", "group", "problem"}
_METADATA_KEY = b"basilar"


class ManifestError(ValueError):
    """A data set that cannot be used; the message names the file, the row and what to do."""


@dataclass(frozen=True)
class Manifest:
    """A table of clips (`SCHEMA`), sorted by id, and the folder its paths start from."""

    root: Path
    table: pa.Table

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def column(self, name: str) -> list[Any]:
        """One column as a list of Python values, None for null."""
        values: list[Any] = self.table.column(name).to_pylist()
        return values

    @cached_property
    def contents(self) -> list[str]:
        """The content hash of each clip."""
        columns = (self.column(name) for name in ("sha256", "offset", "duration"))
        return [content_hash(*clip) for clip in zip(*columns, strict=True)]

    @cached_property
    def splits(self) -> list[str]:
        """The split of each clip; clips without one are `train`."""
        return [split or "train" for split in self.column("split")]

    @cached_property
    def seconds(self) -> list[float]:
        """The length of each clip in seconds, as far as headers tell; 0 if they do not."""
        columns = (self.column(n) for n in ("n_samples", "sample_rate", "offset", "duration"))
        lengths = []
        for n_samples, rate, offset, duration in zip(*columns, strict=True):
            rest = max(0.0, (n_samples / rate if rate else 0.0) - (offset or 0.0))
            lengths.append(rest if duration is None else min(rest, duration))
        return lengths

    @cached_property
    def hash(self) -> str:
        """The manifest hash: of contents, ids, labels, splits and groups, not of paths."""
        said = (self.column("id"), self.column("label"), self.splits, self.column("group"))
        return manifest_hash(zip(self.contents, *said, strict=True))


def read_manifest(path: Path) -> Manifest:
    """Read a Parquet manifest. Raises ManifestError if it is not one, OSError without a file."""
    table = read_clips(path)
    root = recorded_root(path, table)
    if root is None or not set(SCHEMA.names) <= set(table.column_names):
        raise ManifestError(f"{path}: not a manifest; make one with: basilar scan DIR -o {path}")
    for clip in table.column("path").to_pylist():
        refuse_escape(root, clip, path, follow=False)
    try:
        manifest = Manifest(root, table.select(SCHEMA.names).cast(SCHEMA))
        for name in set(SCHEMA.names) - _MAY_BE_NULL:
            if manifest.table.column(name).null_count:
                raise ValueError(f"a clip has no {name}")
        _refuse_values(manifest)
    except (ValueError, pa.ArrowException) as error:
        raise ManifestError(f"{path}: {error}; scan the audio again") from None
    return manifest


def read_clips(path: Path) -> pa.Table:
    """Read a Parquet table. Raises ManifestError if it is not one, OSError without a file."""
    try:
        return read_table(path)
    except (OSError, ValueError, pa.ArrowException) as error:
        if isinstance(error, OSError) and error.errno is not None:  # Arrow's own have none
            raise
        raise ManifestError(f"{path}: not a Parquet file, or damaged: {error}") from None


def recorded_root(path: Path, table: pa.Table) -> Path | None:
    """The root that a Parquet manifest at `path` records, absolute; None if it records none."""
    metadata = (table.schema.metadata or {}).get(_METADATA_KEY)
    try:
        return None if metadata is None else path.absolute().parent / json.loads(metadata)["root"]
    except (ValueError, LookupError, TypeError, RecursionError):
        raise ManifestError(f"{path}: the root in its metadata is damaged; scan again") from None


def _refuse_values(manifest: Manifest) -> None:
    """Raise ValueError for a hash that is none, or a time that is none."""
    for sha256 in manifest.column("sha256"):
        if not re.fullmatch("[0-9a-f]{64}", sha256):
            raise ValueError(f"sha256 = {sha256!r} is no SHA-256")
    for name in ("offset", "duration"):
        for seconds in manifest.column(name):
            if seconds is not None and not 0 <= seconds < float("inf"):
                raise ValueError(f"{name} = {seconds} is not a time in seconds")
    for name in ("sample_rate", "n_samples"):
        if min(manifest.column(name), default=0) < 0:
            raise ValueError(f"{name} = {min(manifest.column(name))} is negative")


def write_manifest(manifest: Manifest, path: Path) -> None:
    """Write a manifest as Parquet, or export it as CSV or JSON Lines, by the file's suffix."""
    if path.suffix not in (".parquet", ".csv", ".jsonl"):
        raise ManifestError(f"{path}: the suffix must be .parquet, .csv or .jsonl")
    with replacing(path) as temporary:
        if path.suffix == ".parquet":
            # A root beside or below the manifest is written relative to it: both can move together.
            root, folder = manifest.root.resolve(), path.absolute().parent.resolve()
            stored = root.relative_to(folder) if root.is_relative_to(folder) else root
            metadata = json.dumps({"schema": 1, "root": stored.as_posix()}).encode()
            table = manifest.table.replace_schema_metadata({_METADATA_KEY: metadata})
            pq.write_table(table, temporary, write_page_checksum=True)
        elif path.suffix == ".csv":
            with temporary.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, SCHEMA.names)
                writer.writeheader()
                writer.writerows(manifest.table.to_pylist())
        else:
            lines = (json.dumps(row) + "\n" for row in manifest.table.to_pylist())
            temporary.write_text("".join(lines), encoding="utf-8")


def refuse_escape(root: Path, path: Any, source: Path, *, follow: bool) -> str:
    """`path` itself if it names something inside the root, also when links are followed.

    Raises ManifestError, which names `source`, the file or folder that the path comes from.
    """
    if not isinstance(path, str) or not path:
        raise ManifestError(f"{source}: a row has no path")
    try:
        path.encode()
    except UnicodeEncodeError:
        raise ManifestError(
            f"{source}: the name {path!r} is not UTF-8; rename the file to include it"
        ) from None
    if "\0" in path:
        raise ManifestError(f"{source}: {path!r} is no path: it holds a null character")
    inside = not path.startswith("/") and ".." not in path.split("/")
    if inside and follow:
        inside = Path(os.path.realpath(root / path)).is_relative_to(os.path.realpath(root))
    if not inside:
        raise ManifestError(
            f"{source}: {path!r} leads out of the root {root}; move the audio below the root, "
            "or take a root that holds all of it"
        )
    return path
