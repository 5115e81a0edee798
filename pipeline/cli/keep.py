"""Commands that keep a root and an installation in order: gc, doctor."""

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from basilar.pipeline import storage
from basilar.pipeline.cli.options import KEEP, Json, Root, UsageError, app, place
from basilar.pipeline.text import print_result


@app.command(rich_help_panel=KEEP)
def gc(
    root: Root,
    delete: Annotated[bool, typer.Option(help="Remove it; otherwise it is only listed.")] = False,
    as_json: Json = False,
) -> None:
    """List or remove what no published feature set needs, also leftovers of unfinished builds.

    Example: basilar gc --root features --delete
    """
    from basilar.pipeline.audit import garbage

    if not storage.is_folder(root):
        raise UsageError(f"{root}: no such folder; name the --root of a build")
    found = (garbage.collect if delete else garbage.find)(root.absolute())
    stages: dict[str, Counter[str]] = {}
    for item in found.garbage:
        stages.setdefault(item.stage, Counter()).update(count=1, bytes=item.bytes)
    result = {
        "root": str(root),
        "deleted": delete,
        "feature_sets": found.sets,
        "bytes": found.bytes,
        "stages": stages,
        "garbage": [{**asdict(item), "path": str(item.path)} for item in found.garbage],
        "unknown": [str(path) for path in found.unknown],
        "notes": found.notes,
    }
    verb = "freed" if delete else "can be freed (--delete)"
    print_result(
        result,
        as_json,
        *(f"  {item.path}: {item.reason}, {_size(item.bytes)}" for item in found.garbage),
        *(f"  {path}: not made by Basilar, and kept" for path in found.unknown),
        *(f"note: {note}" for note in found.notes),
        *(
            f"{stage:15} {counts['count']:>5} {_size(counts['bytes']):>12}"
            for stage, counts in stages.items()
        ),
        f"{_size(found.bytes)} {verb}; {found.sets} feature sets are kept with all they need",
    )


@app.command(rich_help_panel=KEEP)
def doctor(
    root: Annotated[
        Path | None,
        typer.Option(parser=place, metavar="DIR|URL", help="Folder of feature sets to check."),
    ] = None,
    tracking_uri: Annotated[
        str, typer.Option(envvar="MLFLOW_TRACKING_URI", help="MLflow tracker to check.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Check whether Basilar works here, and advise what to do; exit 0 if nothing failed, else 1.

    Example: basilar doctor --root features
    """
    from basilar.pipeline.audit.doctor import checks

    found = list(checks(None if root is None else root.absolute(), tracking_uri))
    print_result(
        {"ok": all(c.state != "failed" for c in found), "checks": [asdict(c) for c in found]},
        as_json,
        *(f"{check.state:8} {check.name:12} {check.message}" for check in found),
    )
    if any(check.state == "failed" for check in found):
        raise typer.Exit(1)


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 1e6:.1f} MB"
