"""Commands that make things: scan, recipe, build."""

import json
import os
import warnings
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from basilar.pipeline.cli.options import (
    MAKE,
    AudioRoot,
    Json,
    Root,
    StoppedError,
    UsageError,
    app,
    complete_recipe,
    place,
)
from basilar.pipeline.console import progress
from basilar.pipeline.defaults import CLIP_TIMEOUT, KEEP, MAX_BAD, SHARD_SECONDS
from basilar.pipeline.text import print_result

Engine = Literal["local", "luigid", "dask"]


@app.command(rich_help_panel=MAKE)
def scan(
    source: Annotated[
        Path,
        typer.Argument(parser=place, metavar="PATH|URL", help="Folder of audio, or table."),
    ],
    output: Annotated[
        Path,
        typer.Option(
            *("-o", "--output"),
            parser=place,
            metavar="PATH|URL",
            help="Manifest to write: .parquet, .csv or .jsonl.",
        ),
    ],
    root: Annotated[
        Path | None,
        typer.Option(parser=place, metavar="PATH|URL", help="Folder a table's paths start from."),
    ] = None,
    label: Annotated[
        str | None, typer.Option(help="'parent', or a regular expression with (?P<label>…).")
    ] = None,
    group: Annotated[
        str | None, typer.Option(help="Must stay in one split: as --label, (?P<group>…).")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Shares like train=0.8,valid=0.1,test=0.1, or a CSV.")
    ] = None,
    rehash: Annotated[bool, typer.Option(help="Read all files again.")] = False,
    as_json: Json = False,
) -> None:
    """Find, hash and probe audio; write a manifest, or convert one.

    Example: basilar scan audio -o manifest.parquet --label parent --split train=0.8,test=0.2
    """
    from basilar.pipeline.manifests.scan import scan as scan_source

    manifest = scan_source(
        source,
        root=root,
        label=label,
        group=group,
        split=split,
        rehash=rehash,
        progress=progress("scanning"),
    )
    if manifest.ignored_columns and output.exists() and output.samefile(source):
        raise UsageError(
            f"{output}: it is the table being scanned, and would lose its columns "
            f"{', '.join(manifest.ignored_columns)}; name another file with -o"
        )
    manifest.write(output)
    problems = [f"{clip}: {problem}" for clip, problem in manifest.rows("id", "problem") if problem]
    seconds = float(manifest.seconds.sum())
    result = {
        "manifest": str(output),
        "manifest_hash": manifest.hash,
        "clips": len(manifest),
        "seconds": seconds,
        "unreadable": problems,
        "not_audio": manifest.not_audio,
        "ignored_columns": manifest.ignored_columns,
    }
    print_result(
        result,
        as_json,
        f"{output}: {len(manifest)} clips, {seconds / 3600:.2f} h, {len(manifest.not_audio)} files "
        f"are not audio, {len(problems)} cannot be read",
        *(f"  cannot be read: {problem}" for problem in problems),
        *(f"  {note}" for note in manifest.notes),
    )


@app.command(rich_help_panel=MAKE)
def recipe(
    file: Annotated[
        Path | None,
        typer.Argument(
            help="Recipe (TOML), or the name of a shipped one.", autocompletion=complete_recipe
        ),
    ] = None,
    schema: Annotated[bool, typer.Option(help="Print the JSON Schema of recipes.")] = False,
    upgrade: Annotated[
        bool, typer.Option(help="Print the file in the newest schema version.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Print a recipe with every value resolved, and its hash.

    Example: basilar recipe log_mel
    """
    from basilar.pipeline.recipes.hashes import recipe_hashes
    from basilar.pipeline.recipes.kinds.mel import MelBands
    from basilar.pipeline.recipes.recipe import SHIPPED, Recipe, upgraded_text

    if schema:
        found = Recipe.model_json_schema()
        print_result(found, as_json, *json.dumps(found, indent=1).splitlines())
        return
    if file is None:
        shipped = ", ".join(sorted(path.stem for path in SHIPPED.glob("*.toml")))
        raise UsageError(
            f"basilar recipe: no FILE is given; name one, use --schema, or name one of {shipped}"
        )
    if upgrade:
        text = upgraded_text(file)
        print_result({"toml": text}, as_json, *text.splitlines())
        return
    loaded = Recipe.load(file)
    hashes = recipe_hashes(loaded)
    kind, sample_rate = loaded.representation, loaded.resample.sample_rate
    empty = kind.empty_bands(sample_rate=sample_rate) if isinstance(kind, MelBands) else []
    result = {
        "recipe_hash": hashes["normalization"],
        "hashes": hashes,
        "empty_bands": empty,
        "recipe": loaded.resolved(),
    }
    comments = [f"# {stage} {value}" for stage, value in hashes.items()]
    if empty:
        bands = ", ".join(map(str, empty))
        comments.insert(0, f"# always empty, since n_fft is small for n_mels: bands {bands}")
    toml = loaded.to_toml().splitlines()
    print_result(result, as_json, *toml, "", *comments)


@app.command(rich_help_panel=MAKE)
def build(
    recipe: Annotated[
        Path,
        typer.Argument(
            help="Recipe (TOML), or the name of a shipped one.", autocompletion=complete_recipe
        ),
    ],
    manifest: Annotated[
        Path,
        typer.Argument(parser=place, metavar="PATH|URL", help="Manifest, or a folder to scan."),
    ],
    root: Root,
    workers: Annotated[int, typer.Option(min=1, help="Number of processes.")] = os.cpu_count() or 1,
    shard_seconds: Annotated[
        float, typer.Option(min=0.001, help="Audio a shard, s.")
    ] = SHARD_SECONDS,
    audio_root: AudioRoot = None,
    keep: Annotated[str, typer.Option(help="Stages whose artifacts are kept.")] = ",".join(KEEP),
    max_bad: Annotated[
        float, typer.Option(min=0, max=1, help="Largest share of clips that may be quarantined.")
    ] = MAX_BAD,
    clip_timeout: Annotated[
        float, typer.Option(min=0.001, help="Seconds to decode a clip; it is tried twice.")
    ] = CLIP_TIMEOUT,
    tracking_uri: Annotated[
        str, typer.Option(envvar="MLFLOW_TRACKING_URI", help="MLflow; default: in the root.")
    ] = "",
    register: Annotated[
        str, typer.Option(help="Register its bundle as a model in MLflow: NAME or NAME@ALIAS.")
    ] = "",
    engine: Annotated[
        Engine, typer.Option(help="Where the work runs: here, shared through a luigid, or on Dask.")
    ] = "local",
    scheduler: Annotated[
        str, typer.Option(help="With --engine luigid: http://host:port; basilar worker helps.")
    ] = "",
    dask: Annotated[
        str, typer.Option(help="With --engine dask: tcp://host:port, or a scheduler file.")
    ] = "",
    dry_run: Annotated[bool, typer.Option(help="Print what would be done.")] = False,
    explain: Annotated[
        bool, typer.Option(help="With --dry-run: also print why it is not cached.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Build a feature set, unless it is already built.

    Example: basilar build log_mel manifest.parquet --root features --workers 2
    """
    from basilar.pipeline.build.entry import carry_out, prepare
    from basilar.pipeline.errors import BuildFailedError

    if explain and not dry_run:
        raise UsageError("--explain: it says why a planned build is not cached; add --dry-run")
    planned = prepare(
        recipe,
        manifest,
        root=root,
        shard_seconds=shard_seconds,
        audio_root=audio_root,
        keep=keep,
        max_bad=max_bad,
        clip_timeout=clip_timeout,
        tracking_uri=tracking_uri,
        register=register,
        engine=engine,
        scheduler=scheduler,
        dask=dask,
        progress=progress("scanning"),
    )
    if dry_run:
        _dry_run(planned, explain, as_json)
        return
    try:
        built = carry_out(planned, workers=workers, scheduler=scheduler, show=not as_json)
    except BuildFailedError as error:  # what failed was shown when it did
        if as_json:
            failed = {"key": planned.plan.key, "error": error.failures[0]}
            print_result({**failed, "failures": error.failures}, as_json)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        warnings.simplefilter("ignore", RuntimeWarning)  # of what zarr awaits no more
        total = len(planned.plan.shards)
        made = total - len(planned.work().pending["representation"])
        raise StoppedError(
            f"{made} of {total} shards are made and kept; the same command goes on from there"
        ) from None
    print_result(
        {**vars(built), "path": str(built.path)},
        as_json,
        f"{built.outcome} {built.key} in {built.seconds:.1f} s",
        f"  path     {built.path}",
        f"  digest   {built.digest}",
        f"  clips    {built.clips}, quarantined {built.quarantined}",
        f"  shards   {built.shards_computed} computed, {built.shards_cached} cached",
        f"  mlflow   {built.mlflow_run_id or 'not logged; the next build tries again'}",
    )


def _dry_run(planned: Any, explain: bool, as_json: bool) -> None:
    """Print what a build would do: shards by stage, disk space and, if requested, the reasons."""
    from basilar.pipeline.plan import disk_bytes

    plan, work = planned.plan, planned.work(begun=False)
    total = len(plan.shards)
    needed = disk_bytes(plan, work, planned.keep)
    stages = {
        stage: {
            "cached": total - len(shards),
            "compute": len(shards),
            "bytes": needed[stage],
        }
        for stage, shards in work.pending.items()
    }
    disk = sum(stage["bytes"] for stage in stages.values())
    result = {
        "key": plan.key,
        "recipe_hash": plan.hashes["normalization"],
        "manifest_hash": plan.manifest.hash,
        "published": work.published,
        "clips": len(plan.manifest),
        "shards": total,
        "stages": stages,
        "disk_bytes": disk,
    }
    reasons = []
    if explain:
        from basilar.pipeline.build.explain import explain as explain_build

        near, found = explain_build(planned)
        result["explain"] = {"nearest": near, "stages": found}
        reasons = [f"  why, against {near[:12]}:"] if near else []
        reasons += [f"  {stage:15} {line}" for stage, lines in found.items() for line in lines]
    print_result(
        result,
        as_json,
        f"{plan.key}: {'published' if work.published else 'not published'}",
        *(
            f"  {stage:15} {counts['cached']:>4} shards cached, {counts['compute']:>4} to compute"
            for stage, counts in stages.items()
        ),
        f"  disk needed     {disk / 1e6:.1f} MB",
        *reasons,
    )
