import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile as sf

from basilar.pipeline.errors import ManifestError
from basilar.pipeline.manifests import probe as facts_module
from basilar.pipeline.manifests import rows as rows_module
from basilar.pipeline.manifests import scan as scan_module
from basilar.pipeline.manifests.scan import scan
from basilar.pipeline.manifests.table import CLIP_COLUMNS


def test_a_cell_that_is_in_no_column_is_refused(audio_folder, tmp_path):
    table = tmp_path / "clips.csv"
    table.write_text("path,label\na/00.wav,a\na/03.wav,big, old dog\n")
    with pytest.raises(
        ManifestError, match=r"csv, row 2: the header has no column for \[' old dog'"
    ):
        scan(table, root=audio_folder)


def test_a_table_of_excerpts(audio_folder):
    table = audio_folder / "clips.jsonl"
    lines = [
        {"path": "a/00.wav", "offset": 0.1, "duration": 0.1, "label": 3},
        {"path": "a/00.wav", "offset": 0.25},
        {"path": "a/00.wav", "id": "whole", "split": "test"},
    ]
    table.write_text("\n".join(json.dumps(line) for line in lines))
    manifest = scan(table)
    assert manifest.column("id") == ["a/00.wav@0.1+0.1", "a/00.wav@0.25", "whole"]
    assert manifest.column("label") == ["3", None, None]
    np.testing.assert_allclose(manifest.seconds, [0.1, 0.05, 0.3])
    assert len(set(manifest.contents)) == 3


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"path": "../outside.wav"}, "'../outside.wav' leads out of the root"),
        ({"path": "/etc/hosts"}, "'/etc/hosts' leads out of the root"),
        ({"path": "a/../../outside.wav"}, "leads out of the root"),
        ({"path": "link.wav"}, "'link.wav' leads out of the root"),
        ({"label": "x"}, "a row has no path"),
        ({"path": "a/00.wav", "offset": -1}, "offset = -1 is not a time in seconds"),
        ({"path": "a/00.wav", "duration": "long"}, "duration = 'long' is not a time in seconds"),
        ({"path": "a/00.wav", "duration": 0}, "duration = 0 is not a time in seconds"),
        ({"path": "a/00.wav", "sha256": "00"}, "is not the file that was listed"),
        ({"path": "notes.txt"}, "'notes.txt' is not audio; remove its row"),
    ],
)
def test_a_wrong_row_is_refused(audio_folder, tmp_path, noise, row, message):
    sf.write(tmp_path / "outside.wav", noise(100), 8000)
    (audio_folder / "link.wav").symlink_to(tmp_path / "outside.wav")
    (audio_folder / "notes.txt").write_text("not audio")
    table = audio_folder / "clips.jsonl"
    table.write_text(json.dumps(row))
    with pytest.raises(ManifestError, match=message):
        scan(table)


def test_tables_from_spreadsheets_and_odd_strings(audio_folder):
    label = "one\u2028two"  # ends a line for str.splitlines, and not in JSON
    line = json.dumps({"path": "a/00.wav", "label": label}, ensure_ascii=False)
    table = audio_folder / "clips.jsonl"
    table.write_text("\ufeff" + line, encoding="utf-8")
    assert scan(table).column("label") == [label]
    table = audio_folder / "clips.csv"
    table.write_text('\ufeffpath,label\na/00.wav,"a, ""quoted""\nlabel"\n', encoding="utf-8")
    assert scan(table).column("label") == ['a, "quoted"\nlabel']


def test_rows_that_state_all_of_a_file_are_believed_and_no_file_is_opened(audio_folder, tmp_path):
    first = scan(audio_folder)
    first.write(tmp_path / "m.parquet")
    for file in audio_folder.rglob("*.wav"):
        file.unlink()
    again = scan(tmp_path / "m.parquet", label="parent")
    assert again.column("label") == [path.split("/")[0] for path in first.column("path")]
    names = [name for name in again.table.column_names if name != "label"]
    assert again.table.select(names) == first.table.select(names)
    assert again.ignored_columns == ()
    with pytest.raises(ManifestError, match="the file is missing"):
        scan(tmp_path / "m.parquet", rehash=True)
    partial = first.table.drop_columns(["codec"])
    pq.write_table(partial, tmp_path / "partial.parquet")
    with pytest.raises(ManifestError, match="the file is missing"):
        scan(tmp_path / "partial.parquet", root=audio_folder)


@pytest.mark.parametrize(
    ("name", "value"),
    [("sha256", "0F" * 32), ("sample_rate", 0), ("n_samples", -1), ("decoder", "lame")],
)
def test_what_a_table_states_must_be_possible(audio_folder, tmp_path, name, value):
    rows = scan(audio_folder).table.to_pylist()
    rows[3][name] = value
    pq.write_table(pa.Table.from_pylist(rows, CLIP_COLUMNS), tmp_path / "m.parquet")
    with pytest.raises(ManifestError, match=f"{name} = .* is not possible; correct it"):
        scan(tmp_path / "m.parquet", root=audio_folder)


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_rows_that_are_taken_some_at_a_time_make_the_same_manifest(
    audio_folder, tmp_path, monkeypatch, suffix
):
    clips = [
        {"path": path, "id": f"{path}-{i}", "offset": 0.01 * i}
        for i in range(9)
        for path in ("c/02.wav", "a/00.wav", "b/01.wav")
    ]
    source = tmp_path / f"clips{suffix}"
    if suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(clips), source, row_group_size=10)
    else:
        pd.DataFrame(clips).to_csv(source, index=False)
    shares = {"train": 0.5, "test": 0.5}
    whole = scan(source, root=audio_folder, label="parent", split=shares)
    assert len(whole) == 27
    for module in (rows_module, scan_module):
        monkeypatch.setattr(module, "ROWS_AT_ONCE", 4)
    monkeypatch.setattr(facts_module, "_AT_ONCE", 7)
    again = scan(source, root=audio_folder, label="parent", split=shares)
    assert again.table.equals(whole.table)
    assert again.hash == whole.hash


@pytest.mark.parametrize(
    ("last", "message"),
    [
        ({"path": "../x.wav"}, "leads out of the root"),
        ({"path": None}, "a row has no path"),
        ({"path": "missing.wav"}, "the file is missing"),
    ],
)
@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_rows_are_refused_before_any_file_is_opened(
    audio_folder, tmp_path, monkeypatch, looks, suffix, last, message
):
    monkeypatch.setattr(facts_module, "_AT_ONCE", 1)
    clips, source = [{"path": "a/00.wav"}, {"path": "b/01.wav"}, last], tmp_path / f"clips{suffix}"
    if suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(clips), source)
    else:
        source.write_text("".join(json.dumps(clip) + "\n" for clip in clips))
    with pytest.raises(ManifestError, match=message):
        scan(source, root=audio_folder)
    assert looks() == 0
