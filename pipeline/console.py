"""What all commands share: the app, its options, how results are printed, how sets are found."""

import errno
import json
import logging
import os
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from pipeline import storage

app = typer.Typer(
    help="Folders of audio to feature sets for machine learning, addressed by the hash of how.",
    epilog="Example: basilar build log_mel audio --root features",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=True,
)
MAKE, USE, PROVE, KEEP = "Make", "Use", "Prove", "Keep"  # panels of the help
stderr = Console(stderr=True, highlight=False)
FULL = "the disk is full; free some space and run it again, which goes on where it stopped"
_LONGEST = 4000  # characters of a line
_RECIPES = Path(__file__).parents[1] / "params"  # importing pipeline.recipe would take too long
_run = {"command": "basilar", "debug": ""}  # tasks in forked processes inherit it


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


def complete_key(context: typer.Context, incomplete: str) -> list[str]:
    """The keys that begin so of the feature sets under the `--root` that was named before."""
    root = context.params.get("root")
    if root is None or storage.is_remote(root):
        return []
    keys = (path.stem for path in (root / "features").glob("[!.]*.zarr"))
    return sorted(key for key in keys if key.startswith(incomplete))


def complete_recipe(incomplete: str) -> list[str]:
    """The names of shipped recipes that begin so; a shell adds files when there is none."""
    return sorted(f.stem for f in _RECIPES.glob("*.toml") if f.stem.startswith(incomplete))


Key = Annotated[
    str,
    typer.Argument(help="Key of a feature set, or its beginning.", autocompletion=complete_key),
]


class UsageError(Exception):
    """What was asked for is not possible as it was asked."""


def begin(arguments: list[str]) -> list[str]:
    """A command line without `--debug`, which may stand anywhere, and which is remembered."""
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    left = [argument for argument in options if argument != "--debug"]
    _run["debug"] = "yes" if len(left) < len(options) else ""
    left += arguments[len(options) :]
    _run["command"] = " ".join(["basilar", *left[:1]])
    return left


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
    if not storage.is_folder(root):
        raise UsageError(f"{root}: no such folder; name the --root that it was built in")
    found = [name for name in keys if name.startswith(key)]
    if len(found) == 1:
        return found[0]
    known = ", ".join(name[:12] for name in (found or keys)[:10]) or "none"
    problem = "several feature sets" if found else "no feature set"
    raise UsageError(f"{root}: {problem} with a key that begins with {key!r}; there is: {known}")


def attributes_of(path: Path) -> dict[str, Any]:
    """A store's attributes, without opening it through Zarr. Raises DamagedArtifactError."""
    from pipeline.artifacts import DamagedArtifactError
    from pipeline.recover import read_attributes

    attributes = read_attributes(path / "zarr.json")
    if attributes["key"] != path.stem:
        raise DamagedArtifactError(
            f"{path}: it is the feature set {attributes['key']}, under another name; rename it to "
            f"{attributes['key']}.zarr, or delete it"
        )
    return attributes


def progress(what: str) -> Any:
    """A function that shows how far an iteration is, on a screen only."""

    def bar(items: Iterable[Any], total: int) -> Iterable[Any]:
        from rich.progress import track

        return track(items, what, total, console=stderr, transient=True, disable=not on_screen())

    return bar


def on_screen() -> bool:
    """Whether standard error is a terminal, whatever FORCE_COLOR (set in notebooks, CI) says."""
    return stderr.is_terminal and stderr.file.isatty()


def print_result(result: dict[str, Any], as_json: bool, *lines: str) -> None:
    """Print a result as one JSON object, or as lines for people."""
    if as_json:
        print(storage.shown(json.dumps(result)))
    else:
        encoding = sys.stdout.encoding or "utf-8"  # not all show arrows, or the names of clips
        text = "\n".join(map(printable, lines))
        print(text.encode(encoding, "backslashreplace").decode(encoding))


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
    """A log record as lines for people: a failure in its own words, a traceback with --debug."""

    def format(self, record: logging.LogRecord) -> str:
        """The message, or the exception, printable."""
        error = record.exc_info[1] if record.exc_info else None
        message = record.getMessage() if error is None else failure(error)
        return "\n".join(map(printable, message.split("\n")))


def print_failure(error: BaseException) -> None:
    """Print what went wrong, where and what to do, on standard error; --debug: and a traceback."""
    print_error(failure(error))


def failure(error: BaseException) -> str:
    """What `print_failure` prints."""
    trace = ""
    if _run["debug"]:
        link: BaseException | None = error
        while link is not None:  # all that led to it, also what its message is to replace
            link.__suppress_context__, link = False, link.__cause__ or link.__context__
        trace = "".join(traceback.format_exception(error))
    return trace + laid_out(explained(error))


def laid_out(message: str) -> str:
    """A message `WHERE: WHAT; WHAT TO DO` in three lines; also several, one a line.

    Lines that are indented go on with the message before them, and stay as they are.

    >>> print(laid_out("my.toml, line 3: n_mel is not a key; did you mean n_mels?"))
    error: n_mel is not a key
    where: my.toml, line 3
    to do: did you mean n_mels?
    """
    lines = []
    for line in message.split("\n"):
        if line.startswith(" "):
            lines.append(line)
            continue
        where, colon, rest = line.partition(": ")
        where, rest = (where, rest) if colon else ("", line)
        what, semicolon, to_do = rest.rpartition("; ")
        what, to_do = (what, to_do) if semicolon else (rest, "")
        lines.append(f"error: {what}")
        lines += [f"where: {where}"] if where else []
        lines += [f"to do: {to_do}"] if to_do else []
    return "\n".join(lines)


def explained(error: BaseException) -> str:
    """What an exception says to people, as `WHERE: WHAT; WHAT TO DO`.

    One of the file system names the file and what helps; one that is not ours is a bug.
    """
    if isinstance(error, OSError) and error.errno is not None:
        named = isinstance(error.filename, str | bytes | os.PathLike)
        where = printable(os.fsdecode(error.filename)) if named else _run["command"]
        other = f"{error.strerror}; see whether it can be read and written, and run it again"
        return f"{where}: {_OF_FILES.get(error.errno, other)}"
    if isinstance(error, OSError) or type(error).__module__.partition(".")[0] in _OURS:
        return str(error)
    what = " ".join(f"{type(error).__name__}: {error}".split())
    return f"{_run['command']}: {what}; run it again with --debug, and report what it prints"


_OURS = ("pipeline", "workflows")
_OF_FILES = {
    errno.ENOENT: "no such file or folder; check its path, or make it first",
    errno.EACCES: "permission denied; change whose it is, or run as a user who may",
    errno.EPERM: "not permitted; change whose it is, or run as a user who may",
    errno.EROFS: "the file system is read-only; take another --root, or mount it writable",
    errno.ENAMETOOLONG: "the path is too long; move it to a folder with a shorter path",
    errno.ELOOP: "its symbolic links lead in a circle; remove them",
    errno.EISDIR: "it is a folder; name a file",
    errno.EEXIST: "there is something else of that name; name another path",
    errno.ENOTDIR: "it is no folder, or lies in what is none; name another path",
    errno.ENOSPC: FULL,
    errno.EDQUOT: FULL,
}
