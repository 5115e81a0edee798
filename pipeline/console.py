"""What all commands share: the app, its options, how results are printed, how sets are found."""

import errno
import json
import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import track

from pipeline import artifacts, storage

app = typer.Typer(
    help="Folders of audio to feature sets for machine learning, addressed by the hash of how.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=True,
)
stderr = Console(stderr=True, highlight=False)
FULL = "the disk is full; free some space and run it again, which goes on where it stopped"
_LONGEST = 4000  # characters of a line


def place(text: str) -> Path:
    """A path, or the working copy of a URL, as an option names it."""
    try:
        return storage.place(text)
    except storage.StorageError as error:
        raise typer.BadParameter(str(error)) from None


Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
AudioRoot = Annotated[
    Path | None,
    typer.Option(parser=place, metavar="DIR|URL", help="Where the audio is now, if it moved."),
]
Root = Annotated[
    Path,
    typer.Option(parser=place, metavar="DIR|URL", help="Folder of artifacts and feature sets."),
]


class UsageError(Exception):
    """What was asked for is not possible as it was asked."""


def find_store(root: Path, key: str) -> Path:
    """The store whose key begins with `key`. Raises UsageError if there is none, or several."""
    stores = {path.stem: path for path in storage.children(root / "features", "[!.]*.zarr")}
    return stores[_find(root, key, sorted(stores))]


def find_key(root: Path, key: str) -> str:
    """The key that begins with `key`, of all that were ever published under a root.

    Raises UsageError if there is none, or several.
    """
    from pipeline.recover import recorded_keys

    return _find(root, key, recorded_keys(root))


def _find(root: Path, key: str, keys: list[str]) -> str:
    found = [name for name in keys if name.startswith(key)]
    if len(found) == 1:
        return found[0]
    known = ", ".join(name[:12] for name in (found or keys)[:10]) or "none"
    problem = "several feature sets" if found else "no feature set"
    raise UsageError(f"{root}: {problem} with a key that begins with {key!r}; there is: {known}")


def attributes_of(path: Path) -> dict[str, Any]:
    """A store's attributes, without opening it through Zarr. Raises DamagedArtifactError."""
    from pipeline.recover import read_attributes

    attributes = read_attributes(path / "zarr.json")
    if attributes["key"] != path.stem:
        raise artifacts.DamagedArtifactError(
            f"{path}: it is the feature set {attributes['key']}, under another name"
        )
    return attributes


def progress(what: str) -> Any:
    """A function that shows how far an iteration is, on a screen only."""

    def bar(items: Iterable[Any], total: int) -> Iterable[Any]:
        return track(items, what, total, console=stderr, transient=True, disable=not on_screen())

    return bar


def on_screen() -> bool:
    """Whether standard error is a terminal."""
    return stderr.is_terminal


def print_result(result: dict[str, Any], as_json: bool, *lines: str) -> None:
    """Print a result as one JSON object, or as lines for people."""
    if as_json:
        print(storage.shown(json.dumps(result)))
    else:
        print("\n".join(map(printable, lines)))


def print_error(message: str) -> None:
    """Print a message of one or several lines on standard error."""
    stderr.print(*map(printable, message.split("\n")), sep="\n", markup=False, soft_wrap=True)


def printable(line: str) -> str:
    """A line that shows its letters and does nothing else to a terminal.

    Names, labels and messages come from files. Controls, line ends, changes of direction and what
    is not Unicode are escaped; the middle of a very long line is left out.

    >>> printable("\\x1b[31mred\\u202e")
    '\\\\x1b[31mred\\\\u202e'
    """
    line = storage.shown(line)
    if len(line) > _LONGEST:
        half = _LONGEST // 2
        line = f"{line[:half]} … {len(line) - 2 * half} characters more … {line[-half:]}"
    if line.isprintable():
        return line
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


class Lines(logging.Formatter):
    """A log record as lines for people: a failure in its own words, without a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """The message, or the exception, printable."""
        error = record.exc_info[1] if record.exc_info else None
        message = record.getMessage() if error is None else f"error: {explained(error)}"
        return "\n".join(map(printable, message.split("\n")))


def explained(error: BaseException) -> str:
    """What an exception says to people; one of the file system names the file and what helps."""
    if not isinstance(error, OSError) or not isinstance(error.filename, str | bytes | os.PathLike):
        return str(error)
    known = {
        errno.ENOENT: "no such file",
        errno.EACCES: "permission denied; change whose it is, or run as a user who may",
        errno.EPERM: "not permitted; change whose it is, or run as a user who may",
        errno.EROFS: "the file system is read-only; take another --root, or mount it writable",
        errno.ENAMETOOLONG: "the path is too long; move it to a folder with a shorter path",
        errno.ELOOP: "its symbolic links lead in a circle; remove them",
        errno.ENOSPC: FULL,
        errno.EDQUOT: FULL,
    }
    problem = known.get(error.errno or 0, str(error.strerror))
    return f"{printable(os.fsdecode(error.filename))}: {problem}"
