"""Build a feature set again from its record, and compare it with the original."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from numpy.typing import NDArray

from basilar.pipeline.build import luigi_engine
from basilar.pipeline.build.build import Build
from basilar.pipeline.errors import BuildFailedError, DamagedArtifactError
from basilar.pipeline.hashing import values_hash
from basilar.pipeline.progress import Progress
from basilar.pipeline.records.compare import absolute_differences, first_stage, span
from basilar.pipeline.records.locate import locate
from basilar.pipeline.records.record import Record, read_attributes
from basilar.pipeline.storage.files import read_table
from basilar.pipeline.training.feature_set import FeatureSet

Verdict = Literal["identical", "within_tolerance", "different"]
TOLERANCE = 1e-4  # of the range of values


class ClipDifference(NamedTuple):
    """A clip that differs from the original, and the first stage whose output differs.

    `largest` is the largest difference of its values as a share of the range of all values, or None
    if they cannot be compared.
    """

    id: str
    stage: str
    largest: float | None
    reason: str


@dataclass(frozen=True)
class Reproduced:
    """The result of building a feature set again.

    `key_now` and `digest_now` are those of the new set; keys differ if the version of a lossy
    decoder or an operation does. `largest` is the largest difference of any value as a share of the
    range, or None if it is not known. `changes` are pairs (then, now) of libraries, decoders and
    machines, which may explain a difference. `found_elsewhere` is the number of clips whose file
    has another name now.
    """

    verdict: Verdict
    key: str
    key_now: str
    digest: str
    digest_now: str
    source: str
    clips: int
    found_elsewhere: int
    tolerance: float
    largest: float | None
    differing: list[ClipDifference]
    changes: dict[str, tuple[Any, Any]]
    seconds: float


def reproduce(
    record: Record,
    *,
    into: Path | None = None,
    audio_root: Path | None = None,
    workers: int = 1,
    shard_seconds: float | None = None,
    tolerance: float = TOLERANCE,
    progress: Progress = lambda items, total: items,
) -> Reproduced:
    """Build a feature set again below `into`, by default a temporary folder, and compare.

    Raises MissingAudioError before anything is built, BuildFailedError if the build fails.
    """
    manifest = locate(record.manifest, audio_root, progress=progress)
    then, now = (m.column("path") for m in (record.manifest, manifest))
    with _folder(into) as root:
        plan = record.plan(manifest, shard_seconds)
        build = Build(
            root=root.absolute(), plan=plan, tracking_uri="", keep=("representation",), max_bad=1.0
        )
        outcome = luigi_engine.run(build, workers=workers, log=False)
        if not outcome.succeeded:
            raise BuildFailedError(
                f"{record.key[:12]}: it could not be built again; mend what failed, and run it "
                f"again{outcome.reasons}",
                outcome.failures,
            )
        attributes = read_attributes(build.store / "zarr.json")
        same = attributes["digest"] == record.digest
        differing = [] if same else list(_differing(record, FeatureSet.open(build.store)))
        largest = 0.0 if same else _largest(differing)
        close = largest is not None and largest <= tolerance
        return Reproduced(
            verdict="identical" if same else "within_tolerance" if close else "different",
            key=record.key,
            key_now=plan.key,
            digest=record.digest,
            digest_now=attributes["digest"],
            source=record.source,
            clips=attributes["clips"],
            found_elsewhere=sum(a != b for a, b in zip(then, now, strict=True)),
            tolerance=tolerance,
            largest=largest,
            differing=differing,
            changes=changes(record.attributes, attributes),
            seconds=outcome.seconds,
        )


def changes(then: dict[str, Any], now: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The versions, decoders and machines that differ between two sets' attributes."""
    flat = [
        {
            **a["versions"],
            **{f"op {stage}": version for stage, version in a["op_versions"].items()},
            **{name: a[name] for name in ("decoders", "machine", "cpu")},
        }
        for a in (then, now)
    ]
    names = dict.fromkeys([*flat[0], *flat[1]])
    pairs = {name: (flat[0].get(name), flat[1].get(name)) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


@contextmanager
def _folder(into: Path | None) -> Iterator[Path]:
    if into is not None:
        yield into
        return
    with tempfile.TemporaryDirectory(prefix="basilar-") as name:
        yield Path(name)


def _differing(record: Record, fs: FeatureSet) -> Iterator[ClipDifference]:
    """Yield the clips of a recorded set that differ in the new set `fs`, in the old order."""
    new: list[dict[str, Any]] = read_table(fs.path / "clips.parquet").to_pylist()
    rows = {clip["id"]: (row, clip) for row, clip in enumerate(new)}
    lost = {entry["id"]: entry for entry in fs.quarantine.to_dict("records")}
    value_range = span(fs) or 1.0
    for old_row, old in enumerate(record.clips):
        if old["id"] not in rows:
            entry = lost[old["id"]]
            yield ClipDifference(
                old["id"], entry["stage"], None, f"cannot be used: {entry['message']}"
            )
            continue
        row, clip = rows.pop(old["id"])
        if clip["values_sha256"] == old["values_sha256"]:
            continue
        stage = str(first_stage(old, clip))
        if clip["n_frames"] != old["n_frames"]:
            said = f"{old['n_frames']} frames then, {clip['n_frames']} now"
            yield ClipDifference(old["id"], stage, None, said)
            continue
        x = _values_then(record, old_row, old["values_sha256"])
        if x is None:
            yield ClipDifference(old["id"], stage, None, "its old values are not available")
            continue
        largest = max(float(d.max()) for d in absolute_differences(x, fs.read(row))) / value_range
        yield ClipDifference(old["id"], stage, largest, f"by {largest:.3g} of the range")
    for clip_id in rows:
        yield ClipDifference(clip_id, "decode", None, "could not be used then")


def _values_then(record: Record, row: int, expected: str) -> NDArray[Any] | None:
    """The old values of a clip, if its store exists and is not damaged."""
    if record.store is None:
        return None
    try:
        x = FeatureSet.open(record.store).read(row)
    except (OSError, ValueError, IndexError, DamagedArtifactError):
        return None
    return x if values_hash(x) == expected else None


def _largest(differing: list[ClipDifference]) -> float | None:
    """The largest difference of all clips, if each clip's is known."""
    each = [clip.largest for clip in differing]
    known = [largest for largest in each if largest is not None]
    return max(known) if len(known) == len(each) and known else None
