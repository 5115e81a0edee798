"""The table of clips: its schema, and memory that processes share.

A table is stored in a temporary file that is memory-mapped: forked processes share it, and
`release_memory` drops its pages.
"""

import io
import mmap
import os
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from basilar.pipeline.errors import ManifestError
from basilar.pipeline.storage.files import open_table
from basilar.pipeline.storage.scratch import temporary_file

_TEXT = pa.large_string()  # plain strings end at 2 GiB: the hashes of 34 million clips
CLIP_COLUMNS = pa.schema(
    [
        ("id", _TEXT),
        ("path", _TEXT),  # relative to the root, with forward slashes
        ("sha256", _TEXT),  # of the whole file
        ("offset", pa.float64()),  # seconds; null: from the start
        ("duration", pa.float64()),  # seconds; null: to the end
        ("label", _TEXT),
        ("split", _TEXT),
        ("group", _TEXT),  # must not cross splits: a speaker, an album
        ("sample_rate", pa.int64()),  # of the file, Hz
        ("channels", pa.int64()),
        ("n_samples", pa.int64()),  # of the file
        ("format", _TEXT),
        ("codec", _TEXT),
        ("decoder", _TEXT),
        ("lossy", pa.bool_()),
        ("problem", _TEXT),  # why the file could not be read; null: it was read
    ]
)
_maps: weakref.WeakValueDictionary[int, mmap.mmap] = weakref.WeakValueDictionary()  # of tables


def take_rows(table: pa.Table, names: list[str], rows: NDArray[np.int64]) -> pa.Table:
    """Some rows of some columns of a table."""
    # Given an array, pyarrow would import pandas, which takes as long as a cached build.
    buffer = pa.py_buffer(np.ascontiguousarray(rows, np.int64))
    return table.select(names).take(pa.Array.from_buffers(pa.int64(), len(rows), [None, buffer]))


def release_memory() -> None:
    """Return free memory of Arrow, and so of malloc, and pages of mapped tables to the system.

    When tables are made one after the other, malloc would keep several times the size of one. Pages
    of mapped tables are read again when they are needed.
    """
    pa.default_memory_pool().release_unused()
    for reference in _maps.valuerefs():  # a copy: other threads may add to it
        if (mapping := reference()) is not None and hasattr(mmap, "MADV_DONTNEED"):
            mapping.madvise(mmap.MADV_DONTNEED)


def map_table(column: Callable[[pa.Field], pa.ChunkedArray]) -> pa.Table:
    """Make a memory-mapped table of clips, with only one column in memory at a time.

    `column` is called for each field of `CLIP_COLUMNS`. If there is no room for a temporary file,
    it is called again for each, and the table is in memory.
    """
    try:
        with temporary_file(None) as raw, io.BufferedWriter(raw) as stored:
            starts = []
            for field in CLIP_COLUMNS:
                one = pa.table([column(field).combine_chunks()], pa.schema([field]))
                starts.append(stored.tell())
                with pa.ipc.new_stream(stored, one.schema) as stream:
                    stream.write_table(one)
            stored.flush()
            mapping = mmap.mmap(stored.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError:
        return pa.table([column(field) for field in CLIP_COLUMNS], CLIP_COLUMNS)
    _maps[id(mapping)] = mapping
    stored_at = pa.py_buffer(mapping).slice
    return pa.table(
        [pa.ipc.open_stream(stored_at(i)).read_all().column(0) for i in starts], CLIP_COLUMNS
    )


@contextmanager
def open_parquet(path: Path) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file of any origin.

    Raises ManifestError if it is not a Parquet file or is damaged, OSError if it is missing.
    """
    try:
        with open_table(path) as file:
            yield file
    except UnicodeDecodeError as error:
        raise ManifestError(f"{path}: a text is not UTF-8 ({error}); write it again") from None
    except pa.ArrowException as error:
        raise ManifestError(f"{path}: not a Parquet file ({error}); scan again") from None
    except OSError as error:  # those of Parquet for damaged pages have no number
        if error.errno is not None:  # the library's text does not name the file
            raise OSError(error.errno, os.strerror(error.errno), str(path)) from None
        raise ManifestError(f"{path}: not a Parquet file ({error}); scan again") from None
