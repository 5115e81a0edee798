"""Who is at work in a root: advisory locks, which the kernel drops when a process ends.

The one file `ROOT/.lock` is never written; its bytes are locked (POSIX record locks: they cross
machines over NFS, and are neither inherited by a fork nor left behind by a kill):

* byte 0 is shared by all processes that build in the root; a process that removes things takes it
  alone;
* each other byte stands, by the hash of a name, for an artifact or for the record of a running
  build: the process that makes the artifact holds the byte, and others wait and then find it made.

No result depends on them: what they save is work. Where there are none (a read-only root, a file
system without), builds go on, and nothing is swept. A deadlock is impossible: a holder of an
artifact's byte takes only the bytes of its sources (to make a damaged one again), a holder of byte
0 alone waits for nothing, and no wait for an artifact is longer than ten minutes. A process that
closes a file drops all its locks on it, so each keeps one descriptor a root, however that is
spelled, and nothing else opens the file.
"""

import contextlib
import errno
import hashlib
import logging
import math
import os
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from basilar.pipeline.errors import BusyError

try:
    import fcntl
except ImportError:  # Windows: as on a file system without locks
    fcntl = None  # type: ignore[assignment]

FILE = ".lock"
_ROOT_BYTE = 0
_PATIENCE = 600.0  # seconds until a stuck process is no longer waited for
_SAY_AFTER = 10.0  # seconds of waiting
_POLL = 0.05  # seconds

_descriptors: dict[Path, int] = {}
_entered: dict[Path, int] = {}  # the process that is at work: a forked one is not yet


def enter(root: Path) -> None:
    """Be at work in a root until the process ends; wait while something is removed there."""
    root = real(root)
    descriptor = _open(root)
    if descriptor is None or _entered.get(root) == os.getpid():
        return
    if _acquire(descriptor, _ROOT_BYTE, fcntl.LOCK_SH, f"clean {root}", patience=math.inf):
        _entered[root] = os.getpid()


@contextmanager
def session(root: Path) -> Iterator[None]:
    """Leave a root at the end of the block if it was entered inside."""
    root = real(root)
    before = _entered.get(root) == os.getpid()
    try:
        yield
    finally:
        if not before:
            _close(root)


@contextmanager
def alone(root: Path) -> Iterator[None]:
    """Be the only process at work in a root. Raises BusyError, without waiting."""
    root = real(root)
    descriptor = _open(root)
    try:
        if descriptor is None:
            raise OSError(f"{root / FILE} cannot be opened")
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _ROOT_BYTE)
    except OSError as error:
        if _is_held(error):
            process = holder(root)
            who = f"process {process}" if process else "a process that cannot be named"
            raise BusyError(
                f"{root}: {who} is at work there; try again when it has ended"
            ) from None
        raise BusyError(
            f"{root}: its file system has no locks ({error}), so that nobody knows whether a build "
            "is at work; do it where the root is on a local disk"
        ) from None
    try:
        yield
    finally:
        if _entered.get(root) == os.getpid():
            fcntl.lockf(descriptor, fcntl.LOCK_SH, 1, _ROOT_BYTE)
        else:
            _close(root)


@contextmanager
def sole(root: Path, name: str) -> Iterator[None]:
    """Make the artifact `name` in the block while others wait, if the file system has locks."""
    root = real(root)
    descriptor, byte = _open(root), _byte(name)
    if descriptor is None or not _acquire(
        descriptor, byte, fcntl.LOCK_EX, f"make {root / name}", patience=_PATIENCE
    ):
        yield
        return
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # the root may be gone
            fcntl.lockf(descriptor, fcntl.LOCK_UN, 1, byte)


def hold(root: Path, name: str) -> bool:
    """Hold the lock of a name until this process leaves the root; False if it cannot be had."""
    root = real(root)
    descriptor = _open(root)
    return descriptor is not None and _acquire(
        descriptor, _byte(name), fcntl.LOCK_EX, f"hold {root / name}", patience=_SAY_AFTER
    )


def is_held(root: Path, name: str) -> bool:
    """Whether another process holds `name`, or makes it."""
    root = real(root)
    descriptor = _open(root)
    if descriptor is None:
        return False
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _byte(name))
        fcntl.lockf(descriptor, fcntl.LOCK_UN, 1, _byte(name))
    except OSError as error:
        return _is_held(error)
    return False


def holder(root: Path) -> int | None:
    """The id of another process that is at work in a root, as far as the system tells."""
    root = real(root)
    descriptor = _open(root)
    return None if descriptor is None else _holder(descriptor, _ROOT_BYTE)


def real(root: Path) -> Path:
    """The path of a root without symbolic links."""
    return Path(os.path.realpath(root))


def _byte(name: str) -> int:
    return 1 + int.from_bytes(hashlib.sha256(name.encode()).digest()[:7])


def _acquire(descriptor: int, byte: int, mode: int, what: str, *, patience: float) -> bool:
    """Lock one byte, waiting for its holder, to do `what`; False if that is impossible."""
    started, said = time.monotonic(), False
    while (waited := time.monotonic() - started) < patience:
        try:
            fcntl.lockf(descriptor, mode | fcntl.LOCK_NB, 1, byte)
            return True
        except OSError as error:
            if not _is_held(error):
                return False
        if waited > _SAY_AFTER and not said:
            said = True
            who = _holder(descriptor, byte) or "another"
            logging.getLogger("basilar").warning("waiting for process %s to %s", who, what)
        time.sleep(_POLL)
    return False


def _holder(descriptor: int, byte: int) -> int | None:
    """The process whose lock keeps this one from locking a byte alone."""
    if sys.platform != "linux":
        return None
    flock = "hhqqi"  # struct flock: type, whence, start, length, process
    question = struct.pack(flock, fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0)
    try:
        kind, *_, process = struct.unpack(flock, fcntl.fcntl(descriptor, fcntl.F_GETLK, question))
    except OSError:
        return None
    return None if kind == fcntl.F_UNLCK or process <= 0 else int(process)


def _open(root: Path) -> int | None:
    """This process's descriptor of a root's lock file; None where it cannot be opened."""
    if fcntl is None:
        return None
    file = root / FILE
    known = _descriptors.get(root)
    if known is not None:
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(known), file.stat()):
                return known
        _close(root)  # the root was removed, and perhaps made again
    try:
        root.mkdir(parents=True, exist_ok=True)
        _descriptors[root] = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError:
        return None
    return _descriptors[root]


def _close(root: Path) -> None:
    _entered.pop(root, None)
    descriptor = _descriptors.pop(root, None)
    if descriptor is not None:
        with contextlib.suppress(OSError):
            os.close(descriptor)


def _is_held(error: OSError) -> bool:
    return error.errno in (errno.EACCES, errno.EAGAIN)
