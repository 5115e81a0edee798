"""Commands that hold Basilar to its promises: verify, reproduce, why, diff."""

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
    complete_recipe,
    find_key,
    find_store,
    place,
)
from basilar.pipeline.console import print_failure, print_result, progress

if TYPE_CHECKING:
    from basilar.pipeline.audit.consistency import Problem
    from basilar.pipeline.records.record import Record

Workers = Annotated[int, typer.Option(min=1, help="Tasks at once.")]
CPUS = os.cpu_count() or 1
SHOWN = 50  # clips that are named at most


@app.command(rich_help_panel=PROVE)
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
        str, typer.Option(envvar="MLFLOW_TRACKING_URI", help="MLflow, to take it from its run.")
    ] = "",
    audio_root: AudioRoot = None,
    into: Annotated[
        Path | None,
        typer.Option(
            parser=place,
            metavar="DIR|URL",
            help="Empty folder to build in and keep; left out: a temporary one.",
        ),
    ] = None,
    workers: Workers = CPUS,
    shard_seconds: Annotated[
        float | None, typer.Option(min=0.001, help="Audio a shard, s; left out: as it was.")
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
            failed = {"key": record.key, "verdict": "different", "error": str(error), **clips}
            print_failure(error)
            print_result(failed, as_json, f"different: {record.key}")
            raise typer.Exit(1) from None
        except KeyboardInterrupt:
            if into is None:
                raise
            raise StoppedError(
                f"what was made is in {into}, which must be empty; delete it, and the same command "
                "starts anew"
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
        lines.append(f"  key     {found.key_now} now: versions in it differ; the digest decides")
    if found.verdict != "identical":
        largest = "not known" if found.largest is None else f"{found.largest:.3g} of the range"
        lines += [
            f"  now     {found.digest_now}",
            *([] if count else ["  every clip is what it was: the recorded digest is not theirs"]),
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
    """What is recorded of a key under a root, or else in MLflow."""
    from basilar.pipeline import errors
    from basilar.pipeline.errors import DamagedArtifactError
    from basilar.pipeline.records.record import find_record

    if root is None and not tracking_uri:
        raise UsageError(
            f"{key}: nothing says where to look for it; name --root, or --tracking-uri"
        )
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
    """Compare all ways from audio to features with what is stored; exit 1 if a bit differs.

    The pipeline, its stream in random pieces, the bundle in a process without what it can do
    without, its MLflow model, and that model served.

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
        f"{record.key}: largest difference from what is stored, normalized",
        *lines,
    )
    if not equal:
        raise typer.Exit(1)


@app.command(rich_help_panel=PROVE)
def why(
    a: Annotated[
        str, typer.Argument(help="Key, recipe (.toml, or a shipped name), or manifest (.parquet).")
    ],
    b: Annotated[
        str | None, typer.Argument(help="Another; left out: the nearest other key of the root.")
    ] = None,
    root: Annotated[
        Path | None,
        typer.Option(parser=place, metavar="DIR|URL", help="Folder that keys were published in."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Every field and clip in which two feature sets, recipes or manifests differ.

    Exit codes: 0 equal, 1 different, 2 wrong use.

    Example: basilar why 3f2a params/log_mel.toml --root features
    """
    from basilar.pipeline.errors import IncomparableError
    from basilar.pipeline.records import explain
    from basilar.pipeline.records.record import find_record

    def is_file(name: str) -> bool:
        return Path(name).suffix in (".toml", ".parquet") or name in complete_recipe(name)

    def side(name: str) -> explain.Side:
        if is_file(name):
            return explain.Side.of_file(place(name))
        if root is None:
            raise UsageError(f"{name}: it is no recipe or .parquet; name --root to look for a key")
        return explain.Side.of_record(find_record(root, find_key(root, name)))

    one = side(a)
    if b is not None:
        try:
            found = explain.why(one, side(b))
        except IncomparableError as error:
            raise UsageError(str(error)) from None
    else:
        if root is None:
            raise UsageError(
                f"{a}: nothing is named to compare it with; name it, or --root to take the nearest "
                "key"
            )
        near = explain.nearest(root, one, but="" if is_file(a) else find_key(root, a))
        if near is None:
            raise UsageError(
                f"{root}: there is no other key to compare {a} with; name a recipe or a manifest"
            )
        found = near[1]
    print_result(found.as_dict(), as_json, *found.lines())
    if found.count:
        raise typer.Exit(1)


@app.command(rich_help_panel=PROVE)
def diff(
    a: Key,
    b: Key,
    root: Root,
    as_json: Json = False,
) -> None:
    """How far apart the values of two feature sets of the same clips are, by bin.

    Exit codes: 0 equal, 1 different, 2 wrong use, as for sets of other bins or frames.

    Example: basilar diff 3f2a 9b01 --root features
    """
    from basilar.pipeline.errors import IncomparableError
    from basilar.pipeline.records.compare import compare
    from basilar.pipeline.training.feature_set import FeatureSet

    one, two = (FeatureSet.open(find_store(root, key)) for key in (a, b))
    try:
        found = compare(one, two, progress("comparing"))
    except IncomparableError as error:
        raise UsageError(str(error)) from None
    result = {
        **asdict(found),
        "a": one.key,
        "b": two.key,
        "equal": found.equal,
        "mean": found.mean.tolist(),
        "largest": found.largest.tolist(),
    }
    lines = [
        f"{found.clips} clips, {found.frames} frames; clips of one set alone: {found.only[0]} and "
        f"{found.only[1]}",
        f"largest difference {found.largest.max():.6g}, in {found.worst}; the values of "
        f"{one.key[:12]} span {found.span:.6g}",
        "bin           mean        largest",
        *(
            f"{i:3} {mean:14.6g} {largest:14.6g}"
            for i, (mean, largest) in enumerate(zip(found.mean, found.largest, strict=True))
        ),
    ]
    print_result(result, as_json, *(["equal"] if found.equal else lines))
    if not found.equal:
        raise typer.Exit(1)
