"""Errors and log records as users read them: one form, safe for a terminal."""

import errno
import json
import logging
import os
import sys
import traceback
from typing import Any

from basilar.pipeline import storage
from basilar.pipeline.errors import BasilarError

FULL = "the disk is full; free some space and run it again: it continues where it stopped"
_LONGEST = 4000  # characters of a line
RUN = {"command": "basilar", "debug": ""}  # tasks in forked processes inherit it


def begin(arguments: list[str]) -> list[str]:
    """A command line without `--debug`, which may stand anywhere, and which is remembered."""
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    left = [argument for argument in options if argument != "--debug"]
    RUN["debug"] = "yes" if len(left) < len(options) else ""
    left += arguments[len(options) :]
    RUN["command"] = " ".join(["basilar", *left[:1]])
    return left


def printable(line: str) -> str:
    """A line that is safe to print on a terminal.

    Names, labels and messages come from files. Control characters, line breaks, changes of writing
    direction and invalid Unicode are escaped; the middle of a very long line is left out.

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


def print_result(result: dict[str, Any], as_json: bool, *lines: str) -> None:
    """Print a result as one JSON object, or as lines for people."""
    if as_json:
        print(storage.shown(json.dumps(result)))
    else:
        encoding = sys.stdout.encoding or "utf-8"  # not all show arrows, or the names of clips
        text = "\n".join(map(printable, lines))
        print(text.encode(encoding, "backslashreplace").decode(encoding))


class Lines(logging.Formatter):
    """Formats a log record for users: the error's message, and with --debug its traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """The printable message, or that of the exception."""
        error = record.exc_info[1] if record.exc_info else None
        message = record.getMessage() if error is None else describe_failure(error)
        return "\n".join(map(printable, message.split("\n")))


def describe_failure(error: BaseException) -> str:
    """The text that `print_failure` prints."""
    trace = ""
    if RUN["debug"]:
        link: BaseException | None = error
        while link is not None:  # also the causes that `raise … from None` hides
            link.__suppress_context__, link = False, link.__cause__ or link.__context__
        trace = "".join(traceback.format_exception(error))
    return trace + in_lines(explain_error(error))


def in_lines(message: str) -> str:
    """A message `WHERE: WHAT; WHAT TO DO` on three lines; a text may hold one message per line.

    Indented lines continue the message before them, and are left as they are.

    >>> print(in_lines("my.toml, line 3: n_mel is not a key; did you mean n_mels?"))
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


def explain_error(error: BaseException) -> str:
    """The message of an exception, as `WHERE: WHAT; WHAT TO DO`.

    Errors of the file system name the file and what helps. Any error but a BasilarError is a bug.
    """
    if isinstance(error, OSError) and error.errno is not None:
        named = isinstance(error.filename, str | bytes | os.PathLike)
        where = printable(os.fsdecode(error.filename)) if named else RUN["command"]
        other = f"{error.strerror}; see whether it can be read and written, and run it again"
        return f"{where}: {_OF_FILES.get(error.errno, other)}"
    if isinstance(error, OSError | BasilarError):
        return str(error)
    what = " ".join(f"{type(error).__name__}: {error}".split())
    return f"{RUN['command']}: {what}; run it again with --debug, and report what it prints"


_OF_FILES = {
    errno.ENOENT: "no such file or folder; check its path, or make it first",
    errno.EACCES: "permission denied; change its owner or its permissions, or run as another user",
    errno.EPERM: "not permitted; change its owner or its permissions, or run as another user",
    errno.EROFS: "the file system is read-only; take another --root, or mount it writable",
    errno.ENAMETOOLONG: "the path is too long; move it to a folder with a shorter path",
    errno.ELOOP: "its symbolic links form a loop; remove them",
    errno.EISDIR: "it is a folder; name a file",
    errno.EEXIST: "something else has this name; name another path",
    errno.ENOTDIR: "it is not a folder, or is inside something that is not one; name another path",
    errno.ENOSPC: FULL,
    errno.EDQUOT: FULL,
}
