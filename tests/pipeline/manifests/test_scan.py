import csv
import itertools
import json
import os
import shutil

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile as sf

from basilar.pipeline.errors import ManifestError
from basilar.pipeline.manifests import probe as facts_module
from basilar.pipeline.manifests import scan as scan_module
from basilar.pipeline.manifests.manifest import read_manifest, write_manifest
from basilar.pipeline.manifests.scan import contents, scan
from basilar.pipeline.manifests.table import CLIP_COLUMNS
from tests.conftest import make_noise


def rows(manifest):
    return manifest.table.to_pylist()


def settle(folder):
    """Make files look as if they had not changed for a minute, as the cache wants them."""
    for file in folder.rglob("*"):
        if file.is_file():
            changed = file.stat().st_mtime - 60
            os.utime(file, (changed, changed))


def test_a_folder_becomes_a_sorted_manifest(audio_folder):
    manifest, skipped = scan(audio_folder)
    assert skipped == []
    assert manifest.column("id") == sorted(manifest.column("id")) == manifest.column("path")
    first = rows(manifest)[0]
    assert first["path"] == "a/00.wav"
    assert (first["sample_rate"], first["channels"], first["n_samples"]) == (8000, 1, 2400)
    assert (first["format"], first["decoder"], first["lossy"]) == ("wav", "soundfile", False)
    assert first["label"] is first["split"] is first["problem"] is None
    assert manifest.seconds[0] == 0.3


def test_audio_is_found_by_content_and_the_rest_is_named(audio_folder):
    shutil.copy(audio_folder / "a" / "00.wav", audio_folder / "no suffix")
    shutil.copy(audio_folder / "a" / "00.wav", audio_folder / "wrong.txt")
    (audio_folder / "notes.txt").write_text("not audio")
    (audio_folder / "broken.wav").write_bytes(b"RIFF not really")
    (audio_folder / "empty.mp3").write_bytes(b"")
    manifest, skipped = scan(audio_folder)
    problems = dict(zip(manifest.column("id"), manifest.column("problem"), strict=True))
    assert problems["no suffix"] is problems["wrong.txt"] is None
    assert problems["broken.wav"]
    assert problems["empty.mp3"]
    assert skipped == ["notes.txt"]


def test_a_real_folder(corpora):
    manifest, skipped = scan(corpora / "music")
    with (corpora / "music" / "music.csv").open(newline="") as file:
        expected = {row["file"].removeprefix("music/"): row for row in csv.DictReader(file)}
    assert skipped == ["music.csv"]
    assert set(manifest.column("path")) == expected.keys()
    for row in rows(manifest):
        assert row["problem"] is None
        assert row["sha256"] == expected[row["path"]]["sha256"]
        assert row["channels"] == int(expected[row["path"]]["channels"])


def test_touch_rename_and_move_change_no_content(audio_folder, tmp_path):
    settle(audio_folder)
    before, _ = scan(audio_folder)
    os.utime(audio_folder / "a" / "00.wav")
    (audio_folder / "b" / "01.wav").rename(audio_folder / "b" / "renamed.wav")
    moved = audio_folder.rename(tmp_path / "moved")
    after, _ = scan(moved)
    assert sorted(before.contents) == sorted(after.contents)
    assert before.hash != after.hash  # an id changed


def test_a_change_of_one_sample_is_seen_though_size_date_and_inode_are_restored(audio_folder):
    settle(audio_folder)
    before, _ = scan(audio_folder)
    file = audio_folder / "a" / "00.wav"
    status = file.stat()
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    with file.open("r+b") as stream:
        stream.write(data)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert file.stat().st_ino == status.st_ino
    restored, _ = scan(audio_folder)
    assert restored.hash != before.hash
    assert scan(audio_folder, rehash=True)[0].hash == restored.hash


def test_labels_and_groups_from_paths(audio_folder):
    manifest, _ = scan(audio_folder, label="parent", group=r"(\d)\.wav")
    assert manifest.column("label")[:4] == ["a"] * 4
    assert manifest.column("group")[:2] == ["0", "3"]
    manifest, _ = scan(audio_folder, label=r"(?P<group>\d)(?P<label>\d)\.wav")
    assert manifest.column("label")[:2] == ["0", "3"]


def test_splits_by_share_keep_groups_together_and_do_not_depend_on_other_clips(corpora):
    folder = corpora / "speech" / "fsdd"
    by_file, _ = scan(folder, split={"train": 0.8, "valid": 0.1, "test": 0.1})
    counts = {name: by_file.splits.count(name) for name in ("train", "valid", "test")}
    # 1,000 draws: 3 standard deviations of a share of 0.8 are 38 clips, of 0.1 28.
    assert abs(counts["train"] - 800) < 38
    assert abs(counts["valid"] - 100) < 28
    assert sum(counts.values()) == 1000
    by_speaker, _ = scan(folder, group="_([a-z]+)_", split={"train": 0.5, "test": 0.5})
    pairs = set(zip(by_speaker.column("group"), by_speaker.splits, strict=True))
    assert len(pairs) == 4


def test_no_content_is_on_both_sides_of_a_split_nor_moved_by_its_name(tmp_path):
    shares, lines = {"train": 0.5, "test": 0.5}, []
    for seed in range(8):
        sf.write(tmp_path / f"{seed}.wav", make_noise(800, seed), 8000, subtype="PCM_16")
        shutil.copy(tmp_path / f"{seed}.wav", tmp_path / f"copy of {seed}.wav")
        lines += [{"path": f"{seed}.wav", "offset": part / 100} for part in range(4)]
    (tmp_path / "clips.jsonl").write_text("\n".join(map(json.dumps, lines)))
    excerpts, _ = scan(tmp_path / "clips.jsonl", split=shares)
    (tmp_path / "clips.jsonl").unlink()
    files, _ = scan(tmp_path, split=shares)
    (tmp_path / "0.wav").rename(tmp_path / "renamed.wav")
    renamed, _ = scan(tmp_path, split=shares)
    split_of = dict(zip(files.column("sha256"), files.splits, strict=True))
    assert len(split_of) == 8
    assert set(split_of.values()) == {"train", "test"}
    for manifest in (excerpts, files, renamed):
        assert [split_of[sha256] for sha256 in manifest.column("sha256")] == manifest.splits


def test_adding_a_file_moves_no_other_to_another_split(audio_folder, noise):
    shares = {"train": 0.5, "test": 0.5}
    before, _ = scan(audio_folder, split=shares)
    sf.write(audio_folder / "new.wav", noise(4000, 99), 8000)
    after, _ = scan(audio_folder, split=shares)
    kept = dict(zip(after.column("id"), after.splits, strict=True))
    assert [kept[i] for i in before.column("id")] == before.splits


def test_a_cell_that_is_in_no_column_is_refused(audio_folder, tmp_path):
    table = tmp_path / "clips.csv"
    table.write_text("path,label\na/00.wav,a\na/03.wav,big, old dog\n")
    with pytest.raises(
        ManifestError, match=r"csv, row 2: the header has no column for \[' old dog'"
    ):
        scan(table, root=audio_folder)


def test_splits_from_a_table(audio_folder, tmp_path):
    table = tmp_path / "splits.csv"
    ids = scan(audio_folder)[0].column("id")
    table.write_text("id,split\n" + "".join(f"{i},{'ab'[n % 2]}\n" for n, i in enumerate(ids)))
    assert scan(audio_folder, split=table)[0].splits == ["a", "b"] * 6
    table.write_text("id,split\na/00.wav,a\n")
    with pytest.raises(
        ManifestError, match=r"splits\.csv: no split for 11 clips, first 'a/03.wav'"
    ):
        scan(audio_folder, split=table)
    table.write_text("clip,split\nx,y\n")
    with pytest.raises(ManifestError, match="must have the columns id and split"):
        scan(audio_folder, split=table)


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_a_manifest_survives_export_and_import(audio_folder, suffix):
    manifest, _ = scan(audio_folder, label="parent", split={"train": 0.5, "test": 0.5})
    exported = audio_folder / f"manifest{suffix}"
    write_manifest(manifest, exported)
    again, _ = scan(exported)
    assert again.table.equals(manifest.table)
    assert again.hash == manifest.hash
    assert again.root == audio_folder


def test_a_table_of_excerpts(audio_folder):
    table = audio_folder / "clips.jsonl"
    lines = [
        {"path": "a/00.wav", "offset": 0.1, "duration": 0.1, "label": 3},
        {"path": "a/00.wav", "offset": 0.25},
        {"path": "a/00.wav", "id": "whole", "split": "test"},
    ]
    table.write_text("\n".join(json.dumps(line) for line in lines))
    manifest, _ = scan(table)
    assert manifest.column("id") == ["a/00.wav@0.1+0.1", "a/00.wav@0.25", "whole"]
    assert manifest.column("label") == ["3", None, None]
    np.testing.assert_allclose(manifest.seconds, [0.1, 0.05, 0.3])
    assert len(set(manifest.contents)) == 3


def test_root_of_a_table_can_be_elsewhere(audio_folder, tmp_path):
    table = tmp_path / "clips.csv"
    table.write_text("path\na/00.wav\n")
    assert len(scan(table, root=audio_folder)[0]) == 1


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


def test_links_are_followed_inside_the_root_once_and_refused_outside(audio_folder, tmp_path):
    (audio_folder / "loop").symlink_to(audio_folder)
    (audio_folder / "again").symlink_to(audio_folder / "a")
    manifest, _ = scan(audio_folder)
    assert len(manifest) == 12
    (audio_folder / "out").symlink_to(tmp_path)
    with pytest.raises(ManifestError, match="'out' leads out of the root"):
        scan(audio_folder)


def test_ids_must_be_unique(audio_folder):
    table = audio_folder / "clips.csv"
    table.write_text("path,id\na/00.wav,x\nb/01.wav,x\n")
    with pytest.raises(ManifestError, match=r"the id 'x' is given to 'a/00\.wav' and 'b/01\.wav'"):
        scan(table)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label": "("}, r"--label: '\(' is not a regular expression"),
        ({"label": "x"}, "must be 'parent' or a regular expression with a group"),
        ({"label": "(?P<label>zzz)"}, "does not match the path 'a/00.wav'"),
        ({"split": {"train": 0.5}}, "the shares sum to 0.5; they must not be negative"),
        ({"split": {"train": 1.5, "test": -0.5}}, "must not be negative"),
        ({"split": {"train": float("nan"), "test": 0.1}}, "must not be negative"),
    ],
)
def test_wrong_options_are_refused(audio_folder, options, message):
    with pytest.raises(ManifestError, match=message):
        scan(audio_folder, **options)


def test_nothing_to_scan(tmp_path):
    with pytest.raises(ManifestError, match="no such folder or table"):
        scan(tmp_path / "missing")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(ManifestError, match="no audio found in 1 files"):
        scan(tmp_path)
    with pytest.raises(ManifestError, match=r"neither a folder nor a \.parquet"):
        scan(tmp_path / "notes.txt")
    (tmp_path / "bad.parquet").write_text("x")
    with pytest.raises(ManifestError, match="not a Parquet file"):
        scan(tmp_path / "bad.parquet")
    (tmp_path / "bad.jsonl").write_text("{")
    with pytest.raises(ManifestError, match="not JSON Lines in UTF-8"):
        scan(tmp_path / "bad.jsonl")
    (tmp_path / "list.jsonl").write_text("[1]\n")
    with pytest.raises(ManifestError, match="a line is not a JSON object; every line must"):
        scan(tmp_path / "list.jsonl")
    (tmp_path / "latin.csv").write_bytes("path\n\u00e9.wav\n".encode("latin-1"))
    with pytest.raises(ManifestError, match="not CSV in UTF-8"):
        scan(tmp_path / "latin.csv")


def test_tables_from_spreadsheets_and_odd_strings(audio_folder):
    label = "one\u2028two"  # ends a line for str.splitlines, and not in JSON
    line = json.dumps({"path": "a/00.wav", "label": label}, ensure_ascii=False)
    table = audio_folder / "clips.jsonl"
    table.write_text("\ufeff" + line, encoding="utf-8")
    assert scan(table)[0].column("label") == [label]
    table = audio_folder / "clips.csv"
    table.write_text('\ufeffpath,label\na/00.wav,"a, ""quoted""\nlabel"\n', encoding="utf-8")
    assert scan(table)[0].column("label") == ['a, "quoted"\nlabel']


def test_reading_a_manifest_refuses_what_is_not_one(audio_folder, tmp_path):
    manifest, _ = scan(audio_folder)
    file = audio_folder / "m.parquet"
    write_manifest(manifest, file)
    assert read_manifest(file).table.equals(manifest.table)
    file.write_bytes(b"no")
    with pytest.raises(ManifestError, match="not a Parquet file"):
        read_manifest(file)
    with pytest.raises(ManifestError, match=r"the suffix must be \.parquet, \.csv or \.jsonl"):
        write_manifest(manifest, audio_folder / "m.txt")


def test_contents_of_some_files_or_of_all(audio_folder):
    (audio_folder / "notes.txt").write_text("x")
    manifest, _ = scan(audio_folder)
    every = dict(zip(manifest.column("path"), manifest.column("sha256"), strict=True))
    assert contents(audio_folder) == every
    assert contents(audio_folder, ["b/01.wav", "notes.txt"]) == {"b/01.wav": every["b/01.wav"]}


def test_rows_that_state_all_of_a_file_are_believed_and_no_file_is_opened(audio_folder, tmp_path):
    first, _ = scan(audio_folder)
    write_manifest(first, tmp_path / "m.parquet")
    for file in audio_folder.rglob("*.wav"):
        file.unlink()
    again, skipped = scan(tmp_path / "m.parquet", label="parent")
    assert again.column("label") == [path.split("/")[0] for path in first.column("path")]
    names = [name for name in again.table.column_names if name != "label"]
    assert (again.table.select(names), skipped) == (first.table.select(names), [])
    with pytest.raises(ManifestError, match="is not there"):
        scan(tmp_path / "m.parquet", rehash=True)
    partial = first.table.drop_columns(["codec"])
    pq.write_table(partial, tmp_path / "partial.parquet")
    with pytest.raises(ManifestError, match="is not there"):
        scan(tmp_path / "partial.parquet", root=audio_folder)


@pytest.mark.parametrize(
    ("name", "value"),
    [("sha256", "0F" * 32), ("sample_rate", 0), ("n_samples", -1), ("decoder", "lame")],
)
def test_what_a_table_states_must_be_possible(audio_folder, tmp_path, name, value):
    rows = scan(audio_folder)[0].table.to_pylist()
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
    whole, _ = scan(source, root=audio_folder, label="parent", split=shares)
    assert len(whole) == 27
    monkeypatch.setattr(scan_module, "ROWS_AT_ONCE", 4)
    monkeypatch.setattr(facts_module, "_AT_ONCE", 7)
    again, _ = scan(source, root=audio_folder, label="parent", split=shares)
    assert again.table.equals(whole.table)
    assert again.hash == whole.hash


@pytest.mark.parametrize(
    ("last", "message"),
    [
        ({"path": "../x.wav"}, "leads out of the root"),
        ({"path": None}, "a row has no path"),
        ({"path": "missing.wav"}, "it is not there"),
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


def test_no_row_is_lost_if_they_end_too_early(audio_folder):
    with pytest.raises(ManifestError, match="it changed during the scan"):
        scan(audio_folder, progress=lambda rows, total: itertools.islice(rows, total - 1))


def test_a_text_that_is_not_utf_8_is_refused(audio_folder, tmp_path):
    write_manifest(scan(audio_folder, label="parent")[0], tmp_path / "m.parquet")
    file = tmp_path / "m.parquet"
    table = pq.read_table(file)
    bad = pa.array([b"\xff"] * 12, pa.binary()).view(pa.string())
    index = CLIP_COLUMNS.get_field_index("label")
    pq.write_table(table.set_column(index, "label", bad), file)
    for read in (scan, read_manifest):
        with pytest.raises(ManifestError, match="a text is not UTF-8"):
            read(file)
