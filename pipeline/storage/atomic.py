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
    ROOT/running/ID.json                  builds at work (`build.registry`)
    ROOT/latest/NAME.json                 the newest feature set of a recipe (`workflows.nightly`)
    ROOT/.lock                            who is at work (`storage.locks`)

Existence means complete: everything is written to a temporary sibling and renamed, so a killed
process leaves nothing but temporaries, which the next build sweeps. Two writers of one artifact
write equal values; the later one discards its copy.

After a power cut, whatever was not fsynced may be there, or not, or in part, in any order. So what
is durable is fsynced first, files and the folders that name them, linked ones too; then comes the
rename, then the fsync of the parent, and of the parents it has made. A durable folder is removed by
a rename and an fsync of the parent, before any of its files goes.
"""

import errno
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from basilar.pipeline.storage import remote, urls

_ASIDE = ".damaged"
_TEMPORARY = re.compile(r"\.[0-9a-f]{32}\.tmp(\.\w+)?")


@contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """A temporary path beside `path` that becomes `path` when the block ends without an error.

    The block makes a file, replacing what was there, or a folder, which is discarded if `path`
    exists by then. An OSError of the block or of the file system names `path`.
    """
    is_remote = urls.is_remote(path)
    _make_folder(path.parent)
    temporary = path.with_name(f".{uuid.uuid4().hex}.tmp{path.suffix}")
    taken = True
    try:
        yield temporary
        if durable and is_remote:
            taken = remote.commit(temporary, path)  # else the working copy is fetched when needed
        elif durable:
            _fsync(temporary)
        if taken and not (temporary.is_dir() and path.exists()):
            try:
                temporary.replace(path)
            except OSError:
                if not path.is_dir():  # another writer committed the same folder first
                    raise
        if durable and not is_remote:
            fsync_folder(path.parent)
    except OSError as error:
        # NumPy tells of a full disk without its number, and most writers without the file's name.
        number = error.errno or (errno.ENOSPC if str(error).endswith(" written") else 0)
        if number in (errno.ENOSPC, errno.EDQUOT) or (number and not error.filename):
            raise OSError(number, os.strerror(number), str(path)) from error
        raise
    finally:
        discard(temporary)


def remove(path: Path) -> None:
    """Remove an artifact, if it is there, also from its object store; a folder goes at once.

    No part of a folder comes back after a power cut.
    """
    if urls.is_remote(path):
        remote.remove(path)
    if grave := _take_away(path):
        fsync_folder(path.parent)
        shutil.rmtree(grave, ignore_errors=True)


def discard(path: Path) -> None:
    """Remove a temporary file or folder, or a working copy, if it is there, from this disk alone.

    A power cut may bring parts of a folder back: they must be known by their name or checksum.
    """
    if grave := _take_away(path):
        shutil.rmtree(grave, ignore_errors=True)


def _take_away(path: Path) -> Path | None:
    """Remove a file, or rename a folder, so that it is gone at once; return its new name."""
    if not path.is_dir():
        path.unlink(missing_ok=True)
        return None
    grave = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        path.rename(grave)
    except FileNotFoundError:
        return None
    return grave


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
        discard(path)


def put_back(root: Path) -> None:
    """Move back what repairs moved aside and did not replace."""
    for path in list(_hidden(root)):
        if path.name.endswith(_ASIDE) and not _of(path).exists():
            path.rename(_of(path))


def aside(path: Path) -> Path:
    """Where a repair moves a damaged folder until another is in its place."""
    return path.with_name(f".{path.name}{_ASIDE}")


def _of(path: Path) -> Path:
    """The path from which something was moved aside."""
    return path.with_name(path.name[1:].removesuffix(_ASIDE))


def _hidden(root: Path) -> Iterator[Path]:
    folders = "artifacts/* catalogue/* features runs results running latest mlflow"
    for folder in folders.split():
        yield from root.glob(f"{folder}/.*")


def link(source: Path, target: Path) -> None:
    """Hard-link a file, or copy it where the file system has no links between the two.

    A symbolic link to a working copy stands for its object in the store (`storage.commit`).
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    if urls.is_remote(source) and not source.exists():
        target.symlink_to(source)
        return
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _make_folder(folder: Path) -> None:
    """Make a folder and its parents, and fsync their entries."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        fsync_folder(folder.parent)


def _fsync(path: Path) -> None:
    """fsync a file, or all files and folders below a folder."""
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
    """fsync a folder, and so what was renamed in it."""
    if not hasattr(os, "O_DIRECTORY"):  # Windows opens no folders
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(folder)) from error
    finally:
        os.close(descriptor)
