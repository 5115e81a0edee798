"""`files.json`: the size and CRC-32 of every file of an artifact, written and checked."""

import json
import zlib
from pathlib import Path

from basilar.pipeline.errors import DamagedArtifactError
from basilar.pipeline.storage.files import read_json

CHECKSUMS = "files.json"
Checksum = tuple[int, int]  # bytes, CRC-32
_READ_AT_ONCE = 1 << 20  # bytes
_BUILD_AGAIN = "build again, which replaces it"


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
    raise DamagedArtifactError(f"{path}: damaged; basilar verify --repair makes the store again")


def checksum(path: Path) -> Checksum:
    """The size of a file in bytes and its CRC-32."""
    size = crc = 0
    with path.open("rb") as file:
        while block := file.read(_READ_AT_ONCE):
            size, crc = size + len(block), zlib.crc32(block, crc)
    return size, crc


def check_files(folder: Path, *, but: tuple[str, ...] = ()) -> None:
    """Compare the files of an artifact with its `files.json`, except those with a prefix in `but`.

    Raises DamagedArtifactError if one is not there, or is not what was written.
    """
    try:
        for name, expected in read_checksums(folder).items():
            if not name.startswith(but) and checksum(folder / name) != expected:
                raise DamagedArtifactError(f"{folder / name}: damaged; {_BUILD_AGAIN}")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise DamagedArtifactError(f"{error.filename}: it is missing; {_BUILD_AGAIN}") from None


def _crc_of(files: dict[str, Checksum]) -> int:
    return zlib.crc32(json.dumps(files, sort_keys=True).encode())
