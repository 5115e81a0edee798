"""Commands about builds that run: status, worker."""

from dataclasses import asdict
from typing import Annotated

import typer

from pipeline.console import MAKE, Json, Root, UsageError, app, print_result


@app.command(rich_help_panel=MAKE)
def status(root: Root, as_json: Json = False) -> None:
    """Show how far the builds are that run in a root, here or elsewhere.

    Example: basilar status --root features
    """
    from pipeline import status as builds

    if not root.is_dir():
        raise UsageError(f"{root}: no such folder; name the --root of a build")
    found = builds.of_root(root.absolute())
    lines = []
    for build, processes in found:
        lines.append(build.line)
        lines += [f"  {s:15} {n:>4} of {total} shards" for s, (n, total) in build.stages.items()]
        lines.append(f"  by {', '.join(processes)}")
    result = {
        "root": str(root),
        "builds": [{**asdict(build), "processes": who} for build, who in found],
    }
    print_result(result, as_json, *(lines or ["no build runs"]))


@app.command(rich_help_panel=MAKE)
def worker(
    root: Root,
    scheduler: Annotated[str, typer.Option(help="The luigid that builds share: http://host:port.")],
    key: Annotated[str, typer.Argument(help="Key of a feature set, or its beginning.")] = "",
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
    idle: Annotated[
        float, typer.Option(min=0, help="End when no build ran for so long, s; inf: never.")
    ] = 60.0,
    as_json: Json = False,
) -> None:
    """Take part in builds that run elsewhere with --engine luigid, in a root that both see.

    Example: basilar worker --root features --scheduler http://127.0.0.1:8082
    """
    from pipeline import engines

    try:
        done = engines.assist(
            root.absolute(), scheduler=scheduler, workers=workers, key=key, idle=idle
        )
    except engines.SchedulerError as error:
        raise UsageError(str(error)) from None
    lines = [f"{'done' if succeeded else 'failed'} {name}" for name, succeeded in done.items()]
    print_result({"builds": done}, as_json, *(lines or ["no build ran"]))
    if not all(done.values()):
        raise typer.Exit(1)
