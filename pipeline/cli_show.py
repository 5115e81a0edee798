"""Commands that show what was made: report."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline import artifacts
from pipeline.console import (
    AudioRoot,
    Json,
    Root,
    app,
    find_store,
    print_result,
    progress,
)


@app.command()
def report(
    key: Annotated[str, typer.Argument(help="Key of a feature set, or its beginning.")],
    other: Annotated[
        str | None, typer.Argument(help="Another, to put side by side with it.")
    ] = None,
    *,
    root: Root,
    output: Annotated[Path, typer.Option("-o", "--output", help="The page: .html.")],
    audio_root: AudioRoot = None,
    as_json: Json = False,
) -> None:
    """Write what a feature set is, with charts and examples, as one HTML file; or compare two.

    Example: basilar report 3f2a --root features -o report.html
    """
    from dataclasses import replace

    from pipeline import page_of_pair, page_of_set, recover
    from pipeline import report as module
    from pipeline.dataset import FeatureSet
    from pipeline.why import Side, why

    stores = [find_store(root, name) for name in (key, other) if name is not None]
    records = [recover.of_root(root, store.stem) for store in stores]
    reports = [
        module.collect(
            FeatureSet.open(store),
            replace(record.manifest, root=audio_root or record.manifest.root),
            built=module.build_of(root, record.key),
            progress=progress("listening"),
        )
        for store, record in zip(stores, records, strict=True)
    ]
    if other is None:
        page = page_of_set.render(reports[0])
    else:
        one, two = map(Side.of_record, records)
        page = page_of_pair.render(reports[0], reports[1], why(one, two))
    with artifacts.replacing(output) as temporary:
        temporary.write_text(page, "utf-8")
    result = {"keys": [record.key for record in records], "output": str(output)}
    size = output.stat().st_size
    print_result({**result, "bytes": size}, as_json, f"{output}: {size / 1e6:.2f} MB")
