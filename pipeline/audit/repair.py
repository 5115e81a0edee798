"""Compute the broken shards of a feature set again, and nothing else.

The set is built in a temporary folder below the root: sound artifacts are linked into it, the
others are computed again. Damaged files are moved aside only when the new set is complete and has
the old digest, and removed only when the new one is in its place.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from basilar.pipeline import errors, storage
from basilar.pipeline.audit.verify import Verified
from basilar.pipeline.build import luigi_engine
from basilar.pipeline.build.build import Build
from basilar.pipeline.compute.waveforms import read_waveforms
from basilar.pipeline.errors import RepairError
from basilar.pipeline.records.locate import locate
from basilar.pipeline.records.record import Record, find_record, read_attributes
from basilar.pipeline.storage import atomic, locks
from basilar.pipeline.store import statistics


@dataclass(frozen=True)
class Repaired:
    """The names of the shards that were computed again, how many were linked, and the digest."""

    computed: list[str]
    linked: int
    digest: str


def repair(
    root: Path, verified: Verified, *, workers: int = 1, audio_root: Path | None = None
) -> Repaired:
    """Repair what `verify` found wrong with a feature set under a root.

    Raises MissingAudioError or DamagedArtifactError if something it needs is missing, RepairError
    if this installation computes other values, or for a root in an object store.
    """
    root = root.absolute()
    if storage.is_remote(root):
        raise RepairError(
            f"{storage.name(root)}: a set in an object store is not repaired in place; delete "
            f"features/{verified.key}.zarr and the damaged artifacts there, and build again"
        )
    record = find_record(root, verified.key)
    scratch = root / f".repair-{record.key}"
    with locks.session(root):
        locks.enter(root)
        with locks.sole(root, scratch.name):
            atomic.remove(scratch)
            try:
                build, computed = _prepare(root, scratch, record, verified, audio_root)
                _build(build, record, workers)
                keys = {shard.keys["representation"] for shard in build.plan.shards}
                statistics.forget(root / "artifacts", keys)
                for name in computed:
                    part = Path("artifacts", "representation", name)
                    _replace(scratch / part, root / part)
                _replace(build.store, root / "features" / build.store.name)
                for file in (scratch / "catalogue").glob("*/*"):
                    file.replace(root / file.relative_to(scratch))
            finally:
                atomic.remove(scratch)
    return Repaired(computed, len(build.plan.shards) - len(computed), record.digest)


def _prepare(
    root: Path, scratch: Path, record: Record, verified: Verified, audio_root: Path | None
) -> tuple[Build, list[str]]:
    """Link sound artifacts into the scratch folder: the build, and the shards it will compute."""
    plan = record.plan()
    if plan.key != record.key:
        raise RepairError(
            f"{record.key[:12]}: it was made with op versions {record.attributes['op_versions']} "
            f"and decoders {record.attributes['decoders']}, and this installation would make "
            "another key; basilar reproduce says whether the values are the same"
        )
    build = Build(root=scratch, plan=plan, tracking_uri="", keep=("representation",), max_bad=1.0)
    broken = _written_wrong(record, verified)
    computed, needed = [], set()
    for shard in plan.shards:
        folder = build.shard_folder(shard)
        if verified.artifacts.get(folder.name) and folder.name not in broken:
            _link(root, folder, scratch)
            continue
        computed.append(folder.name)
        try:
            resampled = build.artifact("resample", shard)
            read_waveforms(root / resampled.relative_to(scratch))
            _link(root, resampled, scratch)
        except (FileNotFoundError, errors.DamagedArtifactError):
            needed |= {source.content for source in shard.sources}
    if needed:
        located = locate(record.manifest, audio_root, needed=needed)
        build = replace(build, plan=record.plan(located))
    return build, computed


def _written_wrong(record: Record, verified: Verified) -> set[str]:
    """Shards whose artifacts have their checksums, but values that do not match their hashes."""
    if not verified.clips:  # the contents of files were not checked
        return set()
    names = [
        name
        for name, n_files in record.attributes.get("shards", {}).items()
        for _ in range(n_files)
    ]
    found = set()
    for problem in verified.in_store():
        part = Path(problem.file).relative_to(verified.path).parts
        if part[:2] == ("features", "c") and part[2].isdecimal() and int(part[2]) < len(names):
            found.add(names[int(part[2])])
        elif part[0] == "moments":
            found |= set(names)
    return found


def _build(build: Build, record: Record, workers: int) -> None:
    """Build the set. Raises RepairError unless it has the old digest."""
    outcome = luigi_engine.run(build, workers=workers, log=False)
    if not outcome.succeeded:
        raise RepairError(
            f"{record.key[:12]}: its broken shards could not be built; fix what failed, and run "
            f"it again{outcome.reasons}"
        )
    digest = read_attributes(build.store / "zarr.json")["digest"]
    if digest != record.digest:
        raise RepairError(
            f"{record.key[:12]}: built again, its digest is {digest}, not {record.digest}, so "
            "this installation computes other values; basilar reproduce says where"
        )


def _link(root: Path, folder: Path, scratch: Path) -> None:
    """Link the files of an artifact of the root into the scratch folder."""
    source = root / folder.relative_to(scratch)
    for file in source.rglob("*"):
        if file.is_file():
            atomic.link(file, folder / file.relative_to(source))


def _replace(new: Path, old: Path) -> None:
    """Put `new` in the place of `old`, which is moved aside until it is there."""
    aside = atomic.aside(old)
    atomic.remove(aside)
    if old.exists():
        old.rename(aside)
    old.parent.mkdir(parents=True, exist_ok=True)
    new.rename(old)
    atomic.fsync_folder(old.parent)
    atomic.remove(aside)
