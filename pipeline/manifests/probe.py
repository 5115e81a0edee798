"""Probe files: SHA-256, format, sample rate, channels and length, or why they cannot be read.

Files are hashed and probed in parallel, in child processes. If a file kills its child or takes too
long, this is recorded as its problem. Results are remembered until a file changes
(`manifests.file_cache`), so a second scan opens no file.
"""

import errno
import itertools
import os
import stat
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from basilar.pipeline import audio, storage
from basilar.pipeline.audio.isolation import Lost, isolated
from basilar.pipeline.errors import ManifestError
from basilar.pipeline.manifests.file_cache import FileCache, hash_file
from basilar.pipeline.storage.retry import retrying

AUDIO_SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("wav", "wave", "rf64", "w64", "aif", "aiff", "aifc", "au", "snd", "caf", "flac", "mp3"),
        *("mp2", "mp1", "ogg", "oga", "opus", "spx", "m4a", "m4b", "mp4", "aac", "wma", "webm"),
        *("mka", "amr", "ac3", "ape", "wv", "tta"),
    )
)
_CHILDREN = os.cpu_count() or 1
_AT_ONCE = max(8192, 1024 * _CHILDREN)  # rows: they fit in memory, and keep children busy

FileStatus = os.stat_result | storage.ObjectStatus


def status_reader(root: Path) -> Callable[[str], FileStatus]:
    """A function that takes a path below `root` and returns the status of the file there.

    The status tells versions of a file apart. The function raises ManifestError if the path is not
    that of a file, FileNotFoundError if there is no such object.
    """
    if not storage.is_remote(root):
        return lambda path: _status(root / path)
    there = storage.list_objects(root)

    def status(path: str) -> FileStatus:
        if path not in there:
            raise FileNotFoundError(errno.ENOENT, "no such object", storage.name(root / path))
        return there[path]

    return status


def inspect_files(
    root: Path,
    rows: Iterable[tuple[dict[str, Any], dict[str, Any] | None]],
    status_of: Callable[[str], FileStatus],
    *,
    rehash: bool,
) -> Generator[tuple[dict[str, Any], dict[str, Any] | None], None, None]:
    """Yield each row, in order, with the facts of the file below `root` that its `path` names.

    Each row comes with the facts that its table states, or with None if the file must be read.
    Facts are columns of the manifest; they are None if the file is not audio. A file is read at
    most once; with `rehash`, also if it is in the cache. `status_of` comes from `status_reader`.
    """
    again: set[str] = set()  # files in the cache that were read again
    kept: dict[str, dict[str, Any]] = {}  # facts that the cache did not store
    following = iter(rows)
    with FileCache() as cache:
        while some := deque(itertools.islice(following, _AT_ONCE)):
            asked = (row["path"] for row, stated in some if stated is None)
            paths = [path for path in dict.fromkeys(asked) if path not in kept]
            # The status is taken before reading: a file that changes meanwhile will be read again.
            status = {path: status_of(path) for path in paths}
            seen: dict[str, Any] = {
                path: None if rehash and path not in again else cache.get_of(root / path, of_path)
                for path, of_path in status.items()
            }
            new = [path for path in paths if seen[path] is None]
            seen |= kept
            with closing(_look_ahead(root, new)) as coming:
                while some:
                    row, facts = some.popleft()
                    while (facts := facts or seen[row["path"]]) is None:
                        path, found = next(coming)
                        # Another machine may be able to read a file that was lost here.
                        lost = found.pop("lost", False)
                        if lost or not cache.put(root / path, status[path], found):
                            kept[path] = found
                        seen[path] = found
                    yield row, None if facts["sha256"] is None else facts
            if rehash:
                again.update(new)


def _look_ahead(root: Path, paths: list[str]) -> Generator[tuple[str, dict[str, Any]], None, None]:
    """The path and the facts of each file, in order of arrival."""
    for here, some in storage.read_ahead(root, paths, lambda path: path):
        files = [here / path for path in some]
        for n, facts in isolated(_look_at, files, children=_CHILDREN):
            if isinstance(facts, Lost):
                sha256 = retrying(partial(hash_file, files[n]))
                facts = {**_unusable(sha256, f"{facts.reason}: {facts.message}"), "lost": True}
            yield some[n], facts


def _look_at(files: Iterable[Path]) -> Iterator[dict[str, Any]]:
    for file in files:
        yield retrying(partial(_look, file))


def _status(file: Path) -> os.stat_result:
    try:
        status = file.stat()
    except FileNotFoundError:
        raise ManifestError(f"{file}: the file is missing; remove its row, or scan again") from None
    if not stat.S_ISREG(status.st_mode):
        raise ManifestError(f"{file}: it is not a file; remove its row, or scan again")
    return status


def _look(file: Path) -> dict[str, Any]:
    """Hash and probe one file. Its SHA-256 is None if neither content nor name is that of audio."""
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
