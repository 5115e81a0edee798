"""A cache of what files contain, valid for as long as they do not change."""

import hashlib
import json
import os
import sqlite3
import stat
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

from basilar.pipeline import audio, storage
from basilar.pipeline.storage.positioned import open_to_read


def hash_file(file: Path) -> str:
    """Compute the SHA-256 of a file's content. Raises OSError if it cannot be read."""
    # A pipe may have taken the place of the file: it is opened without waiting, and never read.
    with os.fdopen(open_to_read(file), "rb") as stream:
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            raise OSError(f"{file}: it is not a file; remove it, or scan again")
        return hashlib.file_digest(stream, "sha256").hexdigest()


class FileCache:
    """The contents of files by (path, size, mtime and ctime in ns, inode); a context manager.

    The ctime counts because programs that unpack or synchronize may set size and mtime as they were
    elsewhere, but none can set the ctime. There is one SQLite database in the user's cache folder
    for each version of the decoders. A file that changed within the last two seconds is not
    remembered: it might change again within the resolution of its times. If the cache cannot be
    opened, read or written, files are read again.
    """

    def __enter__(self) -> Self:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "basilar"
        decoders = "-".join(version(package) for package in ("soundfile", "av"))
        try:
            base.mkdir(parents=True, exist_ok=True)
            self._open(base / f"seen-{sum(audio.VERSIONS.values())}-{decoders}.sqlite")
        except (OSError, sqlite3.Error):
            self._open(":memory:")
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def get(self, file: Path) -> Any:
        """The remembered contents of a file that has not changed since; None if there are none."""
        return self.get_of(file, file.stat())

    def get_of(self, file: Path, status: os.stat_result | storage.ObjectStatus) -> Any:
        """As `get`, for a file whose status is known."""
        try:
            row = self._database.execute(
                "SELECT seen FROM files "
                "WHERE path=? AND size=? AND mtime_ns=? AND ctime_ns=? AND inode=?",
                _identity(file, status),
            ).fetchone()
        except sqlite3.Error:
            return None
        return None if row is None else json.loads(row[0])

    def put(self, file: Path, status: os.stat_result | storage.ObjectStatus, seen: Any) -> bool:
        """Remember what was seen in a file whose status was `status` before it was read.

        Returns whether it was stored.
        """
        if time.time() - status.st_mtime < 2:
            return False
        row = (*_identity(file, status), json.dumps(seen))
        try:
            self._database.execute("INSERT OR REPLACE INTO files VALUES (?,?,?,?,?,?)", row)
        except sqlite3.Error:
            return False
        return True

    def sha256(self, file: Path) -> str:
        """The SHA-256 of a file's content now. Raises OSError if it cannot be read."""
        seen = self.get(file)
        return str(seen["sha256"]) if seen and seen["sha256"] else hash_file(file)

    def _open(self, database: Path | str) -> None:
        # Each statement is a transaction of its own, so that no scan locks out another for long.
        connection = sqlite3.connect(database, timeout=1, isolation_level=None)
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=OFF")  # a lost cache costs only time
            connection.execute(
                "CREATE TABLE IF NOT EXISTS files (path TEXT PRIMARY KEY, "
                "size INT, mtime_ns INT, ctime_ns INT, inode INT, seen TEXT)"
            )
        except sqlite3.Error:
            connection.close()
            raise
        self._database = connection


def _identity(file: Path, status: os.stat_result | storage.ObjectStatus) -> tuple[str | int, ...]:
    """The values that tell this version of a file from others."""
    times = status.st_mtime_ns, status.st_ctime_ns
    return storage.name(file), status.st_size, *times, status.st_ino
