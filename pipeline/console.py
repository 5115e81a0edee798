"""The output of commands; rich does the drawing."""

import json
import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console

from basilar.pipeline import storage
from basilar.pipeline.text import RUN, describe_failure, printable

stderr = Console(stderr=True, highlight=False)


def begin(arguments: list[str]) -> list[str]:
    """The arguments without `--debug`, which may be anywhere among them and is remembered."""
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    left = [argument for argument in options if argument != "--debug"]
    RUN["debug"] = "yes" if len(left) < len(options) else ""
    left += arguments[len(options) :]
    RUN["command"] = " ".join(["basilar", *left[:1]])
    return left


def progress(what: str) -> Any:
    """A function that shows the progress of an iteration, only on a terminal."""

    def bar(items: Iterable[Any], total: int) -> Iterable[Any]:
        from rich.progress import track

        return track(items, what, total, console=stderr, transient=True, disable=not on_screen())

    return bar


def on_screen() -> bool:
    """Whether standard error is a terminal, whatever FORCE_COLOR (set in notebooks, CI) says."""
    return stderr.is_terminal and stderr.file.isatty()


def print_result(result: dict[str, Any], as_json: bool, *lines: str) -> None:
    """Print a result as one JSON object, or as lines of text."""
    if as_json:
        print(storage.shown(json.dumps(result)))
    else:
        encoding = sys.stdout.encoding or "utf-8"  # it may lack arrows, or letters of names
        text = "\n".join(map(printable, lines))
        print(text.encode(encoding, "backslashreplace").decode(encoding))


def print_error(message: str) -> None:
    """Print a message, which may have several lines, on standard error."""
    stderr.print(*map(printable, message.split("\n")), sep="\n", markup=False, soft_wrap=True)


def print_failure(error: BaseException) -> None:
    """Print on standard error what failed, where, and what to do; --debug adds a traceback."""
    print_error(describe_failure(error))
