"""Commands that look after builds that run: worker."""

from typing import Annotated

import typer

from pipeline.console import Json, Root, UsageError, app, print_result


@app.command()
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
