"""Shard files of remote feature sets, kept on this machine for training."""

import contextlib
import errno
import os
from collections.abc import Callable
from pathlib import Path

from basilar.pipeline.storage.remote import TRANSFERS, T, ask_store, commit_object, drop, fetch_file
from basilar.pipeline.storage.urls import MARK, WorkingCopy, is_remote, place_below


def cached(where: str | os.PathLike[str], folder: str | os.PathLike[str] | None) -> Path:
    """The working copy of a feature set in a cache, by default the user's; a local path as it is.

    The cached files of a set that was published again since are removed.
    """
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "basilar"
    path = place_below(where, (base if folder is None else Path(folder).expanduser()).absolute())
    commit = commit_object(path)
    if is_remote(path) and commit.is_file():
        now = ask_store(commit, lambda store, url: store.cat_file(url))
        if commit.read_bytes() != now:
            drop(path)
    return path


def use(path: Path, call: Callable[[Path], T], cache_bytes: int | None) -> T:
    """What `call` makes of a shard file, which is fetched if it has to be.

    Of all shard files in its cache, those used last stay, `cache_bytes` of them. What was removed
    goes from the disk when the last process has closed it.
    """
    if not isinstance(path, WorkingCopy):
        return call(path)
    for _ in range(TRANSFERS):
        new = not path.is_file()
        fetch_file(path, durable=True)
        with contextlib.suppress(FileNotFoundError):  # another process has removed it
            made = call(path)
            os.utime(path)
            if new and cache_bytes is not None:
                _keep(cache_bytes, but=path)
            return made
    raise FileNotFoundError(errno.ENOENT, "the cache is too small for all who use it", str(path))


def _keep(n_bytes: int, *, but: WorkingCopy) -> None:
    """Remove the shard files of the cache that holds `but` that were used longest ago."""
    folder = but.base / MARK
    found = []
    for path in folder.glob("**/features/c/*/0"):
        with contextlib.suppress(FileNotFoundError):
            there = path.stat()
            found.append((there.st_mtime_ns, there.st_size, path))
    total = sum(size for _, size, _ in found)
    for _, size, path in sorted(found):
        if total <= n_bytes:
            return
        if path != but:
            path.unlink(missing_ok=True)
            total -= size
