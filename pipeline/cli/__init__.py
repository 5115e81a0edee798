"""The `basilar` command. The library raises; this module prints and exits.

Exit codes: 0 built or cached, 1 failed, 2 wrong use, 130 stopped by the keyboard. With `--json`,
exactly one JSON object goes to standard output; everything else goes to standard error.
"""

import json
import logging
import os
import sys
from importlib import import_module
from importlib.metadata import version
from typing import Annotated, Any, NoReturn

import typer

from basilar.pipeline.cli.options import StoppedError, UsageError, app
from basilar.pipeline.console import begin, on_screen, print_error, print_failure
from basilar.pipeline.errors import StorageError
from basilar.pipeline.process import configure
from basilar.pipeline.text import Lines, explain_error

_KEPT = "what was made is kept; the same command goes on from there"
_STOPPED = {  # what is said of commands that the keyboard stopped
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
        bool, typer.Option("--debug", help="Print whole tracebacks of errors; anywhere.")
    ] = False,
) -> None:
    """Folders of audio to feature sets for machine learning, addressed by the hash of how."""


for _name in ("make", "run", "show", "prove", "deploy", "keep"):  # as help lists them
    import_module(f"basilar.pipeline.cli.{_name}")


def main() -> NoReturn:
    """Run the command; errors of use exit with 2, failures with 1."""
    _name_files_in_utf8()
    configure()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Lines())
    logging.getLogger("basilar").handlers = [handler]
    arguments = begin(sys.argv[1:])
    try:
        code = app(args=arguments, prog_name="basilar", standalone_mode=False)
        if code == 130:  # what typer makes of an interrupt
            nothing = "nothing is kept; the same command starts anew"
            raise StoppedError(_STOPPED.get(arguments[0], nothing))
    except typer.TyperException as error:
        _refuse(error)
    except StoppedError as error:
        print_error(f"stopped: {error}")
        _exit("stopped", 130)
    except Exception as error:
        _fail(error)
    sys.exit(code or 0)


def _name_files_in_utf8() -> None:
    """Begin anew in UTF-8 mode where Python takes names of files for something else.

    So do C locales with PYTHONUTF8=0, and old ones: ids of clips would depend on them.
    """
    if sys.getfilesystemencoding() != "utf-8" and os.environ.get("PYTHONUTF8") != "1":
        os.execve(sys.executable, sys.orig_argv, {**os.environ, "PYTHONUTF8": "1"})


def _refuse(error: Any) -> NoReturn:  # typer has its type, but no public name for it
    """Exit for options and arguments that the command does not have, or that are missing."""
    if on_screen():
        from typer.rich_utils import rich_format_error

        rich_format_error(error)
    else:
        error.show()
    _exit(error.format_message(), error.exit_code)


def _fail(error: Exception) -> NoReturn:
    from basilar.pipeline.errors import ManifestError, RecipeError

    print_failure(error)
    of_use = (RecipeError, ManifestError, UsageError, FileNotFoundError, StorageError)
    _exit(explain_error(error), 2 if isinstance(error, of_use) else 1)


def _exit(message: str, code: int) -> NoReturn:
    if "--json" in sys.argv:
        print(json.dumps({"error": message}))
    sys.exit(code)
