"""Artifacts: what tasks make, where it lies under a root, and the one way to commit it.

    ROOT/catalogue/recipes/HASH.json      every recipe that was ever built
    ROOT/catalogue/manifests/HASH.parquet every manifest
    ROOT/catalogue/features/KEY.*         what was published: attributes (JSON), clips (Parquet)
    ROOT/catalogue/canaries/HASH.json     what each recipe made of the canary at its first build
    ROOT/artifacts/STAGE/KEY              what one stage made of one shard
    ROOT/artifacts/lost/STAGE-KEY         that it lacks clips which crashed or timed out
    ROOT/features/KEY.zarr                published feature sets
    ROOT/runs/KEY-TRACKER.json            the MLflow run of a feature set
    ROOT/results/KEY-HASH.json            what a training on a feature set came to
    ROOT/mlflow/                          the embedded tracking store
    ROOT/running/ID.json                  builds at work (`pipeline.build.registry`)
    ROOT/latest/NAME.json                 the newest feature set of a recipe (`workflows.nightly`)
    ROOT/.lock                            who is at work (`pipeline.storage.locks`)

Existence means complete: everything is written to a temporary sibling and renamed, so a killed
process leaves nothing but temporaries, which the next build sweeps. Two writers of one artifact
write equal values; the later one discards its copy.

After a power cut, whatever was not fsynced may be there, or not, or in part, in any order. So what
is durable is fsynced first, files and the folders that name them, linked ones too; then comes the
rename, then the fsync of the parent, and of the parents it has made. A durable folder is removed by
a rename and an fsync of the parent, before any of its files goes.
"""

import errno
import json
import os
import re
import shutil
import uuid
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline import storage
from pipeline.errors import DamagedArtifactError

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

CHECKSUMS = "files.json"
Checksum = tuple[int, int]  # bytes, CRC-32
_READ_AT_ONCE = 1 << 20  # bytes
_BUILD_AGAIN = "build again, which makes it anew"
_ASIDE = ".damaged"
_TEMPORARY = re.compile(r"\.[0-9a-f]{32}\.tmp(\.\w+)?")


class Quarantined(NamedTuple):
    """A content that could not be used: at which stage, why in a word of `Reason`, and in words."""

    content: str
    stage: str
    reason: str
    message: str


@contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """A temporary path beside `path` that becomes `path` when the block ends without an error.

    The block makes a file, replacing what was there, or a folder, which is discarded if `path`
    exists by then. An OSError of the block or of the file system names `path`.
    """
    remote = storage.is_remote(path)
    _make_folder(path.parent)
    temporary = path.with_name(f".{uuid.uuid4().hex}.tmp{path.suffix}")
    taken = True
    try:
        yield temporary
        if durable and remote:
            taken = storage.commit(temporary, path)  # else the working copy is fetched when needed
        elif durable:
            _fsync(temporary)
        if taken and not (temporary.is_dir() and path.exists()):
            try:
                temporary.replace(path)
            except OSError:
                if not path.is_dir():  # another writer committed the same folder first
                    raise
        if durable and not remote:
            fsync_folder(path.parent)
    except OSError as error:
        # NumPy tells of a full disk without its number, and most writers without the file's name.
        number = error.errno or (errno.ENOSPC if str(error).endswith(" written") else 0)
        if number in (errno.ENOSPC, errno.EDQUOT) or (number and not error.filename):
            raise OSError(number, os.strerror(number), str(path)) from error
        raise
    finally:
        remove(temporary, durable=False)


def remove(path: Path, *, durable: bool = True) -> None:
    """Remove a file or a folder, if it is there; a folder disappears at once.

    Without `durable` a power cut may bring back parts of a folder, which must be known by their
    name or checksum, and what lies in an object store stays there.
    """
    if durable and storage.is_remote(path):
        storage.remove(path)
    if path.is_dir():
        grave = path.with_name(f".{uuid.uuid4().hex}.tmp")
        try:
            path.rename(grave)
        except FileNotFoundError:
            return
        if durable:
            fsync_folder(path.parent)
        shutil.rmtree(grave, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def leftovers(root: Path) -> Iterator[Path]:
    """What killed processes left under a root: temporaries, and what repairs have replaced."""
    yield from root.glob(".repair-*")
    for path in _hidden(root):
        if _TEMPORARY.fullmatch(path.name) or (path.name.endswith(_ASIDE) and _of(path).exists()):
            yield path


def sweep(root: Path) -> None:
    """Remove what killed processes left under a root. Nothing else may be at work there."""
    put_back(root)
    for path in list(leftovers(root)):
        remove(path, durable=False)


def put_back(root: Path) -> None:
    """Put what repairs moved aside and could not replace where it was."""
    for path in list(_hidden(root)):
        if path.name.endswith(_ASIDE) and not _of(path).exists():
            path.rename(_of(path))


def aside(path: Path) -> Path:
    """Where a repair moves a damaged folder until another is in its place."""
    return path.with_name(f".{path.name}{_ASIDE}")


def _of(path: Path) -> Path:
    """Where what was moved aside comes from."""
    return path.with_name(path.name[1:].removesuffix(_ASIDE))


def _hidden(root: Path) -> Iterator[Path]:
    folders = ("artifacts/*", "catalogue/*", "features", "runs", "results", "running", "latest")
    for folder in folders:
        yield from root.glob(f"{folder}/.*")


def write_json(path: Path, value: Any, *, durable: bool = True, private: bool = False) -> None:
    """Write a JSON file, which nobody else can read if it is private, replacing what was there."""
    with replacing(path, durable=durable) as temporary:
        temporary.touch(0o600 if private else 0o666)
        temporary.write_text(json.dumps(value, indent=1), encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read a JSON file. Raises DamagedArtifactError if it is none."""
    try:
        return json.loads(storage.fetch(path).read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise DamagedArtifactError(
            f"{path}: damaged ({error}); restore it, or delete it and build again"
        ) from None


def checked_attributes(attributes: Any, file: Path) -> dict[str, Any]:
    """The attributes of a feature set as `store.publish` writes them, which may be anyone's.

    What they name becomes part of paths: hashes are hashes. Raises DamagedArtifactError.
    """
    found: dict[str, Any] = attributes if isinstance(attributes, dict) else {}
    for name, right in _ATTRIBUTES.items():
        if name not in found and name in _OPTIONAL:
            continue
        if name not in found or not right(found[name]):
            said = f"{name} is {repr(found[name])[:60]}" if name in found else f"it has no {name!r}"
            raise DamagedArtifactError(
                f"{file}: it cannot be read ({said}); restore it, or build again"
            )
    return found


def _is_hash(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{32}", value) is not None


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**48


def _is_table(key: Callable[[Any], bool], of: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, dict) and all(key(k) and of(v) for k, v in value.items())


def _is_list_of_texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_seconds(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < 1e12


def _is_recipe(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(value.get(section), dict) and _is_text(value[section].get(name))
        for section, name in (("representation", "kind"), ("normalization", "kind"))
    )


def _is_shard(value: Any) -> bool:
    return _is_text(value) and re.fullmatch(r"[0-9a-z][0-9a-z.]*", value) is not None


_OPTIONAL = {"canary", "hashes", "seconds", "shards", "machine", "cpu"}
_ATTRIBUTES: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("key", "digest", "recipe_hash", "manifest_hash"), _is_hash),
    **dict.fromkeys(("clips", "frames", "quarantined"), _is_count),
    "recipe": _is_recipe,
    "portable": lambda value: isinstance(value, bool),
    "versions": _is_table(_is_text, _is_text),
    "op_versions": lambda value: isinstance(value, dict),
    "decoders": _is_list_of_texts,
    "shard_seconds": lambda value: _is_seconds(value) and value > 0,
    "canary": _is_list_of_texts,
    "hashes": _is_table(_is_text, _is_hash),
    "seconds": _is_table(_is_text, _is_seconds),
    "shards": _is_table(_is_shard, _is_count),
    **dict.fromkeys(("machine", "cpu"), _is_text),
}


def open_table(path: Path) -> "pq.ParquetFile":
    """Open a Parquet file, whose pages are checked when they are read."""
    import pyarrow.parquet as pq

    return pq.ParquetFile(storage.fetch(path), page_checksum_verification=True)


def read_table(path: Path) -> "pa.Table":
    """Read a Parquet file (`pyarrow.parquet.read_table` would import pandas to do it)."""
    with open_table(path) as file:
        return file.read(use_threads=False)


def write_checksums(folder: Path, *, known: dict[str, Checksum] | None = None) -> None:
    """Write `files.json`: size in bytes and CRC-32 of every file below `folder`."""
    files = dict(known or {})
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        if name not in files:
            files[name] = checksum(path)
    value = {"files": files, "crc32": _crc_of(files)}
    (folder / CHECKSUMS).write_text(json.dumps(value, indent=1), "utf-8")


def read_checksums(folder: Path) -> dict[str, Checksum]:
    """The sizes and checksums in `files.json`. Raises DamagedArtifactError if they are damaged."""
    path = folder / CHECKSUMS
    try:
        found = read_json(path)
        files = {name: (size, crc) for name, (size, crc) in found["files"].items()}
        if found["crc32"] == _crc_of(files):
            return files
    except (ValueError, TypeError, KeyError, AttributeError, DamagedArtifactError):
        pass
    raise DamagedArtifactError(f"{path}: damaged; basilar verify --repair makes the store anew")


def checksum(path: Path) -> Checksum:
    """The size of a file in bytes and its CRC-32."""
    size = crc = 0
    with path.open("rb") as file:
        while block := file.read(_READ_AT_ONCE):
            size, crc = size + len(block), zlib.crc32(block, crc)
    return size, crc


def check_files(folder: Path, *, but: tuple[str, ...] = ()) -> None:
    """Compare the files of an artifact with its `files.json`, all but those whose names begin so.

    Raises DamagedArtifactError if one is not there, or is not what was written.
    """
    try:
        for name, expected in read_checksums(folder).items():
            if not name.startswith(but) and checksum(folder / name) != expected:
                raise DamagedArtifactError(f"{folder / name}: damaged; {_BUILD_AGAIN}")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise DamagedArtifactError(f"{error.filename}: it is missing; {_BUILD_AGAIN}") from None


def link(source: Path, target: Path) -> None:
    """Hard-link a file, or copy it where the file system has no links between the two.

    A symbolic link to what lies in an object store stands for it there (`storage.commit`).
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    if storage.is_remote(source) and not source.exists():
        target.symlink_to(source)
        return
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _crc_of(files: dict[str, Checksum]) -> int:
    return zlib.crc32(json.dumps(files, sort_keys=True).encode())


def _make_folder(folder: Path) -> None:
    """Make a folder and those it lies in, and put their entries on the disk."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        fsync_folder(folder.parent)


def _fsync(path: Path) -> None:
    """Put a file, or all files and folders below a folder, on the disk."""
    if not path.is_dir():
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        return
    for entry in path.iterdir():
        _fsync(entry)
    fsync_folder(path)


def fsync_folder(folder: Path) -> None:
    """Put what was renamed in a folder on the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(folder)) from error
    finally:
        os.close(descriptor)
