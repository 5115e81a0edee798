"""Commands that compare: why, diff."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from basilar.pipeline.cli.options import (
    PROVE,
    Json,
    Key,
    Root,
    UsageError,
    app,
    complete_recipe,
    find_key,
    find_store,
    place,
)
from basilar.pipeline.console import progress
from basilar.pipeline.text import print_result

if TYPE_CHECKING:
    pass


@app.command(rich_help_panel=PROVE)
def why(
    a: Annotated[
        str, typer.Argument(help="Key, recipe (.toml, or a shipped name), or manifest (.parquet).")
    ],
    b: Annotated[
        str | None, typer.Argument(help="Another; left out: the nearest other key of the root.")
    ] = None,
    root: Annotated[
        Path | None,
        typer.Option(parser=place, metavar="DIR|URL", help="Folder that keys were published in."),
    ] = None,
    as_json: Json = False,
) -> None:
    """List every field and clip in which two feature sets, recipes or manifests differ.

    Exit codes: 0 equal, 1 different, 2 wrong use.

    Example: basilar why 3f2a params/log_mel.toml --root features
    """
    from basilar.pipeline.errors import IncomparableError
    from basilar.pipeline.records import explain
    from basilar.pipeline.records.record import find_record

    def is_file(name: str) -> bool:
        return Path(name).suffix in (".toml", ".parquet") or name in complete_recipe(name)

    def side(name: str) -> explain.Side:
        if is_file(name):
            return explain.Side.of_file(place(name))
        if root is None:
            raise UsageError(
                f"{name}: neither a recipe nor a .parquet; name --root to look for a key"
            )
        return explain.Side.of_record(find_record(root, find_key(root, name)))

    one = side(a)
    if b is not None:
        try:
            found = explain.why(one, side(b))
        except IncomparableError as error:
            raise UsageError(str(error)) from None
    else:
        if root is None:
            raise UsageError(
                f"{a}: there is nothing to compare it with; name something, or --root to compare "
                "with the nearest key"
            )
        near = explain.nearest(root, one, but="" if is_file(a) else find_key(root, a))
        if near is None:
            raise UsageError(
                f"{root}: there is no other key to compare {a} with; name a recipe or a manifest"
            )
        found = near[1]
    print_result(found.as_dict(), as_json, *found.lines())
    if found.count:
        raise typer.Exit(1)


@app.command(rich_help_panel=PROVE)
def diff(
    a: Key,
    b: Key,
    root: Root,
    as_json: Json = False,
) -> None:
    """Compare the values of two feature sets of the same clips, by bin.

    Exit codes: 0 equal, 1 different, 2 wrong use, which includes different bins or frames.

    Example: basilar diff 3f2a 9b01 --root features
    """
    from basilar.pipeline.errors import IncomparableError
    from basilar.pipeline.records.compare import compare
    from basilar.pipeline.training.feature_set import FeatureSet

    one, two = (FeatureSet.open(find_store(root, key)) for key in (a, b))
    try:
        found = compare(one, two, progress("comparing"))
    except IncomparableError as error:
        raise UsageError(str(error)) from None
    result = {
        **asdict(found),
        "a": one.key,
        "b": two.key,
        "equal": found.equal,
        "mean": found.mean.tolist(),
        "largest": found.largest.tolist(),
    }
    lines = [
        f"{found.clips} clips, {found.frames} frames; clips in one set only: {found.only[0]} and "
        f"{found.only[1]}",
        f"largest difference {found.largest.max():.6g}, in {found.worst}; the values of "
        f"{one.key[:12]} span {found.span:.6g}",
        "bin           mean        largest",
        *(
            f"{i:3} {mean:14.6g} {largest:14.6g}"
            for i, (mean, largest) in enumerate(zip(found.mean, found.largest, strict=True))
        ),
    ]
    print_result(result, as_json, *(["equal"] if found.equal else lines))
    if not found.equal:
        raise typer.Exit(1)
