"""Shared by all commands: the app, common options, and how feature sets are found."""

from pathlib import Path
from typing import Annotated

import typer

from basilar.pipeline import storage
from basilar.pipeline.errors import BasilarError, NoRecordError, StorageError
from basilar.pipeline.errors import UsageError as UsageError

app = typer.Typer(
    help="Turn folders of audio into feature sets for machine learning, each addressed by a hash "
    "of how it was made.",
    epilog="Example: basilar build log_mel audio --root features",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=True,
)
MAKE, USE, PROVE, KEEP = "Make", "Use", "Prove", "Keep"  # panels of the help
_RECIPES = (
    Path(__file__).parents[2] / "params"
)  # importing basilar.pipeline.recipes.recipe would take too long


def place(text: str) -> Path:
    """Parse an option: a path, or the working copy of a URL."""
    try:
        return storage.place(text)
    except StorageError as error:
        raise typer.BadParameter(str(error)) from None


def place_of_audio(text: str) -> Path:
    """Parse an option as `place` does; the folder must exist, or every clip would seem lost."""
    path = place(text)
    try:
        there = storage.is_folder(path)
    except StorageError as error:
        raise typer.BadParameter(str(error)) from None
    if not there:
        raise typer.BadParameter(f"{text}: no such folder; name the one that the audio is in now")
    return path


def local(text: str) -> Path:
    """Parse an option: a path on this machine."""
    path = place(text)
    if storage.is_remote(path):
        raise typer.BadParameter(f"{text}: a local path is needed here; copy it to or from there")
    return path


Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
AudioRoot = Annotated[
    Path | None,
    typer.Option(
        parser=place_of_audio, metavar="DIR|URL", help="Folder of the audio, if it has moved."
    ),
]
Root = Annotated[
    Path,
    typer.Option(parser=place, metavar="DIR|URL", help="Folder of artifacts and feature sets."),
]


def complete_key(context: typer.Context, incomplete: str) -> list[str]:
    """The keys that begin with `incomplete` under the `--root` that was given before."""
    root = context.params.get("root")
    if root is None or storage.is_remote(root):
        return []
    keys = (path.stem for path in (root / "features").glob("[!.]*.zarr"))
    return sorted(key for key in keys if key.startswith(incomplete))


def complete_recipe(incomplete: str) -> list[str]:
    """The shipped recipes that begin with `incomplete`; if there are none, shells offer files."""
    return sorted(f.stem for f in _RECIPES.glob("*.toml") if f.stem.startswith(incomplete))


Key = Annotated[
    str,
    typer.Argument(help="Key of a feature set, or its beginning.", autocompletion=complete_key),
]


class StoppedError(BasilarError):
    """A command was stopped by the keyboard; the message says what is kept."""


def find_store(root: Path, key: str) -> Path:
    """The store whose key begins with `key`. Raises UsageError unless there is exactly one."""
    stores = {path.stem: path for path in storage.children(root / "features", "[!.]*.zarr")}
    return stores[_find(root, key, sorted(stores))]


def find_key(root: Path, key: str) -> str:
    """The key that begins with `key`, among all that were ever published under a root.

    Raises UsageError unless there is exactly one.
    """
    from basilar.pipeline.records.record import recorded_keys

    return _find(root, key, recorded_keys(root))


def _find(root: Path, key: str, keys: list[str]) -> str:
    from basilar.pipeline.training.find import match_key

    try:
        return match_key(root, key, keys)
    except NoRecordError as error:
        if storage.is_folder(root) and key in complete_recipe(key):
            raise UsageError(
                f"{key}: it is a recipe, but the key of a feature set is needed; basilar ls "
                f"--root {root} lists keys"
            ) from None
        raise UsageError(str(error)) from None
