import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import soundfile as sf

from basilar import FeatureSet
from basilar.pipeline import audio
from basilar.pipeline.manifests.manifest import Manifest
from basilar.pipeline.recipes.recipe import Recipe
from tests.conftest import REPOSITORY

LOG_MEL = str(REPOSITORY / "params" / "log_mel.toml")
pytestmark = pytest.mark.usefixtures("elsewhere")


def test_scan(basilar, as_json, audio_folder):
    (audio_folder / "notes.txt").write_text("x")
    (audio_folder / "broken.wav").write_bytes(b"RIFF broken")
    code, out, _ = basilar("scan", audio_folder, "-o", "m.parquet", "--label", "parent")
    assert code == 0
    assert "m.parquet: 13 clips, 0.00 h, 1 files are not audio, 1 cannot be read" in out
    code, result = as_json(
        "scan", audio_folder, "-o", "n.parquet", "--split", "train=0.5,test=0.5", "--rehash"
    )
    assert code == 0
    assert result["clips"] == 13
    assert result["not_audio"] == ["notes.txt"]
    (unreadable,) = result["unreadable"]
    assert unreadable.startswith("broken.wav: ")
    manifest = Manifest.read(audio_folder.parent / "n.parquet")
    assert result["manifest_hash"] == manifest.hash
    assert set(manifest.splits) == {"train", "test"}


def test_scan_converts(basilar, audio_folder, tmp_path):
    basilar("scan", audio_folder, "-o", "m.parquet", "--label", "parent")
    assert basilar("scan", "m.parquet", "-o", "m.csv")[0] == 0
    assert basilar("scan", "m.csv", "--root", audio_folder, "-o", "again.parquet")[0] == 0
    one, two = (Manifest.read(tmp_path / name) for name in ("m.parquet", "again.parquet"))
    assert one.table.equals(two.table)


def test_columns_that_are_ignored_are_named_and_not_overwritten(basilar, as_json, audio_folder):
    table = audio_folder.parent / "own.csv"
    table.write_text("path,Split,speaker\na/00.wav,test,jo\nb/01.wav,test,jo\n")
    scanned = ("scan", table, "--root", audio_folder, "-o")
    code, out, _ = basilar(*scanned, "m.parquet")
    assert code == 0
    assert "  column ignored: Split; did you mean split?\n  column ignored: speaker\n" in out
    _, result = as_json(*scanned, "m.parquet")
    assert (result["ignored_columns"], result["not_audio"]) == (["Split", "speaker"], [])
    before = table.read_text()
    code, _, err = basilar(*scanned, "own.csv")
    assert code == 2
    assert "would lose its columns Split, speaker" in err
    assert table.read_text() == before
    planned = basilar(
        "build", LOG_MEL, table, "--audio-root", audio_folder, "--root", "r", "--dry-run"
    )
    assert planned[0] == 0
    assert "note: column ignored: Split; did you mean split?" in planned[2]
    table.write_text("path,split\na/00.wav,test\n")
    assert as_json(*scanned, "own.csv")[1]["ignored_columns"] == []
    assert table.read_text().startswith("id,path,sha256")


def test_recipe_is_printed_resolved_with_its_hash(basilar, as_json, tmp_path):
    code, out, _ = basilar("recipe", LOG_MEL)
    assert code == 0
    (tmp_path / "again.toml").write_text(out)
    assert Recipe.load(tmp_path / "again.toml") == Recipe.load(LOG_MEL)
    code, result = as_json("recipe", LOG_MEL)
    assert f"# normalization {result['recipe_hash']}" in out
    assert result["recipe"]["representation"]["win_length"] == 2048
    assert "always empty" not in out
    assert "small for n_mels: bands 0, 3, 6, 13\n" in basilar("recipe", "torchaudio_mel")[1]


def test_recipe_upgrade(basilar, as_json, tmp_path):
    (tmp_path / "r.toml").write_text('[representation]\nkind = "mel" # bands\n')
    code, out, _ = basilar("recipe", "r.toml", "--upgrade")
    assert code == 0
    assert out == 'schema_version = 1\n[representation]\nkind = "mel" # bands\n'
    assert as_json("recipe", "r.toml", "--upgrade") == (0, {"toml": out})


def test_recipe_schema(basilar, as_json):
    code, out, _ = basilar("recipe", "--schema")
    schema = json.loads(out)
    assert as_json("recipe", "--schema") == (0, schema)
    assert code == 0
    assert "representation" in schema["properties"]
    assert schema["$defs"]["LogMel"]["properties"]["n_mels"]["maximum"] == 4096


def test_build_then_cached_then_listed_and_shown(basilar, as_json, audio_folder):
    code, planned = as_json("build", LOG_MEL, audio_folder, "--root", "root", "--dry-run")
    assert code == 0
    assert planned["published"] is False
    assert planned["stages"]["decode"] == {"cached": 0, "compute": 1, "bytes": 0}
    assert planned["disk_bytes"] > 0
    code, built = as_json("build", LOG_MEL, audio_folder, "--root", "root", "--workers", 1)
    assert code == 0
    assert list(built) == [
        *("key", "path", "digest", "recipe_hash", "manifest_hash", "clips", "quarantined"),
        *("outcome", "shards_computed", "shards_cached", "stages", "seconds", "mlflow_run_id"),
    ]
    assert (built["outcome"], built["shards_computed"], built["shards_cached"]) == ("built", 1, 0)
    assert built["key"] == planned["key"]
    fs = FeatureSet.open(built["path"])
    assert (built["clips"], built["digest"]) == (len(fs), fs.digest)
    code, cached = as_json("build", LOG_MEL, audio_folder, "--root", "root")
    assert (cached["shards_computed"], cached["shards_cached"]) == (0, 1)
    assert cached["mlflow_run_id"] == built["mlflow_run_id"] is not None
    code, out, _ = basilar("build", LOG_MEL, audio_folder, "--root", "root")
    assert out.startswith(f"cached {built['key']}")
    code, planned = as_json("build", LOG_MEL, audio_folder, "--root", "root", "--dry-run")
    assert planned["published"] is True
    assert planned["disk_bytes"] == 0
    code, listed = as_json("ls", "--root", "root")
    assert [entry["key"] for entry in listed["feature_sets"]] == [built["key"]]
    assert built["key"][:12] in basilar("ls", "--root", "root")[1]
    code, shown = as_json("show", built["key"][:5], "--root", "root")
    assert shown["digest"] == built["digest"]
    code, out, _ = basilar("show", built["key"], "--root", "root")
    assert f"digest         {built['digest']}" in out
    assert 'kind = "log_mel"' in out


def test_the_plan_is_what_is_then_done(as_json, audio_folder):
    arguments = ["build", LOG_MEL, audio_folder, "--root", "root", "--shard-seconds", 1]
    _, planned = as_json(*arguments, "--dry-run")
    _, built = as_json(*arguments)
    for stage, counts in planned["stages"].items():
        assert built["stages"][stage]["computed"] == counts["compute"] == planned["shards"]


def test_a_published_set_in_another_layout_is_said_so(basilar, audio_folder, tmp_path):
    basilar("build", LOG_MEL, audio_folder, "--root", "root")
    compact = (REPOSITORY / "params" / "log_mel.toml").read_text()
    (tmp_path / "compact.toml").write_text(compact.replace('codec = "none"', 'codec = "compact"'))
    code, _, err = basilar("build", "compact.toml", audio_folder, "--root", "root")
    assert code == 0
    assert "the values are the same" in " ".join(err.split())


def test_audio_that_moved(basilar, as_json, audio_folder, tmp_path):
    basilar("scan", audio_folder, "-o", "m.parquet")
    audio_folder.rename(tmp_path / "moved")
    code, _, err = basilar("build", LOG_MEL, "m.parquet", "--root", "root", "--workers", 1)
    assert code == 1
    assert "to do: mount it, or name where the audio is now with --audio-root\n" in err
    code, built = as_json("build", LOG_MEL, "m.parquet", "--root", "root", "--audio-root", "moved")
    assert code == 0
    assert built["clips"] == 12


def test_a_failed_build_exits_with_one(as_json, basilar, audio_folder):
    for i in range(3):
        (audio_folder / f"broken{i}.wav").write_bytes(b"RIFF broken" + bytes([i]))
    arguments = ("build", LOG_MEL, audio_folder, "--root", "root", "--workers", 2)
    code, out, _err = basilar(*arguments)
    assert (code, out) == (1, "")
    code, said = as_json(*arguments)
    assert code == 1
    assert said["failures"] == [said["error"]]
    assert said["error"].startswith(f"{Path('root').absolute()}: 3 of 15 clips cannot be used, 1 ")
    assert said["error"].count("\n  broken") == 3
    assert basilar("ls", "--root", "root")[1] == "no feature sets\n"
    code, out, _ = basilar("show", "ff", "--root", "root", "--json")
    assert code == 2
    assert "no feature set" in json.loads(out)["error"]
    code, out, _ = basilar(*arguments, "--max-bad", "0.5")
    assert (code, out.split()[0]) == (0, "published")
    code, found = as_json(*arguments)
    assert (code, found["outcome"]) == (0, "cached")
    shutil.rmtree(found["path"])
    code, found = as_json(*arguments, "--max-bad", "0.5")
    assert (code, found["outcome"], found["shards_computed"]) == (0, "published", 0)


@pytest.mark.slow
def test_a_clip_that_takes_too_long(as_json, audio_folder, monkeypatch):
    original = audio.decode_blocks

    def decode(path, **options):
        if path.name == "05.wav":
            time.sleep(3600)
        return original(path, **options)

    monkeypatch.setattr(audio, "decode_blocks", decode)
    arguments = ("build", LOG_MEL, audio_folder, "--root", "root", "--workers", 1)
    code, built = as_json(*arguments, "--clip-timeout", 1)
    assert (code, built["clips"], built["quarantined"]) == (0, 11, 1)
    _, shown = as_json("show", built["key"], "--root", "root")
    (lost,) = shown["quarantine"]
    assert (lost["id"], lost["reason"]) == ("c/05.wav", "timeout")


def test_a_prefix_must_name_one_set(basilar, as_json, audio_folder, tmp_path, noise):
    as_json("build", LOG_MEL, audio_folder, "--root", "root")
    sf.write(audio_folder / "more.wav", noise(4000, 77), 8000)
    as_json("build", LOG_MEL, audio_folder, "--root", "root")
    code, _, err = basilar("show", "", "--root", "root")
    assert code == 2
    assert "several feature sets" in err


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_build_that_is_stopped_by_the_keyboard_says_what_is_kept(as_json, audio_folder, workers):
    """Like a terminal, it interrupts every process of the build."""
    arguments = ["build", LOG_MEL, audio_folder, "--root", "root", "--shard-seconds", "0.3"]
    command = "from basilar.pipeline.cli import main; main()"
    with subprocess.Popen(
        [sys.executable, "-c", command, *arguments, "--workers", str(workers)],
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
    ) as process:
        made = Path("root/artifacts/representation")
        while not (made.exists() and list(made.glob("[!.]*"))):
            assert process.poll() is None
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert re.fullmatch(r"stopped: \d+ of \d+ shards are made and kept; .*\n", said)
    deadline = time.monotonic() + 10
    with contextlib.suppress(ProcessLookupError):  # there is none left
        while os.killpg(process.pid, 0) is None:
            assert time.monotonic() < deadline, "a process of the build is still there"
            time.sleep(0.01)
    assert not list(Path("root/running").glob("*"))
    _, planned = as_json(*arguments, "--dry-run")
    assert planned["stages"]["representation"]["cached"] > 0
