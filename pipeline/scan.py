"""From a folder of audio, or a table of clips, to a manifest.

Files are found by content, not by name alone, hashed and probed in parallel. What was once looked
at is remembered by (path, size, mtime, inode), so a second scan opens no file; `rehash` looks
again.
"""

import contextlib
import csv
import hashlib
import io
import itertools
import json
import os
import re
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

import pyarrow as pa

from pipeline import audio
from pipeline.manifest import (
    SCHEMA,
    Manifest,
    ManifestError,
    read_clips,
    recorded_root,
    refuse_escape,
)

AUDIO_SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("wav", "wave", "rf64", "w64", "aif", "aiff", "aifc", "au", "snd", "caf", "flac", "mp3"),
        *("mp2", "mp1", "ogg", "oga", "opus", "spx", "m4a", "m4b", "mp4", "aac", "wma", "webm"),
        *("mka", "amr", "ac3", "ape", "wv", "tta"),
    )
)
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
    group of that name (or one group), searched in the path. `split` gives shares by name, assigned
    by the hash of the group (of the id, without one), or a CSV of `id` and `split`. A table has a
    `path` column relative to `root` (by default the root it records, or its folder), and optionally
    `id`, `label`, `split`, `group`, `offset`, `duration` and `sha256`, which go before the options.

    Returns the manifest and the paths of files that are not audio. Raises ManifestError.
    """
    source = source.absolute()
    if source.is_dir():
        root = source
        rows: list[dict[str, Any]] = [{"path": path} for path in sorted(_walk(source))]
    else:
        rows, recorded = _read_rows(source)
        root = (root or recorded or source.parent).absolute()
    links = not source.is_dir()  # in a folder, links were looked at on the way
    paths = sorted({refuse_escape(root, row.get("path"), source, follow=links) for row in rows})
    for path in paths if links else ():
        if not os.path.isfile(root / path):  # noqa: PTH113  # raises for no path, as Path's does
            raise ManifestError(f"{source}: {path!r} is no file below the root {root}")
    facts = dict(zip(paths, _inspect(root, paths, rehash, progress), strict=True))
    skipped = [path for path in paths if facts[path] is None] if source.is_dir() else []
    if source.is_dir():
        rows = [row for row in rows if facts[row["path"]] is not None]
    clips = [_clip(source, row, facts[row["path"]], label=label, group=group) for row in rows]
    if not clips:
        raise ManifestError(f"{source}: no audio found in {len(paths)} files")
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
    looked = sorted(_walk(root) if paths is None else paths)
    facts = zip(looked, _inspect(root, looked, rehash, progress), strict=True)
    return {path: seen["sha256"] for path, seen in facts if seen is not None}


class FileCache:
    """What was seen in files, by (path, size, mtime in ns, inode); a context manager.

    One SQLite database in the user's cache folder for each version of the decoders. A file changed
    within the last two seconds is not remembered: it might change again without its time showing
    it. A cache that cannot be opened, read or written is done without.
    """

    def __enter__(self) -> Self:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "basilar"
        decoders = "-".join(version(package) for package in ("soundfile", "av"))
        try:
            base.mkdir(parents=True, exist_ok=True)
            self._open(base / f"files-{audio.VERSION}-{decoders}.sqlite")
        except (OSError, sqlite3.Error):
            self._open(":memory:")
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def get(self, file: Path) -> Any:
        """What was seen in a file that has not changed since; None if nothing was."""
        status = file.stat()
        try:
            row = self._database.execute(
                "SELECT seen FROM files WHERE path=? AND size=? AND mtime_ns=? AND inode=?",
                (str(file), status.st_size, status.st_mtime_ns, status.st_ino),
            ).fetchone()
        except sqlite3.Error:
            return None
        return None if row is None else json.loads(row[0])

    def put(self, file: Path, status: os.stat_result, seen: Any) -> None:
        """Remember what was seen in a file whose status, taken before looking, is `status`."""
        if time.time() - status.st_mtime < 2:
            return
        identity = (str(file), status.st_size, status.st_mtime_ns, status.st_ino)
        with contextlib.suppress(sqlite3.Error):
            self._database.execute(
                "INSERT OR REPLACE INTO files VALUES (?,?,?,?,?)", (*identity, json.dumps(seen))
            )

    def sha256(self, file: Path) -> str:
        """The SHA-256 of a file's content now. Raises OSError if it cannot be read."""
        seen = self.get(file)
        return str(seen["sha256"]) if seen and seen["sha256"] else _sha256(file)

    def _open(self, database: Path | str) -> None:
        # Each statement is its own transaction, so that no scan locks out another for long.
        connection = sqlite3.connect(database, timeout=1, isolation_level=None)
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=OFF")  # a lost cache is looked up again
            connection.execute(
                "CREATE TABLE IF NOT EXISTS files "
                "(path TEXT PRIMARY KEY, size INT, mtime_ns INT, inode INT, seen TEXT)"
            )
        except sqlite3.Error:
            connection.close()
            raise
        self._database = connection


def _walk(root: Path) -> Iterator[str]:
    """Relative paths of all files below `root`; folders are entered once, links may not leave."""
    entered: set[tuple[int, int]] = set()
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
                if entry.is_symlink():
                    refuse_escape(root, relative, root, follow=True)
                if entry.is_dir():
                    pending.append(relative)
                elif entry.is_file():
                    yield relative


def _read_rows(source: Path) -> tuple[list[dict[str, Any]], Path | None]:
    """The rows of a table of clips, empty cells left out, and the root it records, if any."""
    recorded = None
    if source.suffix == ".parquet":
        table = read_clips(source)
        recorded = recorded_root(source, table)
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
            raise ManifestError(f"{source}: not {kind} in UTF-8: {error}") from None
        if not all(isinstance(row, dict) for row in rows):
            raise ManifestError(f"{source}: every line must be a JSON object")
    elif source.exists():
        raise ManifestError(f"{source}: neither a folder nor a .parquet, .csv or .jsonl table")
    else:
        raise ManifestError(f"{source}: no such folder or table")
    return [{k: v for k, v in row.items() if v not in (None, "")} for row in rows], recorded


def _inspect(
    root: Path, paths: list[str], rehash: bool, progress: Progress
) -> Iterator[dict[str, Any] | None]:
    """What is in each file, in order: the manifest's facts, or None if it is not audio."""
    with FileCache() as cache, ThreadPoolExecutor() as pool:
        # The status is taken before looking: a file that changes meanwhile is looked at again.
        jobs = [
            (root / path, (root / path).stat(), None if rehash else cache.get(root / path))
            for path in paths
        ]
        looks = pool.map(lambda job: job[2] or _look(job[0]), jobs)
        for (file, status, cached), seen in zip(jobs, progress(looks, len(jobs)), strict=True):
            if cached is None:
                cache.put(file, status, seen)
            yield None if seen["sha256"] is None else seen


def _look(file: Path) -> dict[str, Any]:
    """Hash and probe one file; without a SHA-256 if neither content nor name says audio."""
    if audio.sniff(file) is None and file.suffix.lower() not in AUDIO_SUFFIXES:
        return {"sha256": None}
    sha256 = _sha256(file)
    try:
        return {"sha256": sha256, **asdict(audio.probe(file)), "problem": None}
    except audio.AudioError as error:
        nothing = {"sample_rate": 0, "channels": 0, "n_samples": 0, "lossy": False}
        texts = {"format": "", "codec": "", "decoder": "", "problem": error.message}
        return {"sha256": sha256, **nothing, **texts}


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


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
            f"{source}: {path!r} is not the file that was listed: its SHA-256 is "
            f"{facts['sha256']}, not {row['sha256']}"
        )
    clip = {**facts, "path": path, "split": _text(source, path, row.get("split"))}
    for name in ("offset", "duration"):
        clip[name] = _seconds(source, path, name, row.get(name))
    times = [clip[name] for name in ("offset", "duration")]
    excerpt = "" if times == [None, None] else f"@{times[0] or 0.0}"
    excerpt += "" if times[1] is None else f"+{times[1]}"
    clip["id"] = _text(source, path, row.get("id")) or path + excerpt
    clip["label"] = _text(source, path, row.get("label")) or _from_path("label", label, path)
    clip["group"] = _text(source, path, row.get("group")) or _from_path("group", group, path)
    return clip


def _text(source: Path, path: str, value: Any) -> str | None:
    text = None if value is None else str(value)
    try:
        (text or "").encode()
    except UnicodeEncodeError:
        raise ManifestError(f"{source}: {path!r}: {text!r} is not Unicode text") from None
    return text


def _seconds(source: Path, path: str, name: str, value: Any) -> float | None:
    if value is None:
        return None
    try:
        seconds = float(value)
    except (TypeError, ValueError, OverflowError):
        seconds = -1.0
    if not 0 <= seconds < float("inf") or (name == "duration" and seconds == 0):
        raise ManifestError(f"{source}: {path!r}: {name} = {value!r} is not a time in seconds")
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
        raise ManifestError(f"--{name} {rule!r}: not a regular expression: {error}") from None
    if name not in pattern.groupindex and pattern.groups != 1:
        raise ManifestError(
            f"--{name} {rule!r}: must be 'parent' or a regular expression with a "
            f"group (?P<{name}>…)"
        )
    match = pattern.search(path)
    if match is None:
        raise ManifestError(f"--{name} {rule!r}: does not match the path {path!r}")
    return match[name if name in pattern.groupindex else 1]


def _assign_splits(clips: list[dict[str, Any]], split: dict[str, float] | Path) -> None:
    """Give each clip without a split one, by shares or from a CSV."""
    if isinstance(split, Path):
        rows, _ = _read_rows(split)
        if not all({"id", "split"} <= row.keys() for row in rows):
            raise ManifestError(f"{split}: every row must have the columns id and split")
        given = {str(row["id"]): str(row["split"]) for row in rows}
        missing = [clip["id"] for clip in clips if not clip["split"] and clip["id"] not in given]
        if missing:
            raise ManifestError(f"{split}: no split for {len(missing)} clips, first {missing[0]!r}")
        for clip in clips:
            clip["split"] = clip["split"] or given[clip["id"]]
        return
    total = sum(split.values())
    if not abs(total - 1) <= 1e-6 or min(split.values()) < 0:
        raise ManifestError(f"--split: shares must not be negative and sum to 1, not {total:g}")
    for clip in clips:
        token = hashlib.sha256(f"split:{clip['group'] or clip['id']}".encode()).digest()
        place = int.from_bytes(token[:8]) / 2**64
        upto = 0.0
        chosen = list(split)[-1]
        for name, share in split.items():
            upto += share
            if place < upto:
                chosen = name
                break
        clip["split"] = clip["split"] or chosen
