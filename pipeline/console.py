"""The output of commands; rich does the drawing."""

from collections.abc import Iterable
from typing import Any

from rich.console import Console

from basilar.pipeline.text import describe_failure, printable

stderr = Console(stderr=True, highlight=False)


def progress(what: str) -> Any:
    """A function that shows the progress of an iteration, only on a terminal."""

    def bar(items: Iterable[Any], total: int) -> Iterable[Any]:
        from rich.progress import track

        return track(items, what, total, console=stderr, transient=True, disable=not on_screen())

    return bar


def on_screen() -> bool:
    """Whether standard error is a terminal, whatever FORCE_COLOR (set in notebooks, CI) says."""
    return stderr.is_terminal and stderr.file.isatty()


def print_error(message: str) -> None:
    """Print a message, which may have several lines, on standard error."""
    stderr.print(*map(printable, message.split("\n")), sep="\n", markup=False, soft_wrap=True)


def print_failure(error: BaseException) -> None:
    """Print on standard error what failed, where, and what to do; --debug adds a traceback."""
    print_error(describe_failure(error))
