"""JSON files and Parquet tables of a root, read and written."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from basilar.pipeline.errors import DamagedArtifactError
from basilar.pipeline.storage import remote

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq
from basilar.pipeline.storage.atomic import replacing


def write_json(path: Path, value: Any, *, durable: bool = True, private: bool = False) -> None:
    """Write a JSON file, which nobody else can read if it is private, replacing what was there."""
    with replacing(path, durable=durable) as temporary:
        temporary.touch(0o600 if private else 0o666)
        temporary.write_text(json.dumps(value, indent=1), encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read a JSON file. Raises DamagedArtifactError if it is none."""
    try:
        return json.loads(remote.fetch(path).read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise DamagedArtifactError(
            f"{path}: damaged ({error}); restore it, or delete it and build again"
        ) from None


def open_table(path: Path) -> "pq.ParquetFile":
    """Open a Parquet file, whose pages are checked when they are read."""
    import pyarrow.parquet as pq

    return pq.ParquetFile(remote.fetch(path), page_checksum_verification=True)


def read_table(path: Path) -> "pa.Table":
    """Read a Parquet file (`pyarrow.parquet.read_table` would import pandas to do it)."""
    with open_table(path) as file:
        return file.read(use_threads=False)
