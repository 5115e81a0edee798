"""Commands that hold Basilar to its promises: verify, reproduce, why, diff."""

import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.console import Json, Root, app, find_store, print_result, progress

Key = Annotated[str, typer.Argument(help="Key of a feature set, or its beginning.")]
AudioRoot = Annotated[Path | None, typer.Option(help="Where the audio is now, if it moved.")]
Workers = Annotated[int, typer.Option(min=1, help="Processes.")]
CPUS = os.cpu_count() or 1


@app.command()
def verify(
    key: Key,
    root: Root,
    sample: Annotated[int, typer.Option(min=0, help="Clips to compute from audio.")] = 0,
    repair: Annotated[bool, typer.Option(help="Make broken shards anew.")] = False,
    audio_root: AudioRoot = None,
    workers: Workers = CPUS,
    as_json: Json = False,
) -> None:
    """Check every file, hash and statistic of a feature set; exit 0 if it is sound, else 1.

    Example: basilar verify 3f2a --root features --sample 10
    """
    from pipeline.repair import repair as repair_set
    from pipeline.verify import verify as verify_set

    def checked() -> Any:
        return verify_set(
            root,
            find_store(root, key).stem,
            sample=sample,
            audio_root=audio_root,
            workers=workers,
            progress=progress("verifying"),
        )

    found = checked()
    lines = [f"{problem.file}: {problem.problem}" for problem in found.problems]
    repaired = None
    if repair and not found.sound:
        repaired = repair_set(root, found, workers=workers, audio_root=audio_root)
        found = checked()
        lines.append(
            f"repaired: {len(repaired.computed)} shards computed, {repaired.linked} linked, digest "
            f"{repaired.digest}"
        )
        lines += [f"still: {problem.file}: {problem.problem}" for problem in found.problems]
    result = {
        "key": found.key,
        "path": str(found.path),
        "sound": found.sound,
        **{name: getattr(found, name) for name in ("clips", "files", "bytes", "sampled")},
        "artifacts": len(found.artifacts),
        "problems": [problem._asdict() for problem in found.problems],
        "repaired": repaired and asdict(repaired),
        "seconds": round(found.seconds, 3),
    }
    state = "sound" if found.sound else f"not sound: {len(found.problems)} problems"
    print_result(
        result,
        as_json,
        *lines,
        f"{found.key} is {state}; {found.clips} clips, {found.files} files, "
        f"{found.bytes / 1e6:.1f} MB, {len(found.sampled)} clips from audio, {found.seconds:.1f} s",
    )
    if not found.sound:
        raise typer.Exit(1)
