"""Places by name: local paths, and URLs with the paths of their working copies."""

import atexit
import os
import re
import shutil
import tempfile
from pathlib import Path

from basilar.pipeline.errors import StorageError
from basilar.pipeline.storage.object_store import EXTRAS

MARK = ".objects"


def place(where: str | os.PathLike[str]) -> Path:
    """A local path as it is, or the working copy of a URL. Raises StorageError for others.

    >>> place("features")
    PosixPath('features')
    >>> place("memory://bucket/features").parts[-4:]
    ('.objects', 'memory', 'bucket', 'features')
    >>> name(place("memory://bucket/features/") / "KEY.zarr")
    'memory://bucket/features/KEY.zarr'
    """
    return placed(where, None)


def placed(where: str | os.PathLike[str], folder: Path | None) -> Path:
    """As `place`, with the working copies of URLs below `folder`."""
    text = os.fspath(where)
    url = re.fullmatch(r"([a-z][a-z0-9+]+):/+(.*)", text)  # pathlib makes one slash of two
    if url is None:
        return Path(where)
    protocol, rest = url.groups()
    if protocol not in EXTRAS:
        known = ", ".join(f"{name}://" for name in EXTRAS)
        raise StorageError(f"{text}: {protocol}:// is not known; allowed are local paths, {known}")
    parts = [part for part in rest.split("/") if part]
    if not parts or ".." in parts:
        raise StorageError(
            f"{text}: no bucket and path; write {protocol}://BUCKET/PATH, without .."
        )
    return (folder or scratch_folder()).joinpath(MARK, protocol, *parts)


def name(path: Path) -> str:
    """The URL of a working copy, or a local path as it is."""
    if not is_remote(path):
        return str(path)
    _, _, inside = str(path).rpartition(f"/{MARK}/")
    protocol, _, rest = inside.partition("/")
    return f"{protocol}://{rest}"


def shown(text: str) -> str:
    """A text for people and records: the URLs of working copies for their paths, and no passwords.

    >>> shown("http://me:secret@host:5000/mlflow: no answer")
    'http://host:5000/mlflow: no answer'
    """
    for folder in _made.values():
        inside = rf"{re.escape(str(folder))}(?:/[^/\s]+/\d+)?/{re.escape(MARK)}/(\w+)/"
        text = re.sub(inside, r"\1://", text)
    return re.sub(r"""://[^/?#\s"']*@""", "://", text)


def is_remote(path: Path) -> bool:
    """Whether a path is a working copy of what lies in an object store."""
    return f"/{MARK}/" in str(path)


def object_name(path: Path) -> str:
    """The name of an object as its store has it."""
    return name(path).partition("://")[2]


_made: dict[int, Path] = {}  # the folder of working copies, by the process that removes it


def scratch_folder() -> Path:
    """The folder of this process's working copies, or of the one it was forked from."""
    if not _made:
        _made[os.getpid()] = Path(tempfile.mkdtemp(prefix="basilar-")).resolve()
        atexit.register(_forget)
    return next(iter(_made.values()))


def _forget() -> None:
    if folder := _made.pop(os.getpid(), None):
        shutil.rmtree(folder, ignore_errors=True)
