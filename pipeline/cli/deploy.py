"""The commands for deployment: `basilar bundle` and `basilar check-bundle`."""

from pathlib import Path
from typing import Annotated

import typer

from basilar.pipeline.cli import core
from basilar.pipeline.cli.options import (
    PROVE,
    USE,
    AudioRoot,
    Json,
    Key,
    Root,
    UsageError,
    app,
    find_store,
    local,
)
from basilar.pipeline.text import explain_error, print_result


@app.command(rich_help_panel=USE)
def bundle(
    key: Key,
    root: Root,
    output: Annotated[
        Path,
        typer.Option("-o", "--output", parser=local, metavar="DIR", help="The folder to make."),
    ],
    clips: Annotated[
        int, typer.Option(min=0, max=100, help="Clips to include, with audio, as golden vectors.")
    ] = 2,
    audio_root: AudioRoot = None,
    as_json: Json = False,
) -> None:
    """Export a feature set's transform as a folder that can check itself.

    Example: basilar bundle 3f2a --root features -o bundle
    """
    from basilar.pipeline.deployment.export import write_bundle
    from basilar.pipeline.errors import ChangedAudioError
    from basilar.pipeline.manifests.manifest import Manifest
    from basilar.pipeline.records.record import attributes_of
    from basilar.pipeline.training.feature_set import FeatureSet

    path = find_store(root, key)
    attributes = attributes_of(path)
    name = f"{attributes['manifest_hash']}.parquet"
    manifest = Manifest.read(root / "catalogue" / "manifests" / name)
    if audio_root is not None:
        manifest = manifest.moved_to(audio_root)
    try:
        write_bundle(output, FeatureSet.open(path), manifest=manifest, clips=clips)
    except FileExistsError as error:
        raise UsageError(str(error)) from None
    except (FileNotFoundError, ChangedAudioError) as error:
        said = explain_error(error).rpartition("; ")[0]
        where = "say where the audio is now (--audio-root), or leave it out (--clips 0)"
        raise UsageError(f"{said}; {where}") from None
    size = sum(file.stat().st_size for file in output.rglob("*") if file.is_file())
    print_result(
        {"key": attributes["key"], "bundle": str(output), "bytes": size},
        as_json,
        f"{output}: the bundle of {attributes['key']}, {size / 1e6:.1f} MB",
        f"  check it    basilar check-bundle {output}",
    )


@app.command(rich_help_panel=PROVE)
def check_bundle(
    folder: Annotated[Path, typer.Argument(parser=local, metavar="DIR", help="A bundle.")],
    as_json: Json = False,
) -> None:
    """Compute every golden vector of a bundle; exit with 3 if all are within
    the tolerance, with 1 if one is not or a file is damaged.

    Example: basilar check-bundle bundle
    """
    if code := core.check_bundle(folder, as_json=as_json):
        raise typer.Exit(code)
