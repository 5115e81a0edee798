"""Hostile input: what comes from elsewhere runs no code, writes nowhere else and is refused."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile as sf
import tomli_w

from pipeline.manifest import ManifestError, read_manifest, write_manifest
from pipeline.recipe import Recipe
from pipeline.scan import scan
from pipeline.stages import Source
from pipeline.stages import decode as decode_stage
from pipeline.transform import Transform
from tests.conftest import REPOSITORY, SMALL

EVIL = "<script>alert(1)</script>\x1b[31m\x07\r\n  forged line\u202e[red][link=file:///]x[/]../../é"
ESCAPES = ["../x.wav", "a/../../x.wav", "/etc/hosts", "//etc/hosts", "./../x.wav", "a\0.wav"]
ESCAPES += ["..\\x.wav", "a\\..\\..\\x.wav", "C:\\x.wav", "c:/x.wav", "\\\\host\\x.wav", "/"]
ESCAPES += ["link.wav", "folder/x.wav"]
LINKS = ESCAPES[-2:]


@pytest.fixture
def audio(audio_folder, tmp_path, noise):
    """Twelve clips, and two links to what lies beside their folder."""
    (tmp_path / "outside").mkdir()
    sf.write(tmp_path / "outside" / "x.wav", noise(4000), 8000)
    shutil.copy(tmp_path / "outside" / "x.wav", tmp_path / "x.wav")
    manifest, _ = scan(audio_folder)
    write_manifest(manifest, tmp_path / "good.parquet")
    (audio_folder / "link.wav").symlink_to(tmp_path / "x.wav")
    (audio_folder / "folder").symlink_to(tmp_path / "outside")
    return audio_folder


@pytest.mark.parametrize("path", ESCAPES)
def test_paths_that_leave_the_root_are_refused_everywhere(audio, tmp_path, path):
    table = audio / "clips.jsonl"
    table.write_text(json.dumps({"path": path}))
    with pytest.raises(ManifestError):
        scan(table)
    if "\0" not in path:
        table = audio / "clips.csv"
        table.write_text(f'path\n"{path}"\n')
        with pytest.raises(ManifestError, match="leads out of the root"):
            scan(table, root=audio)
    good = read_manifest(tmp_path / "good.parquet")
    paths = pa.array([path, *good.column("path")[1:]])
    forged = good.table.set_column(1, "path", paths)
    for table in (forged, forged.select(["path"])):
        file = audio / "forged.parquet"
        pq.write_table(table.replace_schema_metadata({"basilar": '{"root": "."}'}), file)
        with pytest.raises(ManifestError):
            scan(file)
        if path not in LINKS:  # reading a manifest follows no links; decoding does
            with pytest.raises(ManifestError):
                read_manifest(file)
    sha256 = good.column("sha256")[0]
    with pytest.raises(ManifestError):
        decode_stage([Source(sha256, path, sha256)], Transform(Recipe.from_dict(SMALL)), root=audio)


@pytest.mark.parametrize(
    ("column", "value"),
    [("sha256", "../../x"), ("sha256", None), ("id", None), ("sample_rate", -1)]
    + [("n_samples", None), ("offset", float("nan")), ("duration", -1.0), ("id", "a/03.wav")],
)
def test_a_manifest_that_no_scan_made(audio, tmp_path, column, value):
    good = read_manifest(tmp_path / "good.parquet")
    values = [value, *good.column(column)[1:]]
    index = good.table.schema.get_field_index(column)
    forged = good.table.set_column(index, good.table.schema.field(index), pa.array(values))
    forged = forged.cast(good.table.schema)
    pq.write_table(forged.replace_schema_metadata({"basilar": '{"root": "."}'}), "x.parquet")
    with pytest.raises(ManifestError, match=f"row 0: {column} = |given twice"):
        read_manifest(Path("x.parquet"))


@pytest.mark.parametrize("root", ["", "{", "[1]", '{"root": 3}', "[" * 10**5])
def test_a_manifest_whose_root_is_none(tmp_path, audio, root):
    table = pq.read_table(tmp_path / "good.parquet").replace_schema_metadata({"basilar": root})
    pq.write_table(table, tmp_path / "x.parquet")
    with pytest.raises(ManifestError, match="record of the root is damaged"):
        read_manifest(tmp_path / "x.parquet")


@pytest.fixture(autouse=True)
def _somewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_names_do_nothing_to_a_terminal_and_name_no_files(audio_folder, basilar, tracker, noise):
    rows = [
        {"path": str(p.relative_to(audio_folder)), "id": f"{EVIL}{i}", "label": EVIL, "split": EVIL}
        for i, p in enumerate(sorted(audio_folder.rglob("*.wav")))
    ]
    (audio_folder / f"bad{EVIL.replace('/', '_')}.wav").write_bytes(b"RIFF broken")
    rows.append({"path": f"bad{EVIL.replace('/', '_')}.wav", "id": f"bad{EVIL}", "split": EVIL})
    table = audio_folder / "clips.jsonl"
    table.write_text("\n".join(map(json.dumps, rows)))
    recipe = {**SMALL, "name": EVIL, "normalization": {"split": EVIL}}
    Path("r.toml").write_text(tomli_w.dumps(recipe))
    other = {**recipe, "representation": {**SMALL["representation"], "top_db": 70.0}}
    Path("s.toml").write_text(tomli_w.dumps(other))
    options = ("--root", "root", "--workers", 1, "--tracking-uri", tracker)
    said = [basilar("scan", table, "-o", "m.parquet")]
    said += [basilar("build", f"{name}.toml", "m.parquet", *options) for name in "rs"]
    assert [code for code, *_ in said] == [0, 0, 0], said
    keys = [path.stem for path in sorted(Path("root/features").glob("*.zarr"))]
    for command in (
        ["ls"],
        ["show", keys[0]],
        ["verify", keys[0]],
        ["why", *keys],
        ["diff", *keys],
    ):
        said.append(basilar(*command, "--root", "root"))
    said.append(basilar("why", "r.toml", "m.parquet"))
    said.append(basilar("recipe", "r.toml"))
    said.append(basilar("bundle", keys[0], "--root", "root", "-o", "bundle", "--clips", 2))
    said.append(basilar("check-bundle", "bundle"))
    shutil.rmtree(audio_folder)
    said.append(basilar("verify", keys[0], "--root", "root", "--sample", 13))
    said.append(basilar("show", EVIL, "--root", "root"))
    said.append(basilar("recipe", EVIL))
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.bundle", "bundle"],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        check=False,
    )
    said.append((done.returncode, done.stdout.decode(), done.stderr.decode()))
    text = "".join(out + err for _, out, err in said)
    assert "Traceback" not in text
    assert all(c.isprintable() or c == "\n" for c in text)
    assert "\n  forged line" not in text
    assert text.count("[red][link=file:///]x[/]") > 12  # shown, not taken for style
    for path in [*Path("root").rglob("*"), *Path("bundle").rglob("*")]:
        assert path.name.isascii(), path


@pytest.mark.parametrize("text", ["x" * 5000, "\ud800"])
def test_text_that_cannot_be_kept(audio_folder, text):
    table = audio_folder / "clips.jsonl"
    for name in ("id", "label", "split", "group"):
        table.write_text(json.dumps({"path": "a/00.wav", name: text}))
        with pytest.raises(ManifestError, match=f"{name} = .* must be UTF-8 text of at most 4096"):
            scan(table)


@pytest.mark.parametrize(("name", "subtype"), [("FLAC", "PCM_16"), ("OGG", "OPUS")])
def test_hours_of_silence_in_little_space_hit_the_limit_in_bounded_memory(tmp_path, name, subtype):
    file = tmp_path / "bomb"
    with sf.SoundFile(file, "w", 48000, 2, format=name, subtype=subtype) as opened:
        for _ in range(100):  # ten minutes, 230 MB as float32
            opened.write(np.zeros((288_000, 2), np.float32))
    assert file.stat().st_size < 3e6
    code = (
        "import resource, sys\n"
        "from pipeline.audio import AudioError, Limits, decode\n"
        "decode('x.wav')\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try: decode('bomb', limits=Limits(max_seconds=20))\n"
        "except AudioError as error: print(error.reason)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    sf.write("x.wav", np.zeros(100), 8000)
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=True,
    )
    reason, kib = done.stdout.split()
    assert reason == "too_long"
    assert int(kib) < 60_000
