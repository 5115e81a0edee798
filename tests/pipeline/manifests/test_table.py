import errno
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from basilar.pipeline.errors import ManifestError
from basilar.pipeline.manifests.manifest import Manifest
from basilar.pipeline.manifests.scan import scan
from basilar.pipeline.manifests.table import CLIP_COLUMNS, map_table, release_memory, take_rows


def test_a_text_that_is_not_utf_8_is_refused(audio_folder, tmp_path):
    scan(audio_folder, label="parent").write(tmp_path / "m.parquet")
    file = tmp_path / "m.parquet"
    table = pq.read_table(file)
    bad = pa.array([b"\xff"] * 12, pa.binary()).view(pa.string())
    index = CLIP_COLUMNS.get_field_index("label")
    pq.write_table(table.set_column(index, "label", bad), file)
    for read in (scan, Manifest.read):
        with pytest.raises(ManifestError, match="a text is not UTF-8"):
            read(file)


def resident(table):
    """KiB in memory of the mapping that a table's hashes lie in."""
    address = table["sha256"].chunk(0).buffers()[2].address
    mine = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if match := re.match("([0-9a-f]+)-([0-9a-f]+) ", line):
            begin, end = (int(number, 16) for number in match.groups())
            mine = begin <= address < end
        elif mine and line.startswith("Rss:"):
            return int(line.split()[1])
    raise AssertionError("the table is not in a mapping")


def test_a_table_that_was_read_is_mapped_and_not_held(audio_folder, tmp_path):
    manifest = scan(audio_folder)
    manifest.write(tmp_path / "m.parquet")
    held = pa.total_allocated_bytes()
    again = Manifest.read(tmp_path / "m.parquet")
    assert pa.total_allocated_bytes() == held
    assert again.table.equals(manifest.table)
    assert resident(again.table) > 0
    release_memory()
    assert resident(again.table) == 0
    assert again.table.equals(manifest.table)


def test_without_room_for_a_file_the_table_is_held(audio_folder, tmp_path, monkeypatch):
    manifest = scan(audio_folder)
    manifest.write(tmp_path / "m.parquet")

    def fail(folder):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("basilar.pipeline.manifests.table.temporary_file", fail)
    held = pa.total_allocated_bytes()
    again = Manifest.read(tmp_path / "m.parquet")
    assert pa.total_allocated_bytes() > held
    assert again.table.equals(manifest.table)


@pytest.mark.torture
def test_a_column_may_have_more_than_two_gib(tmp_path):
    """Hashes of a hundred million clips have; here it is a few long texts."""
    texts = pa.array([letter * (100 << 20) for letter in "abcdefgh"], pa.large_string())
    parts = {field.name: [pa.nulls(24, field.type)] for field in CLIP_COLUMNS} | {
        "label": [texts] * 3
    }
    table = map_table(lambda field: pa.chunked_array(parts[field.name]))
    (found,) = take_rows(table, ["label"], np.array([23, 1, 8])).columns
    assert [text[:1] for text in found.to_pylist()] == ["h", "b", "a"]
