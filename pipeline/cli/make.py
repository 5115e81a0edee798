"""Commands that make things: scan, recipe, build."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from basilar.pipeline.cli.options import (
    MAKE,
    AudioRoot,
    Json,
    Root,
    StoppedError,
    UsageError,
    app,
    attributes_of,
    complete_recipe,
    place,
)
from basilar.pipeline.console import print_error, print_result, progress

if TYPE_CHECKING:
    from basilar.pipeline.manifests.manifest import Manifest

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
            help="Manifest: .parquet, or .csv or .jsonl.",
        ),
    ],
    root: Annotated[
        Path | None,
        typer.Option(parser=place, metavar="PATH|URL", help="Where a table's paths start from."),
    ] = None,
    label: Annotated[
        str | None, typer.Option(help="'parent', or a regular expression with (?P<label>…).")
    ] = None,
    group: Annotated[
        str | None, typer.Option(help="What must not cross splits: as --label, (?P<group>…).")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Shares like train=0.8,valid=0.1,test=0.1, or a CSV.")
    ] = None,
    rehash: Annotated[bool, typer.Option(help="Read every file again.")] = False,
    as_json: Json = False,
) -> None:
    """Find, hash and probe audio; write a manifest, or convert one.

    Example: basilar scan audio -o manifest.parquet --label parent --split train=0.8,test=0.2
    """
    from basilar.pipeline.manifests.manifest import write_manifest
    from basilar.pipeline.manifests.scan import scan as scan_source

    manifest, left_out = scan_source(
        source,
        root=root,
        label=label,
        group=group,
        split=_split(split),
        rehash=rehash,
        progress=progress("scanning"),
    )
    is_table = source.is_file()
    ignored, skipped = (left_out, []) if is_table else ([], left_out)
    if ignored and output.exists() and output.samefile(source):
        raise UsageError(
            f"{output}: it is the table that is scanned, and would lose its columns "
            f"{', '.join(ignored)}; name another file with -o"
        )
    write_manifest(manifest, output)
    columns = (manifest.column(name) for name in ("id", "problem"))
    problems = [f"{clip}: {problem}" for clip, problem in zip(*columns, strict=True) if problem]
    result = {
        "manifest": str(output),
        "manifest_hash": manifest.hash,
        "clips": len(manifest),
        "seconds": sum(manifest.seconds),
        "unreadable": problems,
        "not_audio": skipped,
        "ignored_columns": ignored,
    }
    hours = result["seconds"] / 3600 if isinstance(result["seconds"], float) else 0.0
    print_result(
        result,
        as_json,
        f"{output}: {len(manifest)} clips, {hours:.2f} h, {len(skipped)} files are not audio, "
        f"{len(problems)} cannot be read",
        *(f"  cannot be read: {problem}" for problem in problems),
        *(f"  {line}" for line in _said_of_columns(ignored)),
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
        bool, typer.Option(help="Print the file as the newest schema version has it.")
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
            f"basilar recipe: no FILE is named; name one, or ask for --schema, or take {shipped}"
        )
    if upgrade:
        text = upgraded_text(file)
        print_result({"toml": text}, as_json, *text.splitlines())
        return
    loaded = Recipe.load(file)
    hashes = recipe_hashes(loaded)
    kind, sample_rate = loaded.representation, loaded.resample.sample_rate
    empty = kind.empty_bands(sample_rate=sample_rate) if isinstance(kind, MelBands) else []
    portable = kind.portable
    result = {
        "recipe_hash": hashes["normalization"],
        "hashes": hashes,
        "portable": portable,
        "empty_bands": empty,
        "recipe": loaded.resolved(),
    }
    promise = "the same bits everywhere" if portable else "bits are not promised for this n_fft"
    comments = [f"# {stage} {value}" for stage, value in hashes.items()]
    if empty:
        bands = ", ".join(map(str, empty))
        comments.insert(0, f"# always empty, since n_fft is small for n_mels: bands {bands}")
    toml = loaded.to_toml().splitlines()
    print_result(result, as_json, *toml, "", f"# {promise}", *comments)


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
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = os.cpu_count() or 1,
    shard_seconds: Annotated[float, typer.Option(min=0.001, help="Audio a shard, s.")] = 600.0,
    audio_root: AudioRoot = None,
    keep: Annotated[
        str, typer.Option(help="Stages whose artifacts are kept.")
    ] = "resample,representation",
    max_bad: Annotated[float, typer.Option(min=0, max=1, help="Share of bad clips.")] = 0.01,
    clip_timeout: Annotated[
        float, typer.Option(min=0.001, help="To decode a clip, s; it is tried twice.")
    ] = 600.0,
    tracking_uri: Annotated[
        str, typer.Option(envvar="MLFLOW_TRACKING_URI", help="MLflow; default: under the root.")
    ] = "",
    register: Annotated[
        str, typer.Option(help="Register its bundle as a model in MLflow: NAME or NAME@ALIAS.")
    ] = "",
    engine: Annotated[
        Engine, typer.Option(help="Where the work runs: here, shared by a luigid, or on Dask.")
    ] = "local",
    scheduler: Annotated[
        str, typer.Option(help="With --engine luigid: http://host:port; basilar worker helps.")
    ] = "",
    dask: Annotated[
        str, typer.Option(help="With --engine dask: tcp://host:port, or a scheduler file.")
    ] = "",
    dry_run: Annotated[bool, typer.Option(help="Print what would be done.")] = False,
    explain: Annotated[
        bool, typer.Option(help="With --dry-run: and why it is not cached.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Build a feature set, or find it built.

    Example: basilar build log_mel manifest.parquet --root features --workers 2
    """
    from basilar.pipeline.build.build import Build
    from basilar.pipeline.plan import Plan
    from basilar.pipeline.recipes.recipe import Recipe
    from basilar.pipeline.tracking.location import embedded_tracking_uri

    if (bool(scheduler), bool(dask)) != (engine == "luigid", engine == "dask"):
        raise UsageError(
            f"--engine {engine}: it does not fit --scheduler and --dask; luigid needs --scheduler, "
            "dask needs --dask, and no other engine takes them"
        )
    plan = Plan(Recipe.load(recipe), _manifest(manifest, audio_root), shard_seconds)
    try:
        tracker = tracking_uri or embedded_tracking_uri(root)
        planned = Build(
            root=root.absolute(),
            plan=plan,
            tracking_uri=tracker,
            keep=_keep(keep),
            max_bad=max_bad,
            register_as=register,
            clip_timeout=clip_timeout,
            dask=dask,
        )
    except ValueError as error:
        raise UsageError(str(error)) from None
    if explain and not dry_run:
        raise UsageError("--explain: it says why a planned build is not cached; add --dry-run")
    if dry_run:
        _dry_run(planned, explain, as_json)
        return
    from basilar.pipeline import errors
    from basilar.pipeline.build import luigi_engine

    try:
        outcome = luigi_engine.run(planned, workers=workers, scheduler=scheduler, show=not as_json)
    except errors.SchedulerError as error:
        raise UsageError(str(error)) from None
    except KeyboardInterrupt:
        left = len(planned.work().pending["representation"])
        made = f"{len(plan.shards) - left} of {len(plan.shards)} shards are made and kept"
        raise StoppedError(f"{made}; the same command goes on from there") from None
    if not outcome.succeeded:
        if as_json:
            said = outcome.failures or [f"{root}: what failed is said where it ran; see there"]
            print_result({"key": plan.key, "error": said[0], "failures": said}, as_json)
        raise typer.Exit(1)
    attributes = attributes_of(planned.store)
    result = {
        "key": plan.key,
        "path": str(planned.store),
        "digest": attributes["digest"],
        "recipe_hash": attributes["recipe_hash"],
        "manifest_hash": attributes["manifest_hash"],
        "clips": attributes["clips"],
        "quarantined": attributes["quarantined"],
        "outcome": outcome.verb,
        "shards_computed": outcome.shards_computed,
        "shards_cached": len(plan.shards) - outcome.shards_computed,
        "stages": {
            stage: {"computed": outcome.computed[stage], "cached": outcome.cached[stage]}
            for stage in outcome.computed
        },
        "seconds": round(outcome.seconds, 3),
        "mlflow_run_id": outcome.mlflow_run_id,
    }
    if attributes["recipe"]["store"] != plan.recipe.store.model_dump():
        print_error(
            f"note: {plan.key[:12]} is published with [store] {attributes['recipe']['store']}; the "
            "values are the same. To lay them out anew, delete its path and build again."
        )
    print_result(
        result,
        as_json,
        f"{outcome.verb} {plan.key} in {outcome.seconds:.1f} s",
        f"  path     {planned.store}",
        f"  digest   {attributes['digest']}",
        f"  clips    {attributes['clips']}, quarantined {attributes['quarantined']}",
        f"  shards   {outcome.shards_computed} computed, "
        f"{len(plan.shards) - outcome.shards_computed} cached",
        f"  mlflow   {outcome.mlflow_run_id or 'not logged; the next build tries again'}",
    )


def _manifest(source: Path, audio_root: Path | None) -> "Manifest":
    from basilar.pipeline.manifests.manifest import Manifest, read_manifest

    if source.suffix == ".parquet" and not source.is_dir():
        manifest = read_manifest(source)
    else:
        from basilar.pipeline.manifests.scan import scan as scan_source

        manifest, left_out = scan_source(source, root=audio_root, progress=progress("scanning"))
        for line in _said_of_columns(left_out) if source.is_file() else ():
            print_error(f"note: {line}")
    return manifest if audio_root is None else Manifest(audio_root.absolute(), manifest.table)


def _said_of_columns(ignored: list[str]) -> list[str]:
    """A line on each column of a table that no manifest has."""
    from basilar.pipeline.manifests.table import CLIP_COLUMNS

    meant = {name: name.strip().lower() for name in ignored}
    hints = {
        name: f"; did you mean {known}?"
        for name, known in meant.items()
        if known in CLIP_COLUMNS.names
    }
    return [f"column ignored: {name}{hints.get(name, '')}" for name in ignored]


def _keep(text: str) -> tuple[str, ...]:
    from basilar.pipeline.recipes.hashes import STAGES

    keep = {name.strip() for name in text.split(",") if name.strip()} | {"representation"}
    if not keep <= set(STAGES):
        raise UsageError(
            f"--keep: {text!r} names what is no stage; allowed are {', '.join(STAGES)}, separated "
            "by commas"
        )
    return tuple(sorted(keep))


def _split(text: str | None) -> dict[str, float] | Path | None:
    if text is None or "=" not in text:
        return None if text is None else Path(text)
    try:
        parts = [part.split("=") for part in text.split(",")]
        return {name.strip(): float(share) for name, share in parts}
    except ValueError:
        raise UsageError(
            f"--split: {text!r} gives no shares; write shares as train=0.8,test=0.2"
        ) from None


def _dry_run(planned: Any, explain: bool, as_json: bool) -> None:
    """Print what a build would do: shards by stage, the disk they need, and if asked for, why."""
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
