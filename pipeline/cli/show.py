"""Commands that show what was made: ls, show, plot, report."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from basilar.pipeline import storage
from basilar.pipeline.cli.options import (
    USE,
    AudioRoot,
    Json,
    Key,
    Root,
    UsageError,
    app,
    complete_key,
    complete_recipe,
    find_store,
    local,
    place,
)
from basilar.pipeline.console import progress
from basilar.pipeline.text import print_result

Picture = Literal[
    "waveform",
    "zoom",
    "spectrogram",
    "values",
    "mean_spectrum",
    "mel_and_stft",
    "mel_and_cqt",
    "mel_scale",
    "filters",
]


@app.command(rich_help_panel=USE)
def ls(root: Root, as_json: Json = False) -> None:
    """List the feature sets of a root.

    Example: basilar ls --root features
    """
    from basilar.pipeline.errors import DamagedArtifactError
    from basilar.pipeline.records.record import attributes_and_recipe_of

    if not storage.is_folder(root):
        raise UsageError(f"{root}: no such folder; name the --root of a build")
    sets, damaged = [], []
    for path in storage.children(root / "features", "[!.]*.zarr"):
        try:
            sets.append(attributes_and_recipe_of(path)[0])
        except DamagedArtifactError as error:
            damaged.append(str(error))
    rows = [
        {
            "key": a["key"],
            "name": str(a["recipe"].get("name", "")),
            "kind": a["recipe"]["representation"]["kind"],
            **{name: a[name] for name in ("clips", "frames", "quarantined", "digest")},
        }
        for a in sets
    ]
    lines = [
        f"{row['key'][:12]}  {row['name'] or row['kind']:16}  {row['clips']:>8} clips  "
        f"{row['frames']:>10} frames  digest {row['digest'][:12]}"
        for row in rows
    ]
    lines += [f"damaged: {problem}" for problem in damaged]
    print_result(
        {"root": str(root), "feature_sets": rows, "damaged": damaged},
        as_json,
        *(lines or ["no feature sets"]),
    )


@app.command(rich_help_panel=USE)
def show(
    key: Key,
    root: Root,
    as_json: Json = False,
) -> None:
    """Show what a feature set is and how it was made.

    Example: basilar show 3f2a --root features
    """
    from basilar.pipeline.records.record import attributes_and_recipe_of
    from basilar.pipeline.storage.files import read_table

    path = find_store(root, key)
    attributes, recipe = attributes_and_recipe_of(path)
    lost = read_table(path / "quarantine.parquet").to_pylist()
    names = ("key", "digest", "recipe_hash", "manifest_hash", "clips", "frames")
    print_result(
        {"path": str(path), **attributes, "quarantine": lost},
        as_json,
        f"path           {path}",
        *(f"{name:14} {attributes[name]}" for name in names),
        f"versions       {', '.join(f'{k} {v}' for k, v in attributes['versions'].items())}",
        *(f"quarantined    {e['id']}: {e['stage']}: {e['reason']}: {e['message']}" for e in lost),
        "",
        *recipe.to_toml().splitlines(),
    )


@app.command(rich_help_panel=USE)
def plot(
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="FILE|URL|KEY",
            help="Audio file, or key of a feature set.",
            autocompletion=complete_key,
        ),
    ] = None,
    clip: Annotated[
        str | None, typer.Argument(metavar="CLIP_ID", help="With a key: a clip of the set.")
    ] = None,
    *,
    output: Annotated[
        Path,
        typer.Option("-o", "--output", parser=local, metavar="FILE", help="Picture: .png or .svg."),
    ],
    recipe: Annotated[
        Path | None,
        typer.Option(
            help="With a file: recipe (TOML), or the name of a shipped one.",
            autocompletion=complete_recipe,
        ),
    ] = None,
    root: Annotated[
        Path | None,
        typer.Option(parser=place, metavar="DIR|URL", help="With a key: where it was published."),
    ] = None,
    audio_root: AudioRoot = None,
    picture: Annotated[
        Picture | None, typer.Option(help="Picture to draw; default: by the recipe.")
    ] = None,
    scale: Annotated[
        Literal["linear", "log", "mel", "note"] | None,
        typer.Option(help="Scale of frequencies; default: by the recipe."),
    ] = None,
    offset: Annotated[float, typer.Option(min=0, help="Start of the excerpt, s.")] = 0.0,
    duration: Annotated[
        float | None, typer.Option(min=0.001, help="Its length, s; left out: to the end.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Draw the features of a file by a recipe, or the stored features of a clip.

    Example: basilar plot clip.wav --recipe params/log_mel.toml -o clip.png
    """
    from basilar.pipeline.audio.containers import AudioError
    from basilar.pipeline.recipes.recipe import Recipe
    from basilar.pipeline.report.plots import drawing, gallery
    from basilar.pipeline.storage.atomic import replacing
    from basilar.pipeline.training.feature_set import FeatureSet

    formats: dict[str, Literal["png", "svg"]] = {".png": "png", ".svg": "svg"}
    file_format = formats.get(output.suffix)
    if file_format is None:
        raise UsageError(f"-o {output}: not a kind of picture; the suffix must be .png or .svg")
    if (recipe is None) == (root is None):
        raise UsageError(
            "basilar plot: it takes either --recipe or --root; name --recipe for a file, --root "
            "for a stored clip"
        )
    if recipe is not None and clip is not None:
        raise UsageError(
            f"{clip}: a clip of a feature set is drawn by its own recipe; name --root, no --recipe"
        )
    try:
        if recipe is not None:
            used = Recipe.load(recipe)
            subject = gallery.Subject(used)
            if source is not None:
                subject = gallery.of_file(used, storage.fetch(place(source)), offset, duration)
        else:
            assert root is not None
            fs = FeatureSet.open(find_store(root, source or ""))
            subject = gallery.Subject(fs.typed_recipe)
            if clip is not None:
                subject = gallery.of_clip(
                    fs, clip, root=root, audio_root=audio_root, offset=offset, duration=duration
                )
        name = picture or gallery.default(subject.recipe)
        with drawing.style():
            data = drawing.render(gallery.draw(name, subject, scale), file_format)
    except gallery.PictureError as error:
        raise UsageError(str(error)) from None
    except AudioError as error:
        raise UsageError(
            f"{source}: it cannot be decoded ({error}); convert it, or take another"
        ) from None
    with replacing(output) as temporary:
        temporary.write_bytes(data)
    result = {"picture": name, "output": str(output), "bytes": len(data)}
    print_result(result, as_json, f"{output}: {name}, {len(data) / 1000:.0f} kB")


@app.command(rich_help_panel=USE)
def report(
    key: Key,
    other: Annotated[
        str | None,
        typer.Argument(help="Another one, to compare it with.", autocompletion=complete_key),
    ] = None,
    *,
    root: Root,
    output: Annotated[
        Path,
        typer.Option("-o", "--output", parser=local, metavar="FILE", help="Page to write: .html."),
    ],
    audio_root: AudioRoot = None,
    as_json: Json = False,
) -> None:
    """Write an HTML page about a feature set, with charts and examples; or compare two.

    Example: basilar report 3f2a --root features -o report.html
    """
    from dataclasses import replace

    from basilar.pipeline.build import registry
    from basilar.pipeline.records.explain import Side, why
    from basilar.pipeline.records.record import find_record
    from basilar.pipeline.report import of_pair, of_set
    from basilar.pipeline.report.collect import collect
    from basilar.pipeline.storage.atomic import replacing

    if output.suffix != ".html":
        raise UsageError(f"-o {output}: it is not an HTML file; the suffix must be .html")
    stores = [find_store(root, name) for name in (key, other) if name is not None]
    records = [find_record(root, store.stem) for store in stores]
    reports = [
        collect(
            record.open(),
            replace(record.manifest, root=audio_root or record.manifest.root),
            built=registry.recorded(root, record.key),
            progress=progress("listening"),
        )
        for record in records
    ]
    if other is None:
        page = of_set.render(reports[0])
    else:
        one, two = map(Side.of_record, records)
        page = of_pair.render(reports[0], reports[1], why(one, two))
    with replacing(output) as temporary:
        temporary.write_text(page, "utf-8")
    result = {"keys": [record.key for record in records], "output": str(output)}
    size = output.stat().st_size
    print_result({**result, "bytes": size}, as_json, f"{output}: {size / 1e6:.2f} MB")
