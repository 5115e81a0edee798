"""What was once seen in a file, remembered for as long as the file has not changed."""

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
    """The SHA-256 of a file's content, read in full. Raises OSError if it cannot be read."""
    # What was a file when it was looked for may be a pipe now, which is opened but never read.
    with os.fdopen(open_to_read(file), "rb") as stream:
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            raise OSError(f"{file}: it is not a file; remove it, or scan again")
        return hashlib.file_digest(stream, "sha256").hexdigest()


class FileCache:
    """What was seen in files, by (path, size, mtime and ctime in ns, inode); a context manager.

    Programs that unpack or synchronize set a file's size and mtime as they were elsewhere, but none
    can set its ctime. One SQLite database in the user's cache folder for each version of the
    decoders. A file changed within the last two seconds is not remembered: it might change again
    without its time showing it. A cache that cannot be opened, read or written is done without.
    """

    def __enter__(self) -> Self:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "basilar"
        decoders = "-".join(version(package) for package in ("soundfile", "av"))
        try:
            base.mkdir(parents=True, exist_ok=True)
            self._open(base / f"seen-{audio.VERSION}-{decoders}.sqlite")
        except (OSError, sqlite3.Error):
            self._open(":memory:")
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def get(self, file: Path) -> Any:
        """What was seen in a file that has not changed since; None if nothing was."""
        return self.get_of(file, file.stat())

    def get_of(self, file: Path, status: os.stat_result | storage.ObjectStatus) -> Any:
        """As `get`, of a file whose status is at hand."""
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
        """Remember what was seen in a file whose status, taken before looking, is `status`.

        Returns whether it is remembered.
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
        # Each statement is its own transaction, so that no scan locks out another for long.
        connection = sqlite3.connect(database, timeout=1, isolation_level=None)
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=OFF")  # a lost cache is looked up again
            connection.execute(
                "CREATE TABLE IF NOT EXISTS files (path TEXT PRIMARY KEY, "
                "size INT, mtime_ns INT, ctime_ns INT, inode INT, seen TEXT)"
            )
        except sqlite3.Error:
            connection.close()
            raise
        self._database = connection


def _identity(file: Path, status: os.stat_result | storage.ObjectStatus) -> tuple[str | int, ...]:
    """What tells this version of a file from others."""
    times = status.st_mtime_ns, status.st_ctime_ns
    return storage.name(file), status.st_size, *times, status.st_ino
