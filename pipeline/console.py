"""What all commands share: the app, its options, how results are printed, how sets are found."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import track

from pipeline import artifacts

app = typer.Typer(
    help="Folders of audio to feature sets for machine learning, addressed by the hash of how.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=True,
)
stderr = Console(stderr=True, highlight=False)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
Root = Annotated[Path, typer.Option(help="Folder of artifacts, feature sets and MLflow runs.")]


class UsageError(Exception):
    """What was asked for is not possible as it was asked."""


def find_store(root: Path, key: str) -> Path:
    """The store whose key begins with `key`. Raises UsageError if there is none, or several."""
    stores = {path.stem: path for path in (root / "features").glob("[!.]*.zarr")}
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
    """A store's attributes, without opening it through Zarr."""
    attributes: dict[str, Any] = artifacts.read_json(path / "zarr.json")["attributes"]["basilar"]
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
        print(json.dumps(result))
    else:
        print("\n".join(lines))
