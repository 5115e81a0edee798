"""Places: local paths, and URLs of objects, which have working copies on this machine.

A place is a `Path`, or a `WorkingCopy`: the path of a file or folder on this machine that stands
for an object, and knows its URL. Its type makes the difference, never its name.
"""

import atexit
import os
import re
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from basilar.pipeline.errors import StorageError
from basilar.pipeline.storage.object_store import EXTRAS

MARK = ".objects"  # the folder of working copies, below a cache or a temporary folder

if TYPE_CHECKING:
    _LocalPath = Path
else:
    _LocalPath = type(Path())  # of this operating system


class WorkingCopy(_LocalPath):
    """`BASE/.objects/PROTOCOL/BUCKET/PATH`, the copy on this machine of `PROTOCOL://BUCKET/PATH`.

    Paths that are derived from it (`/`, `parent`, `with_name`, `glob`) are working copies, too;
    `Path(copy)` is not: use the place itself.
    """

    base: ClassVar[Path]  # of each of the classes that `_below` makes: pathlib copies no attributes

    @property
    def url(self) -> str:
        """The URL of the object, without a slash at its end."""
        protocol, *rest = self.parts[len(self.base.parts) + 1 :]
        return f"{protocol}://{'/'.join(rest)}"

    def __reduce__(self) -> tuple[Any, ...]:
        return _working_copy, (self.base, *self.parts[len(self.base.parts) + 1 :])


@cache
def _below(base: Path) -> type[WorkingCopy]:
    """The class of the working copies below a folder."""
    return type("WorkingCopy", (WorkingCopy,), {"base": base})


def _working_copy(base: Path, *parts: str) -> WorkingCopy:
    return _below(base)(base, MARK, *parts)


def place(where: str | os.PathLike[str]) -> Path:
    """A local path as it is, or the working copy of a URL. Raises StorageError for others.

    >>> place("features")
    PosixPath('features')
    >>> place("memory://bucket/features").parts[-4:]
    ('.objects', 'memory', 'bucket', 'features')
    >>> name(place("memory://bucket/features/") / "KEY.zarr")
    'memory://bucket/features/KEY.zarr'
    """
    return place_below(where, None)


def place_below(where: str | os.PathLike[str], folder: Path | None) -> Path:
    """As `place`, with the working copies of URLs below `folder`."""
    if isinstance(where, WorkingCopy):
        return where
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
    return _working_copy(folder or scratch_folder(), protocol, *parts)


def name(path: Path) -> str:
    """The URL of a working copy, or a local path as it is."""
    return path.url if isinstance(path, WorkingCopy) else str(path)


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
    """Whether a path is a working copy of an object."""
    return isinstance(path, WorkingCopy)


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
