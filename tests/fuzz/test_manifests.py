"""Tables of clips of any kind: a manifest that keeps its hash, or a ManifestError."""

import csv
import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile as sf
from hypothesis import example, given
from hypothesis import strategies as st

from basilar.pipeline.errors import ManifestError
from basilar.pipeline.manifests.manifest import Manifest
from basilar.pipeline.manifests.scan import scan
from basilar.pipeline.manifests.table import CLIP_COLUMNS
from tests.fuzz import examples

PATHS = ["a.wav", "b.wav", "deep/ö ü.wav"]
TEXT = st.one_of(st.text(max_size=8), st.sampled_from(["", "\0", "\r\n", '"', ",", "\u2028", "é"]))
SECONDS = st.one_of(st.none(), st.floats(), st.sampled_from([0, 0.0, 0.01, 0.5, -1, 1e300]))
ANY = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXT)
ANY |= st.lists(st.integers(), max_size=2) | st.dictionaries(TEXT, st.integers(), max_size=2)
VALUES = {
    "path": st.sampled_from(PATHS),
    "id": TEXT,
    **dict.fromkeys(("label", "split", "group"), st.one_of(st.none(), TEXT)),
    **dict.fromkeys(("offset", "duration"), SECONDS),
    "sha256": st.none(),
    "extra": ANY,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("manifests")
    (folder / "deep").mkdir()
    for i, path in enumerate(PATHS):
        noise = np.random.default_rng(i).standard_normal(800).clip(-3, 3) / 4
        sf.write(folder / path, noise, 8000, subtype="PCM_16")
    (folder / "text.txt").write_text("no audio")
    return folder


@st.composite
def tables(draw):
    """Rows of some columns, valid ones mostly, then one wrong value."""
    columns = draw(st.sets(st.sampled_from(list(VALUES)))) | {"path"}
    row = st.fixed_dictionaries({name: VALUES[name] for name in sorted(columns)})
    rows = draw(st.lists(row, min_size=1, max_size=5))
    if draw(st.booleans()):
        odd = st.sampled_from(["", "/etc/passwd", "../x.wav", "text.txt", "none.wav", "deep", "\0"])
        name = draw(st.sampled_from(sorted(columns)))
        draw(st.sampled_from(rows))[name] = draw(odd | ANY if name == "path" else ANY)
    return rows


def write_rows(file, rows):
    """Write rows as they are, as far as the format can; whether it could."""
    try:
        if file.suffix == ".csv":
            with file.open("w", newline="", encoding="utf-8") as opened:
                writer = csv.DictWriter(opened, list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)
        elif file.suffix == ".jsonl":
            file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        else:
            pq.write_table(pa.Table.from_pylist(rows), file)
    except (pa.ArrowException, UnicodeEncodeError, OverflowError, csv.Error):
        return False
    return True


def scanned(source, root):
    """The manifest of a table, or None if it is refused as it should be."""
    try:
        return scan(source, root=root)
    except ManifestError as error:
        assert str(source) in str(error) or str(root) in str(error)  # the table, or the audio
        return None


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_table_is_refused_or_keeps_its_hash(folder, tmp_path, suffix):
    accepted = []

    @examples(25)
    @given(tables(), st.randoms(use_true_random=False))
    @example([{"path": "a.wav", "id": "\ud800"}], None)
    @example([{"path": "a.wav\0"}], None)
    def check(rows, chance):
        source = tmp_path / f"table{suffix}"
        if not write_rows(source, rows):
            return
        manifest = scanned(source, folder)
        if manifest is None:
            return
        accepted.append(rows)
        shuffled = chance.sample(rows, len(rows))
        assert write_rows(source, shuffled)
        again = scanned(source, folder)
        assert again is not None
        assert again.hash == manifest.hash
        for kind in (".parquet", ".csv", ".jsonl"):
            exported = tmp_path / f"exported{kind}"
            manifest.write(exported)
            back = scan(exported, root=folder)
            assert back.hash == manifest.hash
            assert back.table == manifest.table
        back = Manifest.read(tmp_path / "exported.parquet")
        assert back.hash == manifest.hash
        field = CLIP_COLUMNS.field("path")
        places = pa.array([f"moved/{i}.wav" for i in range(len(back))], field.type)
        moved = back.table.set_column(CLIP_COLUMNS.get_field_index("path"), field, places)
        assert Manifest(folder, moved).hash == manifest.hash

    check()
    assert len(accepted) >= 5


@examples(150)
@given(st.data())
def test_a_damaged_manifest_is_refused_or_whole(folder, tmp_path, data):
    """Any bytes, and manifests of which some are changed."""
    good = tmp_path / "good.parquet"
    if not good.exists():
        scan(folder).write(good)
    suffix = data.draw(st.sampled_from([".parquet", ".csv", ".jsonl"]))
    file = tmp_path / f"damaged{suffix}"
    if data.draw(st.booleans()):
        file.write_bytes(data.draw(st.binary(max_size=200)))
    else:
        shutil.copy(good, file)
        if suffix != ".parquet":
            Manifest.read(good).write(file)
        content = bytearray(file.read_bytes())
        for _ in range(data.draw(st.integers(1, 4))):
            at = data.draw(st.integers(0, len(content) - 1))
            content[at : at + data.draw(st.integers(0, 9))] = data.draw(st.binary(max_size=9))
        file.write_bytes(content)
    scanned(file, folder)
    if suffix == ".parquet":
        try:
            manifest = Manifest.read(file)
        except ManifestError as error:
            assert str(file) in str(error)
        else:
            assert len(manifest.hash) == 32
            assert len(manifest.seconds) == len(manifest)


@examples(100)
@given(st.sampled_from(CLIP_COLUMNS.names), ANY, st.booleans())
def test_a_manifest_with_a_wrong_value_is_refused_or_usable(folder, tmp_path, name, value, rooted):
    file, manifest = tmp_path / "manifest.parquet", scan(folder)
    rows = manifest.table.to_pylist()
    rows[1][name] = value
    try:
        column = pa.array([row[name] for row in rows])
        pq.write_table(pa.table({name: column}), file)  # not every type of Arrow's is Parquet's
    except (pa.ArrowException, UnicodeEncodeError, OverflowError):
        return
    index = CLIP_COLUMNS.get_field_index(name)
    table = manifest.table.set_column(index, name, column)
    root = {b"basilar": json.dumps({"schema": 1, "root": value if rooted else "."}).encode()}
    pq.write_table(table.replace_schema_metadata(root), file)
    try:
        found = Manifest.read(file)
    except ManifestError as error:
        assert str(file) in str(error)
    else:
        assert len(found.hash) == 32
        assert all(seconds >= 0 for seconds in found.seconds)
        assert all(int(content, 16) >= 0 for content in found.contents)
