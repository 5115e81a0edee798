"""Check that a published feature set is what was published, to the bit.

First, every file of the store, and of the shard artifacts that it shares hard links with, is
compared with `files.json`. If all match, their contents are checked (`audit.consistency`). On
request, some clips are computed again from their audio.
"""

import stat
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from basilar.pipeline import storage
from basilar.pipeline.audit import consistency
from basilar.pipeline.audit.consistency import Problem
from basilar.pipeline.compute import stages
from basilar.pipeline.compute.transform import Transform
from basilar.pipeline.errors import DamagedArtifactError, NoRecordError
from basilar.pipeline.hashing import hash_of
from basilar.pipeline.progress import Progress
from basilar.pipeline.records.compare import first_stage
from basilar.pipeline.records.locate import MissingAudioError, locate
from basilar.pipeline.records.record import (
    Record,
    find_record,
    inconsistencies,
    read_attributes_and_recipe,
)
from basilar.pipeline.storage.checksums import CHECKSUMS, Checksum, checksum, read_checksums
from basilar.pipeline.training.feature_set import FeatureSet


@dataclass
class Verified:
    """What was checked and what is wrong; `artifacts` tells which existing shards are sound."""

    key: str
    path: Path
    clips: int = 0
    files: int = 0
    bytes: int = 0
    artifacts: dict[str, bool] = field(default_factory=dict)
    sampled: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def sound(self) -> bool:
        """Whether there are no problems."""
        return not self.problems

    def in_store(self) -> list[Problem]:
        """The problems of the store itself."""
        return [p for p in self.problems if Path(p.file).is_relative_to(self.path)]


def verify(
    root: Path,
    key: str,
    *,
    sample: int = 0,
    audio_root: Path | None = None,
    workers: int = 1,
    progress: Progress = lambda items, total: items,
) -> Verified:
    """Check a published feature set, and compute `sample` of its clips again from their audio."""
    started = time.perf_counter()
    out = Verified(key, root / "features" / f"{key}.zarr")
    with ThreadPoolExecutor(workers) as pool:
        seen: dict[tuple[int, int], Checksum] = {}
        _check_files(out, out.path, seen, pool, progress)
        try:
            record = find_record(root, key)
        except (DamagedArtifactError, NoRecordError) as error:
            out.problems.append(Problem(str(root / "catalogue"), str(error)))
        else:
            for name in record.attributes.get("shards", {}):
                folder = root / "artifacts" / "representation" / name
                if storage.exists(folder):
                    before = len(out.problems)
                    _check_files(out, folder, seen, pool, progress)
                    out.artifacts[name] = len(out.problems) == before
                    storage.drop(folder)
            if not out.in_store():
                _check_content(root, record, out, pool, progress)
            if sample:
                out.problems += _check_sample(record, sample, audio_root, out)
    out.seconds = time.perf_counter() - started
    return out


def _check_files(
    out: Verified,
    folder: Path,
    seen: dict[tuple[int, int], Checksum],
    pool: ThreadPoolExecutor,
    progress: Progress,
) -> None:
    """Compare the files below a folder with their checksums.

    `seen` holds the checksums so far, by device and inode: a hard-linked file is read once.
    """

    def look(path: Path) -> Checksum:
        if storage.is_remote(path):
            found = checksum(storage.fetch(path))
            out.bytes += found[0]
            if path.is_relative_to(folder / "features"):  # large files
                storage.drop(path)
            return found
        status = path.stat()
        identity = status.st_dev, status.st_ino
        if identity not in seen:
            seen[identity] = checksum(path)
            out.bytes += status.st_size
        return seen[identity]

    def judge(name: str) -> Problem | None:
        out.files += 1
        if not storage.is_remote(folder) and not stat.S_ISREG((folder / name).lstat().st_mode):
            return Problem(str(folder / name), "is a link or a device, not a file")
        try:
            size, crc = look(folder / name)
        except OSError as error:
            return Problem(str(folder / name), f"cannot be read: {error}")
        if (size, crc) == expected[name]:
            return None
        wrote = f"{expected[name][0]} bytes with CRC-32 {expected[name][1]:08x} were written"
        return Problem(str(folder / name), f"{size} bytes with CRC-32 {crc:08x}; {wrote}")

    try:
        expected = read_checksums(folder)
    except FileNotFoundError:
        out.problems.append(Problem(str(folder / CHECKSUMS), "is missing"))
        return
    except (DamagedArtifactError, OSError) as error:
        out.problems.append(Problem(str(folder / CHECKSUMS), str(error)))
        return
    there = storage.members(folder) - {CHECKSUMS}
    out.problems += [
        Problem(str(folder / name), "is missing" if name in expected else "does not belong here")
        for name in sorted(there ^ expected.keys())
    ]
    names = sorted(there & expected.keys())
    found = progress(pool.map(judge, names), len(names))
    out.problems += [problem for problem in found if problem is not None]


def _check_content(
    root: Path, record: Record, out: Verified, pool: ThreadPoolExecutor, progress: Progress
) -> None:
    """Check the contents of a store's files, whose checksums all match."""
    if record.source != "store":  # the store's own record is not consistent
        file = out.path / "zarr.json"
        try:
            own = Record("store", *read_attributes_and_recipe(file), record.manifest, Path())
            problems = list(inconsistencies(own, out.key))
        except DamagedArtifactError as error:
            problems = [str(error)]
        out.problems += [Problem(str(file), problem) for problem in problems]
        return

    def each(look: Any, batches: list[Any]) -> Iterable[Any]:
        return progress(pool.map(look, batches), len(batches))

    fs = FeatureSet.open(out.path)
    out.clips = len(fs)
    out.problems += consistency.check(root, record, fs, each)


def _check_sample(
    record: Record, sample: int, audio_root: Path | None, out: Verified
) -> list[Problem]:
    """Compute some clips from their audio, the same ones each time, and compare each stage."""
    by_content: dict[str, dict[str, Any]] = {}
    for clip in record.clips:
        by_content.setdefault(clip["content"], clip)
    chosen = sorted(by_content, key=lambda c: hash_of("sample", key=record.key, content=c))
    chosen = chosen[:sample]
    then, now = record.attributes["op_versions"], record.plan().op_versions
    if then != now:
        said = (
            f"was made with the op versions {then}, and here they are {now}: its clips cannot be "
            "compared with their audio; basilar reproduce says how close they are"
        )
        return [Problem(str(out.path), said)]
    try:
        manifest = locate(record.manifest, audio_root, needed=set(chosen))
    except MissingAudioError as error:
        return [Problem(str(audio_root or record.manifest.root), str(error))]
    transform = Transform(record.recipe)
    sources = {s.content: s for shard in record.plan(manifest).shards for s in shard.sources}
    problems = []
    for content in chosen:
        clip = by_content[content]
        out.sampled.append(clip["id"])
        decoded = stages.decode([sources[content]], transform, root=manifest.root)
        made = stages.represent(stages.resample(decoded, transform), transform)
        file = storage.name(manifest.root / sources[content].path)
        if made.quarantined:
            lost = made.quarantined[0]
            problems.append(Problem(file, f"{clip['id']}: {lost.stage}: {lost.message}"))
            continue
        if stage := first_stage(clip, made.clips[0]._asdict()):
            said = f"{clip['id']}: computed from its audio, it differs from the stage {stage} on"
            problems.append(Problem(file, said))
    return problems
