"""The `basilar` command. The library raises; this module prints and exits.

Exit codes: 0 built or cached, 1 failed, 2 wrong use, 130 stopped by the keyboard. With `--json`,
exactly one JSON object goes to standard output; everything else goes to standard error.
"""

import logging
import os
import sys
from importlib import import_module
from importlib.metadata import version
from typing import Annotated, Any, NoReturn

import typer

from basilar.pipeline.cli.core import OF_USE, leave
from basilar.pipeline.cli.options import StoppedError, UsageError, app
from basilar.pipeline.console import on_screen, print_error, print_failure
from basilar.pipeline.process import configure
from basilar.pipeline.text import Lines, begin, explain_error

_KEPT = "what was made is kept; the same command goes on from there"
_STOPPED = {  # messages of commands that the keyboard stopped
    "scan": "what was read is remembered; the same command goes on from there",
    "build": _KEPT,
    "worker": _KEPT,
    "gc": "what was removed is gone; the same command goes on from there",
}


def _version(wanted: bool) -> None:
    if wanted:
        print(f"basilar {version('basilar')}")
        raise typer.Exit


@app.callback()
def everywhere(
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Print tracebacks of errors; may be anywhere.")
    ] = False,
) -> None:
    """Turn folders of audio into feature sets for machine learning.

    Each set is addressed by a hash of how it was made.
    """


for _name in (
    "make",
    "run",
    "show",
    "prove",
    "compare",
    "deploy",
    "keep",
):  # in the order of the help
    import_module(f"basilar.pipeline.cli.{_name}")


def main() -> NoReturn:
    """Run the command; wrong use exits with 2, failures with 1."""
    _name_files_in_utf8()
    configure()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Lines())
    logging.getLogger("basilar").handlers = [handler]
    arguments = begin(sys.argv[1:])
    try:
        code = app(args=arguments, prog_name="basilar", standalone_mode=False)
        if code == 130:  # typer's code for an interrupt
            nothing = "nothing is kept; the same command starts again"
            raise StoppedError(_STOPPED.get(arguments[0], nothing))
    except typer.TyperException as error:
        _refuse(error)
    except StoppedError as error:
        print_error(f"stopped: {error}")
        leave("stopped", 130)
    except Exception as error:
        _fail(error)
    sys.exit(code or 0)


def _name_files_in_utf8() -> None:
    """Restart in UTF-8 mode if Python would read file names in another encoding.

    C locales with PYTHONUTF8=0 and old locales do that; ids of clips would depend on the locale.
    """
    if sys.getfilesystemencoding() != "utf-8" and os.environ.get("PYTHONUTF8") != "1":
        os.execve(sys.executable, sys.orig_argv, {**os.environ, "PYTHONUTF8": "1"})


def _refuse(error: Any) -> NoReturn:  # typer has no public name for its type
    """Exit because of unknown or missing options and arguments."""
    if on_screen():
        from typer.rich_utils import rich_format_error

        rich_format_error(error)
    else:
        error.show()
    leave(error.format_message(), error.exit_code)


def _fail(error: Exception) -> NoReturn:
    print_failure(error)
    leave(explain_error(error), 2 if isinstance(error, (*OF_USE, UsageError)) else 1)
