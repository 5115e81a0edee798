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

import atexit
import contextlib
import errno
import json
import os
import re
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pipeline.errors import StorageError
from pipeline.storage.object_store import EXTRAS, ask

FEATURES = ("features/c/",)  # what is large of a feature set, and of a shard
_MARK = ".objects"
_FIRST = "files.json"  # of `pipeline.storage.atomic`
_AT_ONCE = 8  # transfers
_STANDSTILL = 60.0  # seconds without an object more, after which an upload is given up for dead
_BATCH = 16  # files of audio that are fetched while as many are decoded
T = TypeVar("T")


class Status(NamedTuple):
    """What tells a version of an object from others, named as `os.stat_result` has it."""

    st_size: int
    st_mtime: float
    st_mtime_ns: int
    st_ctime_ns: int
    st_ino: int  # a hash of its version


def place(where: str | os.PathLike[str]) -> Path:
    """A local path as it is, or the working copy of a URL. Raises StorageError for others.

    >>> place("features")
    PosixPath('features')
    >>> place("memory://bucket/features").parts[-4:]
    ('.objects', 'memory', 'bucket', 'features')
    >>> name(place("memory://bucket/features/") / "KEY.zarr")
    'memory://bucket/features/KEY.zarr'
    """
    return _placed(where, None)


def _placed(where: str | os.PathLike[str], folder: Path | None) -> Path:
    text = os.fspath(where)
    url = re.fullmatch(r"([a-z][a-z0-9+]+):/+(.*)", text)  # pathlib makes one slash of two
    if url is None:
        return Path(where)
    protocol, rest = url.groups()
    if protocol not in EXTRAS:
        known = ", ".join(f"{name}://" for name in EXTRAS)
        raise StorageError(f"{text}: {protocol}:// is not known; allowed are local paths, {known}")
    parts = [part for part in rest.split("/") if part]
    if not parts or ".." in parts:
        raise StorageError(
            f"{text}: no bucket and path; write {protocol}://BUCKET/PATH, without .."
        )
    return (folder or _scratch()).joinpath(_MARK, protocol, *parts)


def name(path: Path) -> str:
    """The URL of a working copy, or a local path as it is."""
    if not is_remote(path):
        return str(path)
    _, _, inside = str(path).rpartition(f"/{_MARK}/")
    protocol, _, rest = inside.partition("/")
    return f"{protocol}://{rest}"


def shown(text: str) -> str:
    """A text for people and records: the URLs of working copies for their paths, and no passwords.

    >>> shown("http://me:secret@host:5000/mlflow: no answer")
    'http://host:5000/mlflow: no answer'
    """
    for folder in _made.values():
        inside = rf"{re.escape(str(folder))}(?:/[^/\s]+/\d+)?/{re.escape(_MARK)}/(\w+)/"
        text = re.sub(inside, r"\1://", text)
    return re.sub(r"""://[^/?#\s"']*@""", "://", text)


def is_remote(path: Path) -> bool:
    """Whether a path is a working copy of what lies in an object store."""
    return f"/{_MARK}/" in str(path)


def exists(path: Path) -> bool:
    """Whether an artifact, a feature set or a file is there, whole."""
    if not is_remote(path):
        return path.exists()
    commit = _commit_object(path)
    return commit.is_file() or _is_object(commit)


def is_folder(path: Path) -> bool:
    """Whether a folder is there; in an object store, whether anything is in it."""
    if not is_remote(path):
        return path.is_dir()
    try:
        return bool(_ask(path, lambda store, url: store.ls(url, detail=False)))
    except (FileNotFoundError, NotADirectoryError):
        return False


def children(folder: Path, pattern: str) -> list[Path]:
    """The paths right below a folder whose names match, sorted; feature sets only if whole."""
    if not is_remote(folder):
        return sorted(folder.glob(pattern))
    try:
        names = _ask(folder, lambda store, url: store.ls(url, detail=False))
    except FileNotFoundError:
        return []
    found = sorted({folder / str(each).rstrip("/").rpartition("/")[2] for each in names})
    found = [path for path in found if fnmatch(path.name, pattern)]
    return [path for path in found if path.suffix != ".zarr" or exists(path)]


def fetch(path: Path, *, only: str = "", but: tuple[str, ...] = ()) -> Path:
    """Make the working copy of a file, or of an artifact whole, and return it.

    Of an artifact, `only` takes the files whose names begin so, and `but` leaves out such. Raises
    FileNotFoundError.
    """
    if not is_remote(path):
        return path
    commit = _commit_object(path)
    if commit == path:
        return _fetch_file(path)
    if commit.name == "index.json":
        members = ["samples.f32"]
    else:
        from pipeline.storage.checksums import read_checksums

        _fetch_file(path / _FIRST)
        members = [*read_checksums(path)]
    wanted = [path / m for m in members if m.startswith(only) and not m.startswith(but)]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(_fetch_file, wanted))
    _fetch_file(commit)
    return path


def create(path: Path, data: bytes) -> None:
    """Upload an object. Raises FileExistsError if there is one, OSError where no store can tell."""
    _ask(path, lambda store, url: store.pipe_file(url, data, mode="create"))


def commit(made: Path, path: Path) -> bool:
    """Upload a file, or a folder, as the object(s) of `path`; whether that is what is there now.

    What a link in the folder leads to is copied inside the store. Files replace what was there;
    of a folder that others commit, too, the first one stays.
    """
    last = _commit_object(path)
    if last == path:
        _ask(path, lambda store, url: store.put_file(str(made), url))
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
            source = file.readlink()
            _ask(path / member, lambda store, url: store.cp_file(_object(source), url))
        else:
            _ask(path / member, lambda store, url: store.put_file(str(file), url))

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(upload, [member for member in names if member not in (last.name, _FIRST)]))
    return _created(last, agreed) and agreed == data


def _agreed(made: Path, path: Path, data: bytes) -> bytes | None:
    """What goes last of a folder where `data` would; None if it was committed meanwhile.

    `files.json` goes first, if there is none, and holds it. From then on, all who upload these very
    files end with the same object, whichever of them are killed. Who has other files (another
    layout, a clip that took too long here alone) waits until the upload has ended or stands still,
    and then takes its place.
    """
    if not (made / _FIRST).exists():  # nothing says what is in it, and it is equal everywhere
        return data
    mine = {**json.loads((made / _FIRST).read_text("utf-8")), "commit": data.decode()}
    first, last = path / _FIRST, _commit_object(path)
    seen: dict[str, Status] = {}
    since = time.monotonic()
    while not _created(first, json.dumps(mine, indent=1).encode()):
        if _is_object(last):
            return None
        with contextlib.suppress(FileNotFoundError):  # another has just removed it
            theirs = json.loads(_ask(first, lambda store, url: store.cat_file(url)))
            own = {last.name: mine["files"][last.name]}
            if "commit" in theirs and {**theirs["files"], **own} == mine["files"]:
                return str(theirs["commit"]).encode()
        if (now := files(path)) != seen:
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
        _ask(path, lambda store, url: store.pipe_file(url, data))
    return True


def drop(path: Path) -> None:
    """Forget a working copy; what lies in the store, or on this machine alone, stays."""
    if is_remote(path):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def remove(path: Path) -> None:
    """Remove the objects of an artifact, its commit object first, and the working copy."""
    with contextlib.suppress(FileNotFoundError):
        _ask(_commit_object(path), lambda store, url: store.rm_file(url))
    for member in files(path):
        with contextlib.suppress(FileNotFoundError):
            _ask(path / member, lambda store, url: store.rm_file(url))
    drop(path)


def files(folder: Path) -> dict[str, Status]:
    """Every object below a remote folder by its relative name, from one listing."""
    try:
        found = _ask(folder, lambda store, url: store.find(url, detail=True, refresh=True))
    except FileNotFoundError:
        return {}
    prefix = _object(folder) + "/"
    return {
        entry["name"].lstrip("/").removeprefix(prefix): _status(entry)
        for entry in found.values()
        if entry["name"].lstrip("/").startswith(prefix)
    }


def members(folder: Path) -> set[str]:
    """The relative names of all that is below a folder and is no folder."""
    if is_remote(folder):
        return set(files(folder))
    found = (path for path in folder.rglob("*") if not path.is_dir() or path.is_symlink())
    return {path.relative_to(folder).as_posix() for path in found}


def read_ahead(
    root: Path, items: Sequence[T], path_of: Callable[[T], str]
) -> Iterator[tuple[Path, Sequence[T]]]:
    """Items whose files lie below `root`, some at a time, and the folder that these are in now.

    Of a local root, all at once. Of a remote one, the next files are fetched meanwhile, and files
    are removed when the next items are asked for.
    """
    if not is_remote(root):
        yield root, items
        return
    batches = [items[i : i + _BATCH] for i in range(0, len(items), _BATCH)]
    with tempfile.TemporaryDirectory(dir=_scratch()) as name_of_folder, contextlib.ExitStack() as s:
        pool = ThreadPoolExecutor(_AT_ONCE)
        s.callback(pool.shutdown, cancel_futures=True)

        def begin(number: int) -> Any:
            here = _placed(name(root), Path(name_of_folder) / str(number))
            here.mkdir(parents=True)
            paths = dict.fromkeys(path_of(item) for item in batches[number])
            return here, [pool.submit(_fetch_file, here / path) for path in paths]

        coming = [begin(0)] if batches else []
        for number, batch in enumerate(batches):
            here, fetching = coming.pop()
            if number + 1 < len(batches):
                coming.append(begin(number + 1))
            for file in fetching:
                file.result()
            yield here, batch
            shutil.rmtree(Path(name_of_folder) / str(number))


def cached(where: str | os.PathLike[str], folder: str | os.PathLike[str] | None) -> Path:
    """The working copy of a feature set in a cache, by default the user's; a local path as it is.

    What is in the cache of a set that was published anew is forgotten.
    """
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "basilar"
    path = _placed(where, (base if folder is None else Path(folder).expanduser()).absolute())
    commit = _commit_object(path)
    if is_remote(path) and commit.is_file():
        now = _ask(commit, lambda store, url: store.cat_file(url))
        if commit.read_bytes() != now:
            drop(path)
    return path


def use(path: Path, call: Callable[[Path], T], cache_bytes: int | None) -> T:
    """What `call` makes of a shard file, which is fetched if it has to be.

    Of all shard files in its cache, those used last stay, `cache_bytes` of them. What was removed
    goes from the disk when the last process has closed it.
    """
    if not is_remote(path):
        return call(path)
    for _ in range(_AT_ONCE):
        new = not path.is_file()
        _fetch_file(path, durable=True)
        with contextlib.suppress(FileNotFoundError):  # another process has removed it
            made = call(path)
            os.utime(path)
            if new and cache_bytes is not None:
                _keep(cache_bytes, but=path)
            return made
    raise FileNotFoundError(errno.ENOENT, "the cache is too small for all who use it", str(path))


def _keep(n_bytes: int, *, but: Path) -> None:
    """Remove the shard files of the cache that holds `but` that were used longest ago."""
    folder = Path(str(but).rpartition(f"/{_MARK}/")[0], _MARK)
    found = []
    for path in folder.glob("**/features/c/*/0"):
        with contextlib.suppress(FileNotFoundError):
            there = path.stat()
            found.append((there.st_mtime_ns, there.st_size, path))
    total = sum(size for _, size, _ in found)
    for _, size, path in sorted(found):
        if total <= n_bytes:
            return
        if path != but:
            path.unlink(missing_ok=True)
            total -= size


def _fetch_file(path: Path, *, durable: bool = False) -> Path:
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
        try:
            _ask(path, lambda store, url: store.get_file(url, str(temporary)))
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
        _ask(path, lambda store, url: store.cat_file(url, start=0, end=1))
    except FileNotFoundError:
        return False
    return True


def _commit_object(path: Path) -> Path:
    """The object whose presence means that what `path` names is there."""
    above, folder = path.parent.parent.name, path.parent.name
    if path.suffix == ".zarr" or (above, folder) == ("artifacts", "representation"):
        return path / "zarr.json"
    waveforms = above == "artifacts" and folder in ("decode", "resample")
    return path / "index.json" if waveforms else path


def _status(entry: dict[str, Any]) -> Status:
    etag = str(entry.get("ETag") or entry.get("etag") or entry.get("md5Hash") or "")
    names = ("LastModified", "updated", "last_modified", "created")
    when = next((entry[name] for name in names if entry.get(name)), None)
    if isinstance(when, str):
        when = datetime.fromisoformat(when)
    known = when.timestamp() if isinstance(when, datetime) else when
    seconds = time.time() if known is None else float(known)  # it may be changing right now
    version = int.from_bytes(uuid.uuid5(uuid.NAMESPACE_URL, f"{etag} {when}").bytes[:7])
    changed = int(seconds * 1e9)
    return Status(int(entry["size"]), seconds, changed, changed, version)


def _object(path: Path) -> str:
    """The name of an object as its store has it."""
    return name(path).partition("://")[2]


def _ask(path: Path, call: Callable[[Any, str], T]) -> T:
    return ask(name(path), call)


_made: dict[int, Path] = {}  # the folder of working copies, by the process that removes it


def _scratch() -> Path:
    """The folder of this process's working copies, or of the one it was forked from."""
    if not _made:
        _made[os.getpid()] = Path(tempfile.mkdtemp(prefix="basilar-")).resolve()
        atexit.register(_forget)
    return next(iter(_made.values()))


def _forget() -> None:
    if folder := _made.pop(os.getpid(), None):
        shutil.rmtree(folder, ignore_errors=True)
