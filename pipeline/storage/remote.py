"""Object stores as roots and as places of audio: `s3://`, `gs://`, `az://` and `memory://`.

Everything else knows local paths alone. The object `s3://bucket/a/b` has a *working copy*, the path
`FOLDER/.objects/s3/bucket/a/b`, which names the object without any state: `place` and `name`
translate. FOLDER is a temporary folder of this process and those it forks, or a cache that training
keeps. A file of a working copy is whole or not there; it is fetched when it is asked for. For all
other paths every function here does what the file system does, or nothing.

Stores have no rename and no locks. An artifact exists when its commit object does (`zarr.json`,
`index.json`, or the one file that it is), which is uploaded last, and only if nobody else has
committed it meanwhile; names are known, so that nothing has to be listed to find it. Machines that
upload one artifact at once write the same: all but the commit object, which says how long it took
where, is equal on all of them, and that one is agreed on first (`_agreed`).
"""

import contextlib
import errno
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from basilar.pipeline.storage.object_store import ask
from basilar.pipeline.storage.urls import is_remote, name, object_name

FEATURES = ("features/c/",)  # what is large of a feature set, and of a shard
_FIRST = "files.json"  # of `storage.atomic`
TRANSFERS = 8  # transfers
_STANDSTILL = 60.0  # seconds without an object more, after which an upload is given up for dead
T = TypeVar("T")


class ObjectStatus(NamedTuple):
    """What tells a version of an object from others, named as `os.stat_result` has it."""

    st_size: int
    st_mtime: float
    st_mtime_ns: int
    st_ctime_ns: int
    st_ino: int  # a hash of its version


def exists(path: Path) -> bool:
    """Whether an artifact, a feature set or a file is there, whole."""
    if not is_remote(path):
        return path.exists()
    commit = commit_object(path)
    return commit.is_file() or _is_object(commit)


def is_folder(path: Path) -> bool:
    """Whether a folder is there; in an object store, whether anything is in it."""
    if not is_remote(path):
        return path.is_dir()
    try:
        return bool(ask_store(path, lambda store, url: store.ls(url, detail=False)))
    except (FileNotFoundError, NotADirectoryError):
        return False


def children(folder: Path, pattern: str) -> list[Path]:
    """The paths right below a folder whose names match, sorted; feature sets only if whole."""
    if not is_remote(folder):
        return sorted(folder.glob(pattern))
    try:
        names = ask_store(folder, lambda store, url: store.ls(url, detail=False))
    except FileNotFoundError:
        return []
    found = sorted({folder / str(each).rstrip("/").rpartition("/")[2] for each in names})
    found = [path for path in found if fnmatch(path.name, pattern)]
    return [path for path in found if path.suffix != ".zarr" or exists(path)]


def fetch(path: Path, *, only: str = "", but: tuple[str, ...] = ()) -> Path:
    """Make the working copy of a file, or of an artifact whole, and return it.

    Of an artifact, `only` takes files by a prefix of their names, and `but` leaves files out.
    Raises FileNotFoundError.
    """
    if not is_remote(path):
        return path
    commit = commit_object(path)
    if commit == path:
        return fetch_file(path)
    if commit.name == "index.json":
        members = ["samples.f32"]
    else:
        from basilar.pipeline.storage.checksums import read_checksums

        fetch_file(path / _FIRST)
        members = [*read_checksums(path)]
    wanted = [path / m for m in members if m.startswith(only) and not m.startswith(but)]
    with ThreadPoolExecutor(TRANSFERS) as pool:
        list(pool.map(fetch_file, wanted))
    fetch_file(commit)
    return path


def create(path: Path, data: bytes) -> None:
    """Upload an object. Raises FileExistsError if there is one, OSError where no store can tell."""
    ask_store(path, lambda store, url: store.pipe_file(url, data, mode="create"))


def commit(made: Path, path: Path) -> bool:
    """Upload a file, or a folder, as the object(s) of `path`; whether that is what is there now.

    What a link in the folder leads to is copied inside the store. Files replace what was there;
    of a folder that others commit, too, the first one stays.
    """
    last = commit_object(path)
    if last == path:
        ask_store(path, lambda store, url: store.put_file(str(made), url))
        return True
    if _is_object(last):
        return False
    data = (made / last.name).read_bytes()
    agreed = _agreed(made, path, data)
    if agreed is None:
        return False
    files = [file for file in made.rglob("*") if file.is_symlink() or file.is_file()]
    names = sorted(file.relative_to(made).as_posix() for file in files)

    def upload(member: str) -> None:
        file = made / member
        if file.is_symlink():
            source = type(path)(file.readlink())  # a working copy, as `link` made it
            ask_store(path / member, lambda store, url: store.cp_file(object_name(source), url))
        else:
            ask_store(path / member, lambda store, url: store.put_file(str(file), url))

    with ThreadPoolExecutor(TRANSFERS) as pool:
        list(pool.map(upload, [member for member in names if member not in (last.name, _FIRST)]))
    return _created(last, agreed) and agreed == data


def _agreed(made: Path, path: Path, data: bytes) -> bytes | None:
    """The bytes of a folder's commit object, `data` by itself; None if it was committed meanwhile.

    `files.json` goes first, if there is none, and holds it. From then on, all machines that
    upload these files end with the same object, whichever of them are killed. A machine with other
    files (another layout, a clip that took too long there) waits until the upload has ended or
    stands still, and then takes its place.
    """
    if not (made / _FIRST).exists():  # nothing says what is in it, and it is equal everywhere
        return data
    mine = {**json.loads((made / _FIRST).read_text("utf-8")), "commit": data.decode()}
    first, last = path / _FIRST, commit_object(path)
    seen: dict[str, ObjectStatus] = {}
    since = time.monotonic()
    while not _created(first, json.dumps(mine, indent=1).encode()):
        if _is_object(last):
            return None
        with contextlib.suppress(FileNotFoundError):  # another has just removed it
            theirs = json.loads(ask_store(first, lambda store, url: store.cat_file(url)))
            own = {last.name: mine["files"][last.name]}
            if "commit" in theirs and {**theirs["files"], **own} == mine["files"]:
                return str(theirs["commit"]).encode()
        if (now := list_objects(path)) != seen:
            seen, since = now, time.monotonic()
        elif time.monotonic() - since > _STANDSTILL:
            remove(path)
        else:
            time.sleep(1.0)
    return data


def _created(path: Path, data: bytes) -> bool:
    """Upload an object if there is none, as far as the store can tell; whether there was none."""
    try:
        create(path, data)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno != errno.ENOSYS:  # a store without conditions
            raise
        if _is_object(path):
            return False
        ask_store(path, lambda store, url: store.pipe_file(url, data))
    return True


def drop(path: Path) -> None:
    """Remove a working copy; what is in the store, or on this machine alone, stays."""
    if is_remote(path):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def remove(path: Path) -> None:
    """Remove the objects of an artifact, its commit object first, and the working copy."""
    with contextlib.suppress(FileNotFoundError):
        ask_store(commit_object(path), lambda store, url: store.rm_file(url))
    for member in list_objects(path):
        with contextlib.suppress(FileNotFoundError):
            ask_store(path / member, lambda store, url: store.rm_file(url))
    drop(path)


def list_objects(folder: Path) -> dict[str, ObjectStatus]:
    """Every object below a remote folder by its relative name, from one listing."""
    try:
        found = ask_store(folder, lambda store, url: store.find(url, detail=True, refresh=True))
    except FileNotFoundError:
        return {}
    prefix = object_name(folder) + "/"
    return {
        entry["name"].lstrip("/").removeprefix(prefix): _status(entry)
        for entry in found.values()
        if entry["name"].lstrip("/").startswith(prefix)
    }


def members(folder: Path) -> set[str]:
    """The relative names of all that is below a folder and is no folder."""
    if is_remote(folder):
        return set(list_objects(folder))
    found = (path for path in folder.rglob("*") if not path.is_dir() or path.is_symlink())
    return {path.relative_to(folder).as_posix() for path in found}


def fetch_file(path: Path, *, durable: bool = False) -> Path:
    """Make the working copy of one object, whole or not at all; fsynced if it is durable."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
        try:
            ask_store(path, lambda store, url: store.get_file(url, str(temporary)))
            if durable:
                with temporary.open("rb") as file:
                    os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    return path


def _is_object(path: Path) -> bool:
    """Whether an object is in its store."""
    try:  # unlike to ask for its size, reading a byte of what is not there lists nothing
        ask_store(path, lambda store, url: store.cat_file(url, start=0, end=1))
    except FileNotFoundError:
        return False
    return True


def commit_object(path: Path) -> Path:
    """The object whose presence means that what `path` names is there."""
    above, folder = path.parent.parent.name, path.parent.name
    if path.suffix == ".zarr" or (above, folder) == ("artifacts", "representation"):
        return path / "zarr.json"
    waveforms = above == "artifacts" and folder in ("decode", "resample")
    return path / "index.json" if waveforms else path


def _status(entry: dict[str, Any]) -> ObjectStatus:
    etag = str(entry.get("ETag") or entry.get("etag") or entry.get("md5Hash") or "")
    names = ("LastModified", "updated", "last_modified", "created")
    when = next((entry[name] for name in names if entry.get(name)), None)
    if isinstance(when, str):
        when = datetime.fromisoformat(when)
    known = when.timestamp() if isinstance(when, datetime) else when
    seconds = time.time() if known is None else float(known)  # it may be changing right now
    version = int.from_bytes(uuid.uuid5(uuid.NAMESPACE_URL, f"{etag} {when}").bytes[:7])
    changed = int(seconds * 1e9)
    return ObjectStatus(int(entry["size"]), seconds, changed, changed, version)


def ask_store(path: Path, call: Callable[[Any, str], T]) -> T:
    """What the store answers about the object of a working copy (`storage.object_store`)."""
    return ask(name(path), call)
