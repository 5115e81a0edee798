"""Find and remove artifacts under a root that no published feature set needs.

Needed are the published sets, and every artifact of their plans, which are made again from recipe
and manifest. The catalogue is kept whole, since a set can be reproduced from it alone; runs,
results and MLflow are never touched. Other artifacts come from builds that did not finish, or from
sets that were deleted. Only paths with names that Basilar gives are ever removed.
"""

import contextlib
import os
import re
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from basilar.pipeline import storage
from basilar.pipeline.recipes.hashes import STAGES
from basilar.pipeline.records.record import Record, find_record
from basilar.pipeline.storage import atomic, locks
from basilar.pipeline.store import statistics

SETTLED = 24 * 3600.0  # seconds: an older upload belongs to no running build
_HASH = "[0-9a-f]{32}"
_NAMES = {  # of artifacts in artifacts/STAGE
    "decode": _HASH,
    "resample": _HASH,
    "representation": rf"{_HASH}\.[0-9a-f]{{8}}",
    "lost": rf"(decode|resample|representation)-{_HASH}(\.[0-9a-f]{{8}})?",
    "statistics": rf"{_HASH}\.npz",
    "histogram": rf"{_HASH}(-{_HASH}\.npz|\.npy)",
}


@dataclass(frozen=True)
class Garbage:
    """A path that can be removed: its stage, the reason, and the bytes on disk that it frees."""

    path: Path
    stage: str
    reason: str
    bytes: int


@dataclass
class Findings:
    """The contents of a root: the number of sets, its garbage, and paths Basilar did not make.

    `notes` are about sets whose artifacts are not all known, and about recent uploads.
    """

    sets: int
    garbage: list[Garbage] = field(default_factory=list)
    unknown: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        """The bytes that all garbage frees together."""
        return sum(item.bytes for item in self.garbage)


def find(root: Path) -> Findings:
    """Find the garbage of a root.

    Raises DamagedArtifactError if the record of a published set is damaged, so that its needs are
    unknown.
    """
    stores = storage.children(root / "features", "[!.]*.zarr")
    found = Findings(len(stores))
    needed: set[Path] = set()
    for store in stores:
        record = find_record(root, store.stem)
        for part in _needed(record):
            needed |= {root / "artifacts" / part, root / "artifacts/lost" / part.replace("/", "-")}
        if record.plan().key != record.key:
            found.notes.append(
                f"{record.key[:12]} was made with other decoders or op versions: of its artifacts, "
                "only the features count as needed"
            )
    if storage.is_remote(root):
        _find_remote(root, needed, found)
        return found
    left = [(path, "temporary", "left by a killed process") for path in atomic.leftovers(root)]
    for path in sorted((root / "artifacts").glob("*/[!.]*")):
        stage = path.parent.name
        if stage not in _NAMES or not re.fullmatch(_NAMES[stage], path.name):
            found.unknown.append(path)
        elif path not in needed:
            left.append((path, stage, "of no published feature set"))
    sizes = _freed([path for path, _, _ in left])
    found.garbage = [Garbage(*item, size) for item, size in zip(left, sizes, strict=True)]
    return found


def _find_remote(root: Path, needed: set[Path], found: Findings) -> None:
    """As `find`, for an object store, with one listing.

    An object store has no locks that show running builds: objects younger than a day may be theirs.
    """
    sizes: Counter[Path] = Counter()
    newest: dict[Path, float] = {}
    for name, status in storage.list_objects(root).items():
        parts = name.split("/")
        depth = {"artifacts": 3, "features": 2}.get(parts[0], len(parts) + 1)
        if len(parts) >= depth:
            path = root.joinpath(*parts[:depth])
            sizes[path] += status.st_size
            newest[path] = max(newest.get(path, 0.0), status.st_mtime)
    young = 0
    for path in sorted(sizes):
        stage, reason = path.parent.name, "of no published feature set"
        if stage == "features":
            if path.suffix != ".zarr" or storage.exists(path):
                continue
            stage, reason = "temporary", "left by a killed process"
        elif stage not in _NAMES or not re.fullmatch(_NAMES[stage], path.name):
            found.unknown.append(path)
            continue
        elif path in needed:
            continue
        if time.time() - newest[path] < SETTLED:
            young += 1
        else:
            found.garbage.append(Garbage(path, stage, reason, sizes[path]))
    if young:
        found.notes.append(
            f"{young} more that no published set needs are younger than a day, and kept: a build "
            "may be using them"
        )


def collect(root: Path) -> Findings:
    """Remove the garbage of a root, and return what was removed.

    New builds wait until it is done. Raises BusyError, before anything is removed, if another
    process is working in the root.
    """
    with locks.alone(root):
        atomic.put_back(root)
        found = find(root)
        for item in found.garbage:
            atomic.remove(item.path)
        return found


def _needed(record: Record) -> Iterator[str]:
    """Yield the artifacts of a published set as STAGE/NAME."""
    for name in record.attributes.get("shards", {}):
        yield f"representation/{name}"
    plan = record.plan()
    yield f"statistics/{plan.fit_key}.npz"
    usable = {clip["content"] for clip in record.clips}
    for shard in plan.shards:
        for stage in STAGES[:2]:
            yield f"{stage}/{shard.keys[stage]}"
        times = Counter(plan.manifest.contents_of(shard.rows[plan.is_fitted[shard.rows]]))
        contents = [source.content for source in shard.sources if source.content in usable]
        weights = [times[content] for content in contents]
        yield f"histogram/{statistics.histogram_name(shard.keys['representation'], weights)}"


def _freed(paths: list[Path]) -> list[int]:
    """The bytes that each path frees if all are removed; files with other links free none."""
    files = [list(_files(path)) for path in paths]
    links = Counter((file.st_dev, file.st_ino) for inside in files for file in inside)
    freed = []
    for inside in files:
        size = 0
        for file in inside:
            if links.pop((file.st_dev, file.st_ino), 0) == file.st_nlink:
                size += 512 * file.st_blocks
        freed.append(size)
    return freed


def _files(path: Path) -> Iterator[os.stat_result]:
    """Yield the status of files in a path; running builds may remove some meanwhile."""
    with contextlib.suppress(FileNotFoundError):
        for entry in (path, *path.rglob("*")):
            if not entry.is_dir():
                yield entry.lstat()
