"""Make a manifest from a folder of audio, or from a table of clips.

Audio is recognised by content, not only by name (`manifests.probe`). Rows of a folder or a Parquet
table become Python objects some at a time: a million clips take little more than their columns do.
"""

import errno
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from basilar.pipeline import storage
from basilar.pipeline.errors import ManifestError
from basilar.pipeline.manifests.manifest import Manifest, is_text, refuse_escape
from basilar.pipeline.manifests.probe import inspect_files, status_reader
from basilar.pipeline.manifests.rows import (
    ROWS_AT_ONCE,
    read_rows,
    seconds_cell,
    stated_facts,
    text_cell,
)
from basilar.pipeline.manifests.splits import from_path, splits_by
from basilar.pipeline.manifests.table import CLIP_COLUMNS, map_table, release_memory
from basilar.pipeline.progress import Progress


def scan(
    source: str | os.PathLike[str],
    *,
    root: str | os.PathLike[str] | None = None,
    label: str | None = None,
    group: str | None = None,
    split: Mapping[str, float] | str | os.PathLike[str] | None = None,
    rehash: bool = False,
    progress: Progress = lambda items, total: items,
) -> Manifest:
    """Make the manifest of a folder or its URL, or of a table of clips (CSV, JSON Lines, Parquet).

    `label` and `group` are `parent` (the name of the file's folder) or a regular expression that is
    searched in the path and has a group of that name (or one group). `split` is shares by name, as
    a dict or as a text like `train=0.8,test=0.2`, or a CSV of `id` and `split`. Shares are assigned
    by the hash of the group or, without one, of the file's SHA-256: a clip stays in its split when
    others are added or renamed, and a file is never in two splits, not even under two names or in
    excerpts. A table has a `path` column relative to `root` (by default the root it records, or its
    folder), and optionally `id`, `label`, `split`, `group`, `offset`, `duration` and `sha256`;
    these take precedence over the options. Rows of a Parquet table that also state `sample_rate`,
    `channels`, `n_samples`, `format`, `codec`, `decoder` and `lossy` are trusted, and their files
    are not opened, unless `rehash` is set.

    Nothing is written until `Manifest.write`. The manifest lists what it leaves out in `not_audio`
    and `ignored_columns`. Raises ManifestError.

    >>> import tempfile, wave
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with wave.open(f"{folder}/silence.wav", "wb") as file:
    ...         file.setparams((1, 2, 8000, 0, "NONE", ""))
    ...         file.writeframes(bytes(16_000))
    ...     manifest = scan(folder, split={"train": 0.8, "test": 0.2})
    >>> print(len(manifest), manifest.column("id"), manifest.seconds)
    1 ['silence.wav'] [1.]
    """
    source = storage.place(source).absolute()
    is_folder = storage.is_remote(source) or source.is_dir()
    if is_folder:
        start = source
        found, others = _walk(source)
        n_rows = len(found)

        def rows() -> Iterable[dict[str, Any]]:
            return ({"path": path} for path in found)
    else:
        rows, n_rows, columns, recorded = read_rows(source)
        others = sorted(columns - set(CLIP_COLUMNS.names))
        start = storage.place(root or recorded or source.parent).absolute()
    # In a folder, `_walk` has checked the links.
    real = None if is_folder else Path(os.path.realpath(start))
    believed = source.suffix == ".parquet" and not is_folder and not rehash

    def stated() -> Iterator[tuple[dict[str, Any], dict[str, Any] | None]]:
        for row in rows():
            yield row, stated_facts(source, row) if believed else None

    split_of, status_of = splits_by(split), status_reader(start)
    for row, facts in () if is_folder else stated():  # check every row before any file is opened
        path = refuse_escape(start, row.get("path"), source, follow=real)
        if facts is None:
            status_of(path)
    n_seen = 0
    clips: list[dict[str, Any]] = []
    done: list[pa.RecordBatch] = []
    with closing(inspect_files(start, stated(), status_of, rehash=rehash)) as looked_at:
        for row, facts in progress(looked_at, n_rows):
            n_seen += 1
            if facts is None and is_folder:
                others.append(row["path"])
                continue
            clip = _clip(source, row, facts, label=label, group=group)
            clip["split"] = clip["split"] or split_of(clip)
            clips.append(clip)
            if len(clips) == ROWS_AT_ONCE:
                done.append(pa.RecordBatch.from_pylist(clips, CLIP_COLUMNS))
                clips.clear()
                release_memory()
    done.append(pa.RecordBatch.from_pylist(clips, CLIP_COLUMNS))
    if n_seen != n_rows:
        raise ManifestError(f"{source}: it changed during the scan; scan again")
    table = pa.Table.from_batches(done, CLIP_COLUMNS)
    if not len(table):
        raise ManifestError(
            f"{storage.name(source)}: no audio found in {n_rows} files; name another folder"
        )
    if split is not None and (missing := table.filter(pc.is_null(table["split"]))):
        raise ManifestError(
            f"{split}: no split for {len(missing)} clips, first {missing['id'][0].as_py()!r}; "
            "add them"
        )
    left_out = tuple(sorted(others))
    return Manifest(
        start,
        _sorted(source, table),
        not_audio=left_out if is_folder else (),
        ignored_columns=() if is_folder else left_out,
    )


def read_or_scan(
    source: str | os.PathLike[str],
    *,
    audio_root: str | os.PathLike[str] | None = None,
    progress: Progress = lambda items, total: items,
) -> Manifest:
    """A manifest that was written as Parquet, or that of a folder or table, as builds take them.

    `audio_root` is where the audio is now, if it moved. Columns that are ignored are named in the
    log. Raises ManifestError.
    """
    path = storage.place(source)
    if path.suffix == ".parquet" and not path.is_dir():
        manifest = Manifest.read(path)
    else:
        manifest = scan(path, root=audio_root, progress=progress)
    for line in manifest.notes:
        logging.getLogger("basilar").warning("note: %s", line)
    return manifest if audio_root is None else manifest.moved_to(audio_root)


def _sorted(source: Path, table: pa.Table) -> pa.Table:
    """Sort a table of clips by id. Raises ManifestError if two clips have the same id."""
    order = pc.sort_indices(table["id"])
    ids = table["id"].take(order)
    if (first := pc.index(pc.equal(ids[1:], ids[:-1]), True).as_py()) >= 0:
        one, other = table.take(order[first : first + 2]).to_pylist()
        raise ManifestError(
            f"{source}: the id {one['id']!r} is given to {one['path']!r} and {other['path']!r}; "
            "ids must be unique"
        )
    del ids
    return map_table(lambda field: table[field.name].take(order))


def contents(
    root: Path,
    paths: Iterable[str] | None = None,
    *,
    rehash: bool = False,
    progress: Progress = lambda items, total: items,
) -> dict[str, str]:
    """The SHA-256 of audio files by path below `root`: of `paths`, or of all of them."""
    looked = _walk(root)[0] if paths is None else sorted(paths)
    rows = (({"path": path}, None) for path in looked)
    with closing(inspect_files(root, rows, status_reader(root), rehash=rehash)) as looked_at:
        seen = progress(looked_at, len(looked))
        return {row["path"]: facts["sha256"] for row, facts in seen if facts is not None}


def _walk(root: Path) -> tuple[list[str], list[str]]:
    """Sorted paths below `root`: of all files, and of all that is neither a file nor a folder.

    The latter are pipes, sockets, devices, and links that are broken or form a loop. Each folder is
    entered once. Raises ManifestError for links that lead out of the root, and for names that are
    not UTF-8, which it lists.
    """
    if storage.is_remote(root):
        return sorted(path for path in storage.list_objects(root) if not path.endswith("/")), []
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


def _clip(
    source: Path,
    row: dict[str, Any],
    facts: dict[str, Any] | None,
    *,
    label: str | None,
    group: str | None,
) -> dict[str, Any]:
    """One row of the manifest, from a row of the source and the facts of its file."""
    path = row["path"]
    if facts is None:
        raise ManifestError(f"{source}: {path!r} is not audio; remove its row")
    if row.get("sha256", facts["sha256"]) != facts["sha256"]:
        raise ManifestError(
            f"{source}: {path!r} is not the file that was listed, its SHA-256 is "
            f"{facts['sha256']}, not {row['sha256']}; restore it, or remove its sha256"
        )
    text = partial(text_cell, source, row)
    clip = {**facts, "path": path, "split": text("split")}
    for name in ("offset", "duration"):
        clip[name] = seconds_cell(source, path, name, row.get(name))
    times = [clip[name] for name in ("offset", "duration")]
    excerpt = "" if times == [None, None] else f"@{times[0] or 0.0}"
    excerpt += "" if times[1] is None else f"+{times[1]}"
    clip["id"] = text("id") or path + excerpt
    clip["label"] = text("label") or from_path("label", label, path)
    clip["group"] = text("group") or from_path("group", group, path)
    return clip
