"""Commands that hold Basilar to its promises: verify, reproduce, parity."""

import os
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from basilar.pipeline import storage
from basilar.pipeline.cli.options import (
    PROVE,
    AudioRoot,
    Json,
    Key,
    Root,
    StoppedError,
    UsageError,
    app,
    find_key,
    find_store,
    place,
)
from basilar.pipeline.console import print_failure, progress
from basilar.pipeline.text import print_result

if TYPE_CHECKING:
    from basilar.pipeline.audit.consistency import Problem
    from basilar.pipeline.records.record import Record


Workers = Annotated[int, typer.Option(min=1, help="Number of tasks at one time.")]
CPUS = os.cpu_count() or 1
SHOWN = 50  # clips at most that are named


@app.command(rich_help_panel=PROVE)
def verify(
    key: Key,
    root: Root,
    sample: Annotated[int, typer.Option(min=0, help="Clips to compute again from audio.")] = 0,
    repair: Annotated[bool, typer.Option(help="Compute broken shards again.")] = False,
    audio_root: AudioRoot = None,
    workers: Workers = CPUS,
    as_json: Json = False,
) -> None:
    """Check every file, hash and statistic of a feature set; exit 0 if it is sound, else 1.

    Example: basilar verify 3f2a --root features --sample 10
    """
    from basilar.pipeline.audit.repair import repair as repair_set
    from basilar.pipeline.audit.verify import verify as verify_set

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
    lines = [line for problem in found.problems for line in _lines_of(problem)]
    repaired = None
    if repair and not found.sound:
        repaired = repair_set(root, found, workers=workers, audio_root=audio_root)
        found = checked()
        lines.append(
            f"repaired: {len(repaired.computed)} shards computed, {repaired.linked} linked, digest "
            f"{repaired.digest}"
        )
        lines += [f"still: {line}" for problem in found.problems for line in _lines_of(problem)]
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


def _lines_of(problem: "Problem") -> list[str]:
    return f"{problem.file}: {problem.problem}".split("\n")


@app.command(rich_help_panel=PROVE)
def reproduce(
    key: Key,
    root: Annotated[
        Path | None,
        typer.Option(parser=place, metavar="DIR|URL", help="Folder that it was published in."),
    ] = None,
    tracking_uri: Annotated[
        str, typer.Option(envvar="MLFLOW_TRACKING_URI", help="MLflow tracker that has its run.")
    ] = "",
    audio_root: AudioRoot = None,
    into: Annotated[
        Path | None,
        typer.Option(
            parser=place,
            metavar="DIR|URL",
            help="Empty folder to build in, which is kept; left out: a temporary one.",
        ),
    ] = None,
    workers: Workers = CPUS,
    shard_seconds: Annotated[
        float | None, typer.Option(min=0.001, help="Audio per shard, s; left out: as before.")
    ] = None,
    tolerance: Annotated[
        float, typer.Option(min=0, help="Largest difference, as a share of the range.")
    ] = 1e-4,
    as_json: Json = False,
) -> None:
    """Build a feature set again, from its store, the catalogue or its MLflow run, and compare.

    Exit codes: 0 identical, 3 within the tolerance, 1 different, 2 wrong use.

    Example: basilar reproduce 3f2a --root features
    """
    from basilar.pipeline.audit.reproduce import reproduce as reproduce_set
    from basilar.pipeline.errors import BuildFailedError
    from basilar.pipeline.records.locate import MissingAudioError

    if into is not None and (into.is_file() or (storage.is_folder(into) and storage.members(into))):
        raise UsageError(
            f"--into {into}: is not empty, and what is there would not be built again; name another"
        )
    with tempfile.TemporaryDirectory(prefix="basilar-") as folder:
        record = _record(key, root, tracking_uri, Path(folder))
        try:
            found = reproduce_set(
                record,
                into=into,
                audio_root=audio_root,
                workers=workers,
                shard_seconds=shard_seconds,
                tolerance=tolerance,
                progress=progress("looking for audio"),
            )
        except (MissingAudioError, BuildFailedError) as error:
            clips = {name: getattr(error, name, []) for name in ("missing", "changed")}
            # Audio of other content is different; without audio, or a build, nothing is known.
            verdict = "different" if clips["changed"] else "not_reproduced"
            failed = {"key": record.key, "verdict": verdict, "error": str(error), **clips}
            print_failure(error)
            print_result(failed, as_json, f"{verdict.replace('_', ' ')}: {record.key}")
            raise typer.Exit(1) from None
        except KeyboardInterrupt:
            if into is None:
                raise
            raise StoppedError(
                f"what was made is in {into}, which must be empty; delete it, and the same command "
                "starts again"
            ) from None
    count = len(found.differing)
    result = {
        **asdict(found),
        "differing": [clip._asdict() for clip in found.differing[:SHOWN]],
        "differing_clips": count,
        "path": None if into is None else str(into / "features" / f"{found.key_now}.zarr"),
        "seconds": round(found.seconds, 3),
    }
    lines = [
        f"{found.verdict.replace('_', ' ')}: {found.key} from its {found.source}, {found.clips} "
        f"clips, {found.found_elsewhere} of them under other names, in {found.seconds:.1f} s",
        f"  digest  {found.digest}",
    ]
    if found.key_now != found.key:
        lines.append(f"  key     {found.key_now} now, since versions differ; the digest decides")
    if found.verdict != "identical":
        largest = "not known" if found.largest is None else f"{found.largest:.3g} of the range"
        lines += [
            f"  now     {found.digest_now}",
            *([] if count else ["  every clip is the same: the recorded digest is not theirs"]),
            f"  largest difference {largest}, tolerated {found.tolerance:g}",
            *(f"  {name}: {then} then, {now} now" for name, (then, now) in found.changes.items()),
            *(
                f"  {clip.id}: from {clip.stage} on: {clip.reason}"
                for clip in found.differing[:SHOWN]
            ),
            *([f"  … and {count - SHOWN} more clips"] if count > SHOWN else []),
        ]
    print_result(result, as_json, *lines)
    raise typer.Exit({"identical": 0, "within_tolerance": 3, "different": 1}[found.verdict])


def _record(key: str, root: Path | None, tracking_uri: str, folder: Path) -> "Record":
    """The record of a key, under a root or else in MLflow."""
    from basilar.pipeline import errors
    from basilar.pipeline.errors import DamagedArtifactError
    from basilar.pipeline.records.record import find_record

    if root is None and not tracking_uri:
        raise UsageError(f"{key}: there is no place to look for it; name --root, or --tracking-uri")
    try:
        if root is not None:
            try:
                return find_record(root, find_key(root, key))
            except (UsageError, DamagedArtifactError):
                if not tracking_uri:
                    raise
        from basilar.pipeline.tracking.fetch import fetch_record  # imports mlflow

        return fetch_record(tracking_uri, key, folder)
    except errors.NoRecordError as error:
        raise UsageError(str(error)) from None


@app.command(rich_help_panel=PROVE)
def parity(
    key: Key,
    root: Root,
    clips: Annotated[int, typer.Option(min=1, help="Clips to compare, spread evenly.")] = 5,
    audio_root: AudioRoot = None,
    as_json: Json = False,
) -> None:
    """Compare all ways from audio to features with the stored values; exit 1 if a bit differs.

    The ways are the pipeline, its stream in random pieces, the bundle in a process without the
    packages that it does not need, its MLflow model, and that model when it is served.

    Example: basilar parity 3f2a --root features
    """
    from basilar.pipeline.audit.parity import parity as compare
    from basilar.pipeline.records.locate import MissingAudioError

    try:
        with tempfile.TemporaryDirectory(prefix="basilar-") as folder:
            record = _record(key, root, "", Path(folder))
            ways = compare(record, n_clips=clips, audio_root=audio_root)
    except (MissingAudioError, ValueError) as error:
        raise UsageError(str(error)) from None
    equal = all(way.identical or way.cannot for way in ways)
    result = {"key": record.key, "verdict": "identical" if equal else "different"}
    lines = [
        f"  {way.name:14} {way.note or ('identical' if way.identical else way.difference)}"
        for way in ways
    ]
    print_result(
        {**result, "ways": [way._asdict() for way in ways]},
        as_json,
        f"{record.key}: largest difference from the stored values, normalized",
        *lines,
    )
    if not equal:
        raise typer.Exit(1)
