"""What under a root no published feature set needs, found from the catalogue, and its removal.

Reachable are the published sets that are there, and every artifact that their plans name, planned
anew from recipe and manifest. The catalogue is kept whole, since a set can be reproduced from it
alone; runs, results and MLflow are never looked at. The rest was made by builds that did not come
to their end, or for sets that were deleted. Only names that Basilar gives are ever removed.
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

SETTLED = 24 * 3600.0  # seconds, after which an upload is of no build at work
_HASH = "[0-9a-f]{32}"
_NAMES = {  # of what lies in artifacts/STAGE
    "decode": _HASH,
    "resample": _HASH,
    "representation": rf"{_HASH}\.[0-9a-f]{{8}}",
    "lost": rf"(decode|resample|representation)-{_HASH}(\.[0-9a-f]{{8}})?",
    "statistics": rf"{_HASH}\.npz",
    "histogram": rf"{_HASH}(-{_HASH}\.npz|\.npy)",
}


@dataclass(frozen=True)
class Garbage:
    """Something that can go: what made it, why it can, and the bytes on the disk that it frees."""

    path: Path
    stage: str
    reason: str
    bytes: int


@dataclass
class Findings:
    """What a root holds: the number of sets, what can go, and what Basilar did not make.

    `notes` are about sets whose artifacts are not all known.
    """

    sets: int
    garbage: list[Garbage] = field(default_factory=list)
    unknown: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        """How much all that can go frees together."""
        return sum(item.bytes for item in self.garbage)


def find(root: Path) -> Findings:
    """What can go from a root, as it is now.

    Raises DamagedArtifactError if it cannot be known what a published set needs.
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
                f"{record.key[:12]} was made with other decoders or versions of operations: of its "
                "artifacts, only the features count as needed"
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
    """As `find`, in an object store, from one listing.

    Nobody knows there whether a build is at work: what is younger than a day may be of one.
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
            f"{young} more that no published set needs are younger than a day, and stay: a build "
            "may be at work on them"
        )


def collect(root: Path) -> Findings:
    """Remove what can go from a root, and say what went.

    New builds wait until it is done. Raises BusyError, before anything is removed, while another
    process is at work in the root.
    """
    with locks.alone(root):
        atomic.put_back(root)
        found = find(root)
        for item in found.garbage:
            atomic.remove(item.path)
        return found


def _needed(record: Record) -> Iterator[str]:
    """The artifacts of a published set, as STAGE/NAME."""
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
    """The bytes that each path frees, if all go: a file that has a link elsewhere frees none."""
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
    """What a path holds, as far as a build at work leaves it there."""
    with contextlib.suppress(FileNotFoundError):
        for entry in (path, *path.rglob("*")):
            if not entry.is_dir():
                yield entry.lstat()
