"""What the command does with the libraries of deployment alone, and how every command ends."""

import argparse
import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

from basilar.pipeline import host
from basilar.pipeline.errors import (
    ManifestError,
    MissingLibraryError,
    RecipeError,
    StorageError,
    UnsupportedSystemError,
)
from basilar.pipeline.text import begin, describe_failure, explain_error, print_result

OF_USE = (RecipeError, ManifestError, FileNotFoundError, StorageError)  # exit code 2


def leave(message: str, code: int) -> NoReturn:
    """Exit; with `--json`, the message is the one JSON object on standard output."""
    if "--json" in sys.argv:
        print(json.dumps({"error": message}))
    sys.exit(code)


def check_bundle(folder: Path, *, as_json: bool) -> int:
    """Print what became of every golden vector of a bundle.

    Returns 0 if nothing moved, 3 if it moved within the tolerance, else 1.
    """
    from basilar.pipeline.deployment.bundle import EXIT, Bundle, verdict_of

    loaded = Bundle.load(folder)
    found = loaded.check()
    verdict = verdict_of(found)
    result: dict[str, Any] = {
        "key": loaded.key,
        "bundle": str(folder),
        "verdict": verdict,
        "golden": [golden.as_dict() for golden in found],
    }
    print_result(result, as_json, f"{folder}: the bundle of {loaded.key}", *map(str, found))
    return EXIT[verdict]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        print(f"error: {message}", file=sys.stderr)
        leave(message, 2)


def main() -> NoReturn:
    """Run `--version` or `check-bundle`; of everything else, say what it needs, and exit with 2."""
    arguments = begin(sys.argv[1:])
    if arguments[:1] not in (["--version"], ["check-bundle"]):
        _refuse()
    parser = _Parser(prog="basilar", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"basilar {version('basilar')}")
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser("check-bundle", allow_abbrev=False)
    check.add_argument("folder", type=Path, metavar="DIR", help="A bundle.")
    check.add_argument("--json", action="store_true", help="Print one JSON object.")
    options = parser.parse_args(arguments)
    try:
        sys.exit(check_bundle(options.folder, as_json=options.json))
    except KeyboardInterrupt:
        print("stopped: nothing is kept", file=sys.stderr)
        leave("stopped", 130)
    except Exception as error:
        print(describe_failure(error), file=sys.stderr)
        leave(explain_error(error), 2 if isinstance(error, OF_USE) else 1)


def _refuse() -> NoReturn:
    """Say what this command needs: a system, or libraries."""
    try:
        host.require_fork()
        names = ", ".join(host.missing("build"))
        error: Exception = MissingLibraryError(
            f"basilar: all but --version and check-bundle need what is not installed ({names}); "
            "install it with pip install 'basilar[build]'"
        )
    except UnsupportedSystemError as found:
        error = found
    print(describe_failure(error), file=sys.stderr)
    leave(str(error), 2)
