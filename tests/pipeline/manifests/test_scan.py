import csv
import itertools
import os
import shutil

import pytest

from basilar.pipeline.errors import ManifestError
from basilar.pipeline.manifests.manifest import Manifest
from basilar.pipeline.manifests.scan import contents, scan


def rows(manifest):
    return manifest.table.to_pylist()


def settle(folder):
    """Make files look as if they had not changed for a minute, as the cache wants them."""
    for file in folder.rglob("*"):
        if file.is_file():
            changed = file.stat().st_mtime - 60
            os.utime(file, (changed, changed))


def test_a_folder_becomes_a_sorted_manifest(audio_folder):
    manifest = scan(audio_folder)
    assert (manifest.not_audio, manifest.ignored_columns, manifest.notes) == ((), (), [])
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
    manifest = scan(audio_folder)
    problems = dict(zip(manifest.column("id"), manifest.column("problem"), strict=True))
    assert problems["no suffix"] is problems["wrong.txt"] is None
    assert problems["broken.wav"]
    assert problems["empty.mp3"]
    assert manifest.not_audio == ("notes.txt",)
    assert repr(manifest) == (
        "Manifest: 16 clips, 0.00 h, 2 cannot be read, 1 files are not audio\n"
        f"  root  {audio_folder}"
    )


def test_a_real_folder(corpora):
    manifest = scan(corpora / "music")
    with (corpora / "music" / "music.csv").open(newline="") as file:
        expected = {row["file"].removeprefix("music/"): row for row in csv.DictReader(file)}
    assert manifest.not_audio == ("music.csv",)
    assert set(manifest.column("path")) == expected.keys()
    for row in rows(manifest):
        assert row["problem"] is None
        assert row["sha256"] == expected[row["path"]]["sha256"]
        assert row["channels"] == int(expected[row["path"]]["channels"])


def test_touch_rename_and_move_change_no_content(audio_folder, tmp_path):
    settle(audio_folder)
    before = scan(audio_folder)
    os.utime(audio_folder / "a" / "00.wav")
    (audio_folder / "b" / "01.wav").rename(audio_folder / "b" / "renamed.wav")
    moved = audio_folder.rename(tmp_path / "moved")
    after = scan(moved)
    assert sorted(before.contents) == sorted(after.contents)
    assert before.hash != after.hash  # an id changed


def test_a_change_of_one_sample_is_seen_though_size_date_and_inode_are_restored(audio_folder):
    settle(audio_folder)
    before = scan(audio_folder)
    file = audio_folder / "a" / "00.wav"
    status = file.stat()
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    with file.open("r+b") as stream:
        stream.write(data)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert file.stat().st_ino == status.st_ino
    restored = scan(audio_folder)
    assert restored.hash != before.hash
    assert scan(audio_folder, rehash=True).hash == restored.hash


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_a_manifest_survives_export_and_import(audio_folder, suffix):
    manifest = scan(audio_folder, label="parent", split={"train": 0.5, "test": 0.5})
    exported = audio_folder / f"manifest{suffix}"
    manifest.write(exported)
    again = scan(exported)
    assert again.table.equals(manifest.table)
    assert again.hash == manifest.hash
    assert again.root == audio_folder


def test_root_of_a_table_can_be_elsewhere(audio_folder, tmp_path):
    table = tmp_path / "clips.csv"
    table.write_text("path\na/00.wav\n")
    assert len(scan(table, root=audio_folder)) == 1


def test_links_are_followed_inside_the_root_once_and_refused_outside(audio_folder, tmp_path):
    (audio_folder / "loop").symlink_to(audio_folder)
    (audio_folder / "again").symlink_to(audio_folder / "a")
    manifest = scan(audio_folder)
    assert len(manifest) == 12
    (audio_folder / "out").symlink_to(tmp_path)
    with pytest.raises(ManifestError, match="'out' leads out of the root"):
        scan(audio_folder)


def test_ids_must_be_unique(audio_folder):
    table = audio_folder / "clips.csv"
    table.write_text("path,id\na/00.wav,x\nb/01.wav,x\n")
    with pytest.raises(ManifestError, match=r"the id 'x' is given to 'a/00\.wav' and 'b/01\.wav'"):
        scan(table)


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


def test_reading_a_manifest_refuses_what_is_not_one(audio_folder, tmp_path):
    manifest = scan(audio_folder)
    file = audio_folder / "m.parquet"
    manifest.write(file)
    assert Manifest.read(file).table.equals(manifest.table)
    file.write_bytes(b"no")
    with pytest.raises(ManifestError, match="not a Parquet file"):
        Manifest.read(file)
    with pytest.raises(ManifestError, match=r"the suffix must be \.parquet, \.csv or \.jsonl"):
        manifest.write(audio_folder / "m.txt")


def test_contents_of_some_files_or_of_all(audio_folder):
    (audio_folder / "notes.txt").write_text("x")
    manifest = scan(audio_folder)
    every = dict(zip(manifest.column("path"), manifest.column("sha256"), strict=True))
    assert contents(audio_folder) == every
    assert contents(audio_folder, ["b/01.wav", "notes.txt"]) == {"b/01.wav": every["b/01.wav"]}


def test_no_row_is_lost_if_they_end_too_early(audio_folder):
    with pytest.raises(ManifestError, match="it changed during the scan"):
        scan(audio_folder, progress=lambda rows, total: itertools.islice(rows, total - 1))
