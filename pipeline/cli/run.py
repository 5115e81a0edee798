"""Commands about running builds: status, worker, ui."""

import sys
from dataclasses import asdict
from typing import Annotated

import typer

from basilar.pipeline import storage
from basilar.pipeline.cli.options import MAKE, USE, Json, Root, UsageError, app
from basilar.pipeline.console import print_failure
from basilar.pipeline.text import print_result


@app.command(rich_help_panel=MAKE)
def status(root: Root, as_json: Json = False) -> None:
    """Show the progress of builds that are running in a root, on this machine or others.

    Example: basilar status --root features
    """
    from basilar.pipeline.build import status as builds

    if storage.is_remote(root):
        raise UsageError(
            f"{storage.name(root)}: an object store does not know which builds run; run the same "
            "basilar build with --dry-run, which counts finished shards"
        )
    if not root.is_dir():
        raise UsageError(f"{root}: no such folder; name the --root of a build")
    found = builds.builds_in(root.absolute())
    lines = []
    for build, processes in found:
        lines.append(build.line)
        lines += [f"  {s:15} {n:>4} of {total} shards" for s, (n, total) in build.stages.items()]
        lines.append(f"  by {', '.join(processes)}")
    result = {
        "root": str(root),
        "builds": [{**asdict(build), "processes": who} for build, who in found],
    }
    print_result(result, as_json, *(lines or ["no build is running"]))


@app.command(rich_help_panel=MAKE)
def worker(
    root: Root,
    scheduler: Annotated[str, typer.Option(help="The luigid that builds share: http://host:port.")],
    key: Annotated[str, typer.Argument(help="Key of a feature set, or its beginning.")] = "",
    workers: Annotated[int, typer.Option(min=1, help="Number of processes.")] = 1,
    idle: Annotated[
        float, typer.Option(min=0, help="Seconds without a build after which it ends; inf: never.")
    ] = 60.0,
    as_json: Json = False,
) -> None:
    """Help builds that run elsewhere with --engine luigid, in a root that both can access.

    Example: basilar worker --root features --scheduler http://127.0.0.1:8082
    """
    from basilar.pipeline import errors
    from basilar.pipeline.build import luigi_engine

    if storage.is_remote(root):
        raise UsageError(
            f"{storage.name(root)}: an object store does not know which builds run; run the same "
            f"basilar build --engine luigid --scheduler {scheduler} here, too: they share the work"
        )
    try:
        done = luigi_engine.assist(
            root.absolute(), scheduler=scheduler, workers=workers, key=key, idle=idle
        )
    except errors.SchedulerError as error:
        raise UsageError(str(error)) from None
    lines = [f"{'done' if ran.succeeded else 'failed'} {name}" for name, ran in done.items()]
    result = {
        "builds": {name: ran.succeeded for name, ran in done.items()},
        "failures": [failure for ran in done.values() for failure in ran.failures],
    }
    print_result(result, as_json, *(lines or ["no build ran"]))
    if not all(ran.succeeded for ran in done.values()):
        raise typer.Exit(1)


@app.command(rich_help_panel=USE)
def ui(
    root: Root,
    luigi_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of Luigi's page; 0: any free one.")
    ] = 8082,
    mlflow_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of MLflow's page; 0: any free one.")
    ] = 5000,
    as_json: Json = False,
) -> None:
    """Serve Luigi's page of builds and MLflow's page of a root's runs, until Ctrl-C.

    They listen on loopback only, since neither page asks for a password.

    Example: basilar ui --root features
    """
    from basilar.pipeline.build import ui as pages

    if storage.is_remote(root):
        raise UsageError(
            f"{storage.name(root)}: an object store holds no MLflow runs; open the page of the "
            "tracker that builds log to (--tracking-uri), and start luigid by itself"
        )
    if not root.is_dir():
        raise UsageError(f"{root}: no such folder; make it, or name one that builds go to")
    told = False

    def tell(found: pages.Addresses) -> None:
        nonlocal told
        told = True
        how = f"--root {root} --engine luigid --scheduler {found.luigi}"
        print_result(
            {"root": str(root), **asdict(found)},
            as_json,
            f"Luigi   {found.luigi}",
            f"MLflow  {found.runs}",
            "To see a build run, start it with",
            f"  basilar build RECIPE MANIFEST {how}",
            "Both listen on loopback without a password: all who can log in here can use them.",
            "Ctrl-C ends both.",
        )
        sys.stdout.flush()

    try:
        pages.serve(root.absolute(), luigi_port=luigi_port, mlflow_port=mlflow_port, tell=tell)
    except (pages.PortError, ValueError) as error:
        raise UsageError(str(error)) from None
    except pages.ServerError as error:
        if not told:
            raise
        print_failure(error)  # the addresses were already printed as the one JSON object
        raise typer.Exit(1) from None
