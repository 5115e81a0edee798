"""Ways to damage files on a disk, for tests that damage is found."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from basilar.pipeline.storage.checksums import CHECKSUMS, write_checksums


def flip(file: Path, place: float = 0.5, bit: int = 0) -> None:
    """Flip one bit of a file in place, for all its hard links; `place` is a share of its bytes."""
    with file.open("r+b") as opened:
        at = min(int(place * file.stat().st_size), file.stat().st_size - 1)
        opened.seek(at)
        (byte,) = opened.read(1)
        opened.seek(at)
        opened.write(bytes([byte ^ 1 << bit]))


def seal(folder: Path) -> None:
    """Write the checksums of a folder again, as if its files had been written so."""
    (folder / CHECKSUMS).unlink()
    write_checksums(folder)


def edit_json(file: Path, change: Callable[[Any], None]) -> None:
    """Change a JSON file."""
    value = json.loads(file.read_text())
    change(value)
    file.unlink()
    file.write_text(json.dumps(value))


def edit_table(file: Path, column: str, row: int, value: Any) -> None:
    """Change one cell of a Parquet file."""
    table = pq.read_table(file)
    values = table.column(column).to_pylist()
    values[row] = value
    index = table.schema.get_field_index(column)
    table = table.set_column(
        index, table.schema.field(column), pa.array(values, table.schema.field(column).type)
    )
    file.unlink()
    pq.write_table(table, file)


def store_of(root: Path) -> Path:
    """The only feature set of a root."""
    (store,) = (root / "features").glob("[!.]*.zarr")
    return store
