"""From a folder of audio, or a table of clips, to a manifest.

Files are found by content, not by name alone, hashed and probed in parallel, in child processes: a
file that kills one, or takes too long, is listed with that as its problem. What was once looked at
is remembered while the file does not change (`pipeline.file_cache`), so a second scan opens no
file; `rehash` looks again.
"""

import csv
import errno
import hashlib
import io
import itertools
import json
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline import audio, storage
from pipeline.file_cache import FileCache, hash_file
from pipeline.isolation import Lost, isolated
from pipeline.manifest import (
    SCHEMA,
    Manifest,
    ManifestError,
    is_text,
    read_parquet,
    recorded_root,
    refuse_escape,
)
from pipeline.retry import retrying

AUDIO_SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("wav", "wave", "rf64", "w64", "aif", "aiff", "aifc", "au", "snd", "caf", "flac", "mp3"),
        *("mp2", "mp1", "ogg", "oga", "opus", "spx", "m4a", "m4b", "mp4", "aac", "wma", "webm"),
        *("mka", "amr", "ac3", "ape", "wv", "tta"),
    )
)
_LONGEST = 4096  # characters of an id, label, split or group
Progress = Callable[[Iterable[Any], int], Iterable[Any]]


def scan(
    source: Path,
    *,
    root: Path | None = None,
    label: str | None = None,
    group: str | None = None,
    split: dict[str, float] | Path | None = None,
    rehash: bool = False,
    progress: Progress = lambda items, total: items,
) -> tuple[Manifest, list[str]]:
    """Make the manifest of a folder, or of a table of clips (CSV, JSON Lines or Parquet).

    `label` and `group` are `parent` (the name of the file's folder) or a regular expression with a
    group of that name (or one group), searched in the path. `split` gives shares by name, or is a
    CSV of `id` and `split`. Shares are assigned by the hash of the group, or without one, of the
    file's SHA-256: a clip stays in its split whatever is added or renamed, and no file is on both
    sides, under two names or in excerpts. A table has a `path` column relative to `root` (by
    default the root it records, or its folder), and optionally `id`, `label`, `split`, `group`,
    `offset`, `duration` and `sha256`, which go before the options. The rows of a Parquet table that
    also state `sample_rate`, `channels`, `n_samples`, `format`, `codec`, `decoder` and `lossy` are
    believed, and their files are not opened, without `rehash`.

    Returns the manifest and, sorted, what is not in it: of a folder, the paths of files that are
    not audio; of a table, the names of columns that no manifest has. Raises ManifestError.
    """
    source = storage.place(source).absolute()
    is_folder = storage.is_remote(source) or source.is_dir()
    if is_folder:
        root = source
        found, others = _walk(source)
        rows: list[dict[str, Any]] = [{"path": path} for path in found]
    else:
        rows, columns, recorded = _read_rows(source)
        others = sorted(columns - set(SCHEMA.names))
        root = storage.place(root or recorded or source.parent).absolute()
    # In a folder, links were looked at on the way.
    real = None if is_folder else Path(os.path.realpath(root))
    believed = source.suffix == ".parquet" and not is_folder and not rehash
    stated = [_stated(source, row) if believed else None for row in rows]
    everything = [refuse_escape(root, row.get("path"), source, follow=real) for row in rows]
    paths = sorted({path for path, said in zip(everything, stated, strict=True) if said is None})
    facts: dict[str, Any] = dict(zip(paths, _inspect(root, paths, rehash, progress), strict=True))
    skipped = [path for path in paths if facts[path] is None] if is_folder else []
    skipped = sorted(skipped + others)
    if is_folder:
        rows = [row for row in rows if facts[row["path"]] is not None]
        stated = [None] * len(rows)
    clips = [
        _clip(source, row, said or facts[row["path"]], label=label, group=group)
        for row, said in zip(rows, stated, strict=True)
    ]
    if not clips:
        raise ManifestError(
            f"{storage.name(source)}: no audio found in {len(paths)} files; name another folder"
        )
    if split is not None:
        _assign_splits(clips, split)
    clips.sort(key=lambda clip: str(clip["id"]))
    for clip, following in itertools.pairwise(clips):
        if clip["id"] == following["id"]:
            raise ManifestError(
                f"{source}: the id {clip['id']!r} is given to {clip['path']!r} and "
                f"{following['path']!r}; ids must be unique"
            )
    return Manifest(root, pa.Table.from_pylist(clips, SCHEMA)), skipped


def contents(
    root: Path,
    paths: Iterable[str] | None = None,
    *,
    rehash: bool = False,
    progress: Progress = lambda items, total: items,
) -> dict[str, str]:
    """The SHA-256 of audio files by path below `root`: of `paths`, or of all there are."""
    looked = _walk(root)[0] if paths is None else sorted(paths)
    facts = zip(looked, _inspect(root, looked, rehash, progress), strict=True)
    return {path: seen["sha256"] for path, seen in facts if seen is not None}


def _walk(root: Path) -> tuple[list[str], list[str]]:
    """Relative paths below `root`, sorted: of all files, and of what is neither file nor folder.

    Folders are entered once; links may not leave. Those that lead nowhere or in a circle, pipes,
    sockets and devices are neither. Raises ManifestError, which lists names that are not UTF-8.
    """
    if storage.is_remote(root):
        return sorted(path for path in storage.files(root) if not path.endswith("/")), []
    files: list[str] = []
    others: list[str] = []
    unnamed: list[str] = []
    entered: set[tuple[int, int]] = set()
    real = Path(os.path.realpath(root))
    pending = [""]
    while pending:
        folder = pending.pop()
        status = (root / folder).stat()
        if (status.st_dev, status.st_ino) in entered:
            continue
        entered.add((status.st_dev, status.st_ino))
        with os.scandir(root / folder) as entries:
            for entry in entries:
                relative = f"{folder}/{entry.name}" if folder else entry.name
                if not is_text(relative):
                    unnamed.append(relative)
                    continue
                if entry.is_symlink():
                    refuse_escape(root, relative, root, follow=real)
                try:
                    is_dir, is_file = entry.is_dir(), entry.is_file()
                except OSError as error:
                    if error.errno != errno.ELOOP:
                        raise
                    is_dir = is_file = False
                (pending if is_dir else files if is_file else others).append(relative)
    if unnamed:
        more = f"\n  … and {len(unnamed) - 50} more" if len(unnamed) > 50 else ""
        raise ManifestError(
            f"{root}: {len(unnamed)} names are not UTF-8; rename the files (convmv does), or move "
            "them elsewhere\n  " + "\n  ".join(map(ascii, sorted(unnamed)[:50])) + more
        )
    return sorted(files), sorted(others)


def _read_rows(source: Path) -> tuple[list[dict[str, Any]], set[str], Path | None]:
    """The rows of a table of clips, empty cells left out, its columns, and the root it records."""
    recorded = None
    if source.suffix == ".parquet":
        table = read_parquet(source)
        recorded = recorded_root(source, table.schema)
        rows = table.to_pylist()
    elif source.suffix in (".csv", ".jsonl"):
        try:
            text = source.read_bytes().decode("utf-8-sig")  # a CR may be part of an id
            if source.suffix == ".csv":
                rows = list(csv.DictReader(io.StringIO(text, newline="")))
            else:  # not splitlines(): JSON strings may hold what it takes for the end of a line
                rows = [json.loads(line) for line in text.split("\n") if line.strip()]
        except (ValueError, RecursionError, csv.Error) as error:
            kind = "CSV" if source.suffix == ".csv" else "JSON Lines"
            raise ManifestError(f"{source}: not {kind} in UTF-8 ({error}); correct it") from None
        if not all(isinstance(row, dict) for row in rows):
            raise ManifestError(f"{source}: a line is no JSON object; every line must be one")
        for number, row in enumerate(rows, 1):
            if None in row:  # where DictReader puts cells that are in no column
                raise ManifestError(
                    f"{source}, row {number}: the header has no column for {row[None]!r}; quote "
                    "cells that hold commas, or name the column"
                )
    elif source.exists():
        raise ManifestError(
            f"{source}: neither a folder nor a .parquet, .csv or .jsonl table; name one"
        )
    else:
        raise ManifestError(f"{source}: no such folder or table; check its path")
    columns = set[str]().union(*rows)
    return (
        [{k: v for k, v in row.items() if v not in (None, "")} for row in rows],
        columns,
        recorded,
    )


def _inspect(
    root: Path, paths: list[str], rehash: bool, progress: Progress
) -> list[dict[str, Any] | None]:
    """What is in each file, in order: the manifest's facts, or None if it is not audio."""
    with FileCache() as cache:
        # The status is taken before looking: a file that changes meanwhile is looked at again.
        files = _statuses(root, paths)
        seen: list[Any] = [None if rehash else cache.get_of(*file) for file in files]
        new = [i for i, facts in enumerate(seen) if facts is None]
        for i, facts in progress(_look_ahead(root, paths, new), len(new)):
            if "lost" not in facts:  # else not remembered: another machine may read it
                file, status = files[i]
                cache.put(file, status, facts)
            seen[i] = {name: fact for name, fact in facts.items() if name != "lost"}
    return [None if facts["sha256"] is None else facts for facts in seen]


def _look_ahead(
    root: Path, paths: list[str], rows: list[int]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The row of each file and what is in it, as they come."""
    for here, some in storage.read_ahead(root, rows, lambda row: paths[row]):
        files = [here / paths[row] for row in some]
        for n, facts in isolated(_look_at, files, children=os.cpu_count() or 1):
            if isinstance(facts, Lost):
                sha256 = retrying(partial(hash_file, files[n]))
                facts = {**_unusable(sha256, f"{facts.reason}: {facts.message}"), "lost": True}
            yield some[n], facts


def _look_at(files: Iterable[Path]) -> Iterator[dict[str, Any]]:
    for file in files:
        yield retrying(partial(_look, file))


def _statuses(root: Path, paths: list[str]) -> list[tuple[Path, os.stat_result | storage.Status]]:
    """Each file and what tells this version of it from others."""
    if not storage.is_remote(root):
        return [(root / path, _status(root / path)) for path in paths]
    there = storage.files(root)
    if missing := [path for path in paths if path not in there]:
        raise FileNotFoundError(errno.ENOENT, "no such object", storage.name(root / missing[0]))
    return [(root / path, there[path]) for path in paths]


def _status(file: Path) -> os.stat_result:
    try:
        status = file.stat()
    except FileNotFoundError:
        raise ManifestError(f"{file}: it is not there; remove its row, or scan again") from None
    if not stat.S_ISREG(status.st_mode):
        raise ManifestError(f"{file}: it is not a file; remove its row, or scan again")
    return status


def _look(file: Path) -> dict[str, Any]:
    """Hash and probe one file; without a SHA-256 if neither content nor name says audio."""
    if audio.sniff(file) is None and file.suffix.lower() not in AUDIO_SUFFIXES:
        return {"sha256": None}
    sha256 = hash_file(file)
    try:
        return {"sha256": sha256, **asdict(audio.probe(file)), "problem": None}
    except audio.AudioError as error:
        return _unusable(sha256, error.message)


def _unusable(sha256: str, problem: str) -> dict[str, Any]:
    """The facts of a file that cannot be decoded."""
    nothing = {"sample_rate": 0, "channels": 0, "n_samples": 0, "lossy": False}
    texts = {"format": "", "codec": "", "decoder": "", "problem": problem}
    return {"sha256": sha256, **nothing, **texts}


_STATED: dict[str, Callable[[Any], bool]] = {
    "sha256": lambda value: isinstance(value, str) and bool(re.fullmatch("[0-9a-f]{64}", value)),
    "sample_rate": lambda value: type(value) is int and 0 < value < 2**31,
    "channels": lambda value: type(value) is int and 0 < value < 2**31,
    "n_samples": lambda value: type(value) is int and 0 < value < 2**48,
    **dict.fromkeys(("format", "codec"), lambda value: isinstance(value, str)),
    "decoder": lambda value: value in ("soundfile", "ffmpeg"),
    "lossy": lambda value: isinstance(value, bool),
}


def _stated(source: Path, row: dict[str, Any]) -> dict[str, Any] | None:
    """The facts of a file that a table states, if it states all; decoding checks them."""
    if "problem" in row or not _STATED.keys() <= row.keys():
        return None
    for name, right in _STATED.items():
        if not right(row[name]):
            raise ManifestError(
                f"{source}: {row.get('path')!r}: {name} = {row[name]!r} is not possible; correct "
                "it, or leave it empty to have the file looked at"
            )
    return {**{name: row[name] for name in _STATED}, "problem": None}


def _clip(
    source: Path,
    row: dict[str, Any],
    facts: dict[str, Any] | None,
    *,
    label: str | None,
    group: str | None,
) -> dict[str, Any]:
    """One row of the manifest, from what the table says of it and what the file holds."""
    path = row["path"]
    if facts is None:
        raise ManifestError(f"{source}: {path!r} is not audio; remove its row")
    if row.get("sha256", facts["sha256"]) != facts["sha256"]:
        raise ManifestError(
            f"{source}: {path!r} is not the file that was listed, its SHA-256 is "
            f"{facts['sha256']}, not {row['sha256']}; restore it, or remove its sha256"
        )
    text = partial(_text, source, row)
    clip = {**facts, "path": path, "split": text("split")}
    for name in ("offset", "duration"):
        clip[name] = _seconds(source, path, name, row.get(name))
    times = [clip[name] for name in ("offset", "duration")]
    excerpt = "" if times == [None, None] else f"@{times[0] or 0.0}"
    excerpt += "" if times[1] is None else f"+{times[1]}"
    clip["id"] = text("id") or path + excerpt
    clip["label"] = text("label") or _from_path("label", label, path)
    clip["group"] = text("group") or _from_path("group", group, path)
    return clip


def _text(source: Path, row: dict[str, Any], name: str) -> str | None:
    """A cell as text, which must be UTF-8 and not longer than any path."""
    value = None if row.get(name) is None else str(row[name])
    if value is not None and not (len(value) <= _LONGEST and is_text(value)):
        raise ManifestError(
            f"{source}: {row['path']!r}: {name} = {value[:40]!r}… is refused; it must be UTF-8 "
            f"text of at most {_LONGEST} characters"
        )
    return value


def _seconds(source: Path, path: str, name: str, value: Any) -> float | None:
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


def _from_path(name: str, rule: str | None, path: str) -> str | None:
    """What `rule` says of a path: the folder's name, or what its group matches."""
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


def _assign_splits(clips: list[dict[str, Any]], split: dict[str, float] | Path) -> None:
    """Give each clip without a split one, by shares or from a CSV."""
    if isinstance(split, Path):
        if not split.is_file():
            raise ManifestError(
                f"--split {split}: no such table; name a CSV, or shares like train=0.8,test=0.2"
            )
        rows, _, _ = _read_rows(split)
        if not all({"id", "split"} <= row.keys() for row in rows):
            raise ManifestError(
                f"{split}: a row lacks id or split; every row must have the columns id and split"
            )
        given = {str(row["id"]): str(row["split"]) for row in rows}
        missing = [clip["id"] for clip in clips if not clip["split"] and clip["id"] not in given]
        if missing:
            raise ManifestError(
                f"{split}: no split for {len(missing)} clips, first {missing[0]!r}; add them"
            )
        for clip in clips:
            clip["split"] = clip["split"] or given[clip["id"]]
        return
    total = sum(split.values())
    if not abs(total - 1) <= 1e-6 or min(split.values()) < 0:
        raise ManifestError(
            f"--split: the shares sum to {total:g}; they must not be negative, and sum to 1"
        )
    for clip in clips:
        token = hashlib.sha256(f"split:{clip['group'] or clip['sha256']}".encode()).digest()
        place = int.from_bytes(token[:8]) / 2**64
        upto = 0.0
        chosen = list(split)[-1]
        for name, share in split.items():
            upto += share
            if place < upto:
                chosen = name
                break
        clip["split"] = clip["split"] or chosen
