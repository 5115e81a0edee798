"""What all commands share: the app, its options, and how they find feature sets."""

from pathlib import Path
from typing import Annotated

import typer

from basilar.pipeline import storage
from basilar.pipeline.errors import BasilarError, NoRecordError, StorageError
from basilar.pipeline.errors import UsageError as UsageError

app = typer.Typer(
    help="Folders of audio to feature sets for machine learning, addressed by the hash of how.",
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
    """A path, or the working copy of a URL, as an option names it."""
    try:
        return storage.place(text)
    except StorageError as error:
        raise typer.BadParameter(str(error)) from None


def place_of_audio(text: str) -> Path:
    """A folder that is there, as `place` has it: else every clip would seem to be lost."""
    path = place(text)
    try:
        there = storage.is_folder(path)
    except StorageError as error:
        raise typer.BadParameter(str(error)) from None
    if not there:
        raise typer.BadParameter(f"{text}: no such folder; name the one that the audio is in now")
    return path


def local(text: str) -> Path:
    """A path on this machine, as an option names it."""
    path = place(text)
    if storage.is_remote(path):
        raise typer.BadParameter(f"{text}: a local path is needed here; copy it to or from there")
    return path


Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
AudioRoot = Annotated[
    Path | None,
    typer.Option(
        parser=place_of_audio, metavar="DIR|URL", help="Where the audio is now, if it moved."
    ),
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


class StoppedError(BasilarError):
    """The keyboard stopped a command: what is kept of it, and what the same command does."""


def find_store(root: Path, key: str) -> Path:
    """The store whose key begins with `key`. Raises UsageError if there is none, or several."""
    stores = {path.stem: path for path in storage.children(root / "features", "[!.]*.zarr")}
    return stores[_find(root, key, sorted(stores))]


def find_key(root: Path, key: str) -> str:
    """The key that begins with `key`, of all that were ever published under a root.

    Raises UsageError if there is none, or several.
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
                f"{key}: it is a recipe, and the key of a feature set is asked for; basilar ls "
                f"--root {root} lists keys"
            ) from None
        raise UsageError(str(error)) from None
