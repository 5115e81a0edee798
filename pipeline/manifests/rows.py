"""The rows of a table of clips (CSV, JSON Lines or Parquet), and checks of their cells."""

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from basilar.pipeline.errors import ManifestError
from basilar.pipeline.manifests.manifest import is_text, recorded_root
from basilar.pipeline.manifests.table import CLIP_COLUMNS, open_parquet

ROWS_AT_ONCE = 1024  # that are Python objects at one time
_LONGEST = 4096  # characters of an id, label, split or group
ReadRows = Callable[[], Iterable[dict[str, Any]]]  # without empty cells


def read_rows(source: Path) -> tuple[ReadRows, int, set[str], Path | None]:
    """A function that gives a table's rows; their number, the columns, and the recorded root."""
    if source.suffix == ".parquet":
        with open_parquet(source) as file:
            schema, n_rows = file.schema_arrow, file.metadata.num_rows
        rows_of = partial(_parquet_rows, source)
        return rows_of, n_rows, set(schema.names), recorded_root(source, schema)
    if source.suffix in (".csv", ".jsonl"):
        try:
            text = source.read_bytes().decode("utf-8-sig")  # bytes, since a CR may be part of an id
            if source.suffix == ".csv":
                rows: list[Any] = list(csv.DictReader(io.StringIO(text, newline="")))
            else:  # not splitlines(), which also splits at characters inside JSON strings
                rows = [json.loads(line) for line in text.split("\n") if line.strip()]
        except (ValueError, RecursionError, csv.Error) as error:
            kind = "CSV" if source.suffix == ".csv" else "JSON Lines"
            raise ManifestError(f"{source}: not {kind} in UTF-8 ({error}); correct it") from None
        if not all(isinstance(row, dict) for row in rows):
            raise ManifestError(f"{source}: a line is not a JSON object; every line must be one")
        for number, row in enumerate(rows, 1):
            if None in row:  # DictReader's key for cells without a column
                raise ManifestError(
                    f"{source}, row {number}: the header has no column for {row[None]!r}; quote "
                    "cells that hold commas, or name the column"
                )
        return partial(map, _drop_empty, rows), len(rows), set[str]().union(*rows), None
    if source.exists():
        raise ManifestError(
            f"{source}: neither a folder nor a .parquet, .csv or .jsonl table; name one"
        )
    raise ManifestError(f"{source}: no such folder or table; check its path")


def _parquet_rows(source: Path) -> Iterator[dict[str, Any]]:
    with open_parquet(source) as file:
        names = [name for name in file.schema_arrow.names if name in CLIP_COLUMNS.names]
        for some in file.iter_batches(ROWS_AT_ONCE, columns=names, use_threads=False):
            yield from map(_drop_empty, some.to_pylist())


def _drop_empty(row: dict[str, Any]) -> dict[str, Any]:
    """A row without its empty cells."""
    return {name: cell for name, cell in row.items() if cell not in (None, "")}


_STATED: dict[str, Callable[[Any], bool]] = {
    "sha256": lambda value: isinstance(value, str) and bool(re.fullmatch("[0-9a-f]{64}", value)),
    "sample_rate": lambda value: type(value) is int and 0 < value < 2**31,
    "channels": lambda value: type(value) is int and 0 < value < 2**31,
    "n_samples": lambda value: type(value) is int and 0 < value < 2**48,
    **dict.fromkeys(("format", "codec"), lambda value: isinstance(value, str)),
    "decoder": lambda value: value in ("soundfile", "ffmpeg"),
    "lossy": lambda value: isinstance(value, bool),
}


def stated_facts(source: Path, row: dict[str, Any]) -> dict[str, Any] | None:
    """The facts that a table states about a file, if it states them all; decoding checks them."""
    if "problem" in row or not _STATED.keys() <= row.keys():
        return None
    for name, right in _STATED.items():
        if not right(row[name]):
            raise ManifestError(
                f"{source}: {row.get('path')!r}: {name} = {row[name]!r} is not possible; correct "
                "it, or leave it empty to have the file read"
            )
    return {**{name: row[name] for name in _STATED}, "problem": None}


def text_cell(source: Path, row: dict[str, Any], name: str) -> str | None:
    """A cell as text. Raises ManifestError unless it is UTF-8 and no longer than a path may be."""
    value = None if row.get(name) is None else str(row[name])
    if value is not None and not (len(value) <= _LONGEST and is_text(value)):
        raise ManifestError(
            f"{source}: {row['path']!r}: {name} = {value[:40]!r}… is refused; it must be UTF-8 "
            f"text of at most {_LONGEST} characters"
        )
    return value


def seconds_cell(source: Path, path: str, name: str, value: Any) -> float | None:
    """A cell in seconds, None if it is empty. Raises ManifestError, which names row and cell."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = -1.0
    if not 0 <= seconds < float("inf") or (name == "duration" and seconds == 0):
        raise ManifestError(
            f"{source}: {path!r}: {name} = {value!r} is not a time in seconds; correct it"
        )
    return seconds
