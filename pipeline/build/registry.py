"""Which builds run in a root: each says so in `ROOT/running/ID.json`, and holds its lock.

A record is JSON: `key` and `name` of the feature set, `host` and `process` that build it, `started`
(seconds since 1970), `pending` (by stage, the shards that were missing then), `scheduler` (of the
luigid it shares its tasks by, or nothing), and `build`, its text form (`build.build.Build`).
One that holds the password of a tracker can be read by nobody else.
A record whose lock is free belongs to a killed build; the next reader deletes it. A root where
nothing can be written or locked has no records.
"""

import atexit
import contextlib
import os
import socket
import time
import uuid
from pathlib import Path
from typing import Any

from basilar.pipeline import errors, storage
from basilar.pipeline.storage import files, locks

_own: dict[Path, int] = {}  # records, and the process that wrote them: a forked one did not


def begin(root: Path, build: str, **about: Any) -> None:
    """Say that this process begins a build, until `end` or its exit; once for each build."""
    if any(record["build"] == build for file, record in _read(root) if _is_own(file)):
        return
    file = locks.real(root) / "running" / f"{uuid.uuid4().hex[:12]}.json"
    who = {"host": socket.gethostname(), "process": os.getpid(), "started": time.time()}
    with contextlib.suppress(OSError):
        if not locks.hold(root, _name(file)):
            return
        record = {**about, **who, "build": build}
        secret = storage.shown(build) != build  # a tracker's password, which who helps needs
        files.write_json(file, record, durable=False, private=secret)
        _own[file] = os.getpid()
        atexit.register(end, root)


def end(root: Path) -> None:
    """Remove the records of this process from a root."""
    for file in [file for file in _own if _is_own(file) and file.parent.parent == locks.real(root)]:
        del _own[file]
        with contextlib.suppress(OSError):
            file.unlink(missing_ok=True)


def records(root: Path) -> list[dict[str, Any]]:
    """The records of the builds that run in a root, the oldest first."""
    found = []
    for file, record in _read(root):
        if _is_own(file) or locks.is_held(root, _name(file)):
            found.append(record)
        else:
            with contextlib.suppress(OSError):
                file.unlink(missing_ok=True)
    return sorted(found, key=lambda record: float(record["started"]))


def begun(root: Path, build: str) -> dict[str, Any] | None:
    """The record of a build, by its text form, from when it began; None if there is none."""
    found = [record for _, record in _read(root) if record["build"] == build]
    return min(found, key=lambda record: float(record["started"]), default=None)


def recorded(root: Path, key: str) -> dict[str, Any] | None:
    """The record of the build that was the first to log a key; None if there is none.

    `started` (seconds since 1970) and `seconds` until it was logged; `shards`, and by stage how
    many of them were `pending` when it began.
    """
    markers = map(files.read_json, storage.children(root / "runs", f"{key}-*.json"))
    found = [marker["built"] for marker in markers if marker.get("built")]
    return min(found, key=lambda built: float(built["started"]), default=None)


def _read(root: Path) -> list[tuple[Path, dict[str, Any]]]:
    found = []
    for file in (locks.real(root) / "running").glob("[!.]*.json"):
        with contextlib.suppress(OSError, errors.DamagedArtifactError):  # it may just be going
            found.append((file, files.read_json(file)))
    return found


def _is_own(file: Path) -> bool:
    return _own.get(file) == os.getpid()


def _name(file: Path) -> str:
    return f"running/{file.name}"
