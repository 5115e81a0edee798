"""Manifests: the lock file of a data set, with a row and a file's SHA-256 for each clip.

A manifest is a Parquet table sorted by id; its metadata holds the folder that paths are relative to
(`root`). CSV and JSON Lines are exported by suffix, and imported by `manifests.scan`. A file that
looks like audio but cannot be read stays in the manifest with its `problem`: the build quarantines
it, so that nothing is lost silently.

The table of a million clips takes 250 MB (`manifests.table`). What plans need of each clip is held
in arrays; Python objects are made for a few thousand rows at a time.
"""

import csv
import itertools
import json
import math
import os
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from basilar.pipeline import storage
from basilar.pipeline.errors import ManifestError
from basilar.pipeline.hashing import content_hash, manifest_hash
from basilar.pipeline.manifests.table import (
    CLIP_COLUMNS,
    map_table,
    open_parquet,
    release_memory,
    take_rows,
)
from basilar.pipeline.storage.atomic import replacing
from basilar.pipeline.text import printable

_METADATA_KEY = b"basilar"
_ROWS = 4096  # that are Python objects at one time
_GROUP_ROWS = 1 << 16  # of a row group, written at one time
_COUNTED_ROWS = 1 << 16  # whose length is summed up to be shown: more take longer than 0.1 s


@dataclass(frozen=True, repr=False)
class Manifest:
    """A table of clips (`CLIP_COLUMNS`), sorted by id, and the folder its paths start from.

    Make one with `basilar.scan`. What a scan left out is known until the manifest is written:
    `not_audio`, the paths of files in the folder that are not audio, and `ignored_columns`, the
    names of columns of the table that no manifest has.
    """

    root: Path
    table: pa.Table
    not_audio: tuple[str, ...] = field(default=(), compare=False)
    ignored_columns: tuple[str, ...] = field(default=(), compare=False)

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> "Manifest":
        """Read a Parquet manifest: a path, or a URL.

        Raises ManifestError if it is not one, OSError without a file.
        """
        path = storage.place(path)
        with open_parquet(path) as file:
            root = recorded_root(path, file.schema_arrow)
            try:
                table = None if root is None else map_table(partial(_column, file))
            except KeyError:
                table = None
            if root is None or table is None:
                raise ManifestError(
                    f"{path}: not a manifest; make one with basilar scan DIR -o {path}"
                )
            try:
                table.validate(full=True)
            except pa.ArrowInvalid as error:
                raise ManifestError(
                    f"{path}: a text is not UTF-8 ({error}); write it again"
                ) from None
            manifest = cls(root, table)
            for (clip,) in manifest.rows("path"):
                refuse_escape(root, clip, path)
            _refuse_rows(manifest, path)
        release_memory()
        return manifest

    def moved_to(self, root: str | os.PathLike[str]) -> "Manifest":
        """The manifest of the same clips, whose audio is below another folder or URL now."""
        return replace(self, root=storage.place(root).absolute())

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def column(self, name: str) -> list[Any]:
        """One column as a list of Python values, None for null."""
        values: list[Any] = self.table.column(name).to_pylist()
        return values

    def rows(self, *names: str) -> Iterator[tuple[Any, ...]]:
        """The values of some columns, row by row."""
        for start in range(0, len(self), _ROWS):
            some = self.table.slice(start, _ROWS)
            yield from zip(*(some.column(name).to_pylist() for name in names), strict=True)

    @cached_property
    def words(self) -> NDArray[np.uint64]:
        """The content hash of each clip as numbers, most significant first: uint64 (clips, 4)."""
        digests = np.empty((len(self), 4), ">u8")
        names = ("sha256", "offset", "duration")
        for start in range(0, len(self), _ROWS):
            rows = self.table.slice(start, _ROWS)
            columns = (rows.column(name).to_pylist() for name in names)
            text = "".join(itertools.starmap(content_hash, zip(*columns, strict=True)))
            try:
                digests[start : start + _ROWS] = np.frombuffer(bytes.fromhex(text), ">u8").reshape(
                    rows.num_rows, 4
                )
            except ValueError:
                raise ManifestError(
                    f"{self.root}: a clip's sha256 is not 64 hexadecimal digits; scan again"
                ) from None
        return digests.astype(np.uint64)

    @cached_property
    def order(self) -> NDArray[np.int64]:
        """The rows in content order, equal contents by id: int64 (clips,)."""
        first = self.words[:, 0]
        order = np.argsort(first, kind="stable")
        for start, end in _runs(first[order[1:]] == first[order[:-1]]):  # in all likelihood, equal
            rows = order[start:end]
            ids = take_rows(self.table, ["id"], rows)["id"].to_pylist()
            ranks = list(zip(self.contents_of(rows), ids, strict=True))
            order[start:end] = rows[sorted(range(len(ranks)), key=ranks.__getitem__)]
        return order

    def contents_of(self, rows: NDArray[np.int64]) -> list[str]:
        """The content hash of some clips."""
        text = self.words[rows].astype(">u8").tobytes().hex()
        return [text[i : i + 64] for i in range(0, len(text), 64)]

    @cached_property
    def contents(self) -> list[str]:
        """The content hash of each clip."""
        return self.contents_of(np.arange(len(self)))

    @property
    def splits(self) -> list[str]:
        """The split of each clip; clips without one are `train`."""
        return [sys.intern(split or "train") for (split,) in self.rows("split")]

    @cached_property
    def seconds(self) -> NDArray[np.float64]:
        """The length of each clip in seconds, as its header states it; 0 if it states none."""
        columns = ("n_samples", "sample_rate", "offset", "duration")
        values = np.empty((len(self), len(columns)))
        for row, found in enumerate(self.rows(*columns)):
            values[row] = found
        n_samples, rate, offset, duration = values.T
        whole = np.divide(n_samples, rate, out=np.zeros(len(self)), where=rate > 0)
        rest = np.maximum(whole - np.nan_to_num(offset), 0.0)
        lengths: NDArray[np.float64] = np.fmin(rest, duration)
        return lengths

    @cached_property
    def hash(self) -> str:
        """The manifest hash. It covers contents, ids, labels, splits and groups, but no paths."""

        def clips() -> Iterator[tuple[str, str, str | None, str, str | None]]:
            for start in range(0, len(self), _ROWS):
                rows = self.order[start : start + _ROWS]
                table = take_rows(self.table, ["id", "label", "split", "group"], rows)
                ids, labels, splits, groups = (column.to_pylist() for column in table.columns)
                splits = [split or "train" for split in splits]
                yield from zip(self.contents_of(rows), ids, labels, splits, groups, strict=True)

        return manifest_hash(clips())

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write it as Parquet, or export it as CSV or JSON Lines, by the file's suffix."""
        path = storage.place(path)
        if path.suffix not in (".parquet", ".csv", ".jsonl"):
            raise ManifestError(
                f"{path}: no such table is written; the suffix must be .parquet, .csv or .jsonl"
            )
        with replacing(path) as temporary:
            if path.suffix == ".parquet":
                self._write_parquet(temporary, path.absolute().parent.resolve())
            elif path.suffix == ".csv":
                with temporary.open("w", newline="", encoding="utf-8") as file:
                    writer = csv.DictWriter(file, CLIP_COLUMNS.names)
                    writer.writeheader()
                    writer.writerows(self.table.to_pylist())
            else:
                lines = (json.dumps(row) + "\n" for row in self.table.to_pylist())
                temporary.write_text("".join(lines), encoding="utf-8")

    def _write_parquet(self, file: Path, folder: Path) -> None:
        # A root beside or below the manifest is written relative to it: both can move together.
        root = self.root.resolve()
        beside = root.is_relative_to(folder) and not storage.is_remote(root)
        stored = root.relative_to(folder).as_posix() if beside else storage.name(root)
        metadata = json.dumps({"schema": 1, "root": stored}).encode()
        table = self.table.replace_schema_metadata({_METADATA_KEY: metadata})
        with pq.ParquetWriter(file, table.schema, write_page_checksum=True) as writer:
            for start in range(0, max(1, len(table)), _GROUP_ROWS):
                writer.write_table(table.slice(start, _GROUP_ROWS))
                release_memory()

    @property
    def notes(self) -> list[str]:
        """A line on each column of the table it was scanned from that no manifest has."""
        known = {name: name.strip().lower() for name in self.ignored_columns}
        hints = {
            name: f"; did you mean {meant}?"
            for name, meant in known.items()
            if meant in CLIP_COLUMNS.names
        }
        return [f"column ignored: {name}{hints.get(name, '')}" for name in self.ignored_columns]

    def __repr__(self) -> str:
        counts = [f"{len(self)} clips"]
        if len(self) <= _COUNTED_ROWS or "seconds" in self.__dict__:
            counts.append(f"{self.seconds.sum() / 3600:.2f} h")
        unreadable = len(self) - self.table.column("problem").null_count
        counts += [f"{unreadable} cannot be read"] if unreadable else []
        counts += [f"{len(self.not_audio)} files are not audio"] if self.not_audio else []
        lines = [f"Manifest: {', '.join(counts)}", f"  root  {storage.name(self.root)}"]
        return "\n".join(map(printable, [*lines, *(f"  {note}" for note in self.notes)][:4]))


def _runs(same: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """The runs of equal entries, as (first, end), given where an entry equals the one before."""
    edges = np.diff(np.concatenate([[0], same.astype(np.int8), [0]]))
    starts, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1) + 1
    return list(zip(starts.tolist(), ends.tolist(), strict=True))


def _column(file: pq.ParquetFile, field: pa.Field) -> pa.ChunkedArray:
    """A column of a manifest. Raises KeyError if it is missing or has another type."""
    found = file.read([field.name], use_threads=False)[field.name]
    try:
        return found.cast(field.type)
    except pa.ArrowException as error:
        raise KeyError(field.name) from error


def recorded_root(path: Path, schema: pa.Schema) -> Path | None:
    """The root that a Parquet manifest at `path` records, absolute; None if it records none."""
    metadata = (schema.metadata or {}).get(_METADATA_KEY)
    try:
        if metadata is None:
            return None
        root = storage.place(json.loads(metadata)["root"])
        return root if root.is_absolute() else path.absolute().parent / root
    except (ValueError, LookupError, TypeError, RecursionError):
        raise ManifestError(f"{path}: its record of the root is damaged; scan again") from None


def refuse_escape(root: Path, path: Any, source: Path, *, follow: Path | None = None) -> str:
    """Return `path` if it is inside the root; else raise ManifestError, which names `source`.

    `source` is the file or folder that the path comes from. Links below the root are followed if
    `follow` is given: the root without links (`os.path.realpath`).
    """
    if not isinstance(path, str) or not path:
        raise ManifestError(f"{source}: a row has no path; give it one, or remove it")
    if not is_text(path) or "\0" in path:
        raise ManifestError(
            f"{source}: the name {path!r} is not UTF-8; rename the file to include it"
        )
    # On other systems, backslashes separate parts and paths may begin with a drive: refused, too.
    parts = path.replace("\\", "/").split("/")
    inside = parts[0] and not re.match("[A-Za-z]:[/\\\\]", path) and ".." not in parts
    if inside and follow and _has_link(follow, path):
        inside = Path(os.path.realpath(follow / path)).is_relative_to(follow)
    if not inside:
        raise ManifestError(
            f"{source}: {path!r} leads out of the root {storage.name(root)}; move the audio "
            "below the root, or name a root that holds all of it"
        )
    return path


def _has_link(folder: Path, path: str) -> bool:
    """Whether any part of a path below a folder is a symbolic link."""
    below = itertools.accumulate(path.split("/"), "{}/{}".format)
    return any((folder / part).is_symlink() for part in below)


def is_text(value: str) -> bool:
    """Whether a string can be written as UTF-8."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _refuse_rows(manifest: Manifest, path: Path) -> None:
    """Raise ManifestError for a row that no scan could have made."""
    sha256 = re.compile("[0-9a-f]{64}")
    counts, texts = ("sample_rate", "channels", "n_samples"), ("id", "format", "codec", "decoder")
    possible: dict[str, Callable[[Any], bool]] = {
        "sha256": lambda value: isinstance(value, str) and sha256.fullmatch(value) is not None,
        **dict.fromkeys(counts, lambda count: count is not None and count >= 0),
        **dict.fromkeys((*texts, "lossy"), lambda value: value is not None),
        "offset": lambda seconds: seconds is None or 0 <= seconds < math.inf,
        "duration": lambda seconds: seconds is None or 0 < seconds < math.inf,
    }
    for name, right in possible.items():
        for row, (value,) in enumerate(manifest.rows(name)):
            if not right(value):
                raise ManifestError(
                    f"{path}: row {row}: {name} = {value!r} is not possible; scan again"
                )
        release_memory()
    if len(manifest.table.column("id").unique()) < len(manifest):
        raise ManifestError(f"{path}: two clips have the same id; ids must be unique")
