"""Hostile input: what comes from elsewhere runs no code, writes nowhere else and is refused."""

import ast
import io
import json
import os
import pickle
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile as sf
import tomli_w

from basilar import FeatureSet
from basilar.pipeline.compute.stages import decode as decode_stage
from basilar.pipeline.compute.transform import Transform
from basilar.pipeline.errors import (
    DamagedArtifactError,
    ForeignStoreError,
    ManifestError,
    RecipeError,
)
from basilar.pipeline.manifests.manifest import Manifest
from basilar.pipeline.manifests.scan import scan
from basilar.pipeline.manifests.source import Source
from basilar.pipeline.recipes.recipe import Recipe
from tests import tree
from tests.conftest import REPOSITORY, SMALL
from tests.damage import edit_json, store_of

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
    manifest = scan(audio_folder)
    manifest.write(tmp_path / "good.parquet")
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
    good = Manifest.read(tmp_path / "good.parquet")
    paths = pa.array([path, *good.column("path")[1:]])
    forged = good.table.set_column(1, "path", paths)
    for table in (forged, forged.select(["path"])):
        file = audio / "forged.parquet"
        pq.write_table(table.replace_schema_metadata({"basilar": '{"root": "."}'}), file)
        with pytest.raises(ManifestError):
            scan(file)
        if path not in LINKS:  # reading a manifest follows no links; decoding does
            with pytest.raises(ManifestError):
                Manifest.read(file)
    sha256 = good.column("sha256")[0]
    with pytest.raises(ManifestError):
        decode_stage([Source(sha256, path, sha256)], Transform(Recipe.from_dict(SMALL)), root=audio)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        *(("sha256", "../../x"), ("sha256", None), ("id", None), ("id", "a/03.wav")),
        *(("sample_rate", -1), ("n_samples", None), ("offset", float("nan")), ("duration", -1.0)),
    ],
)
def test_a_manifest_that_no_scan_made(audio, tmp_path, column, value):
    good = Manifest.read(tmp_path / "good.parquet")
    values = [value, *good.column(column)[1:]]
    index = good.table.schema.get_field_index(column)
    forged = good.table.set_column(index, column, pa.array(values))
    forged = forged.cast(good.table.schema)
    pq.write_table(forged.replace_schema_metadata({"basilar": '{"root": "."}'}), "x.parquet")
    with pytest.raises(ManifestError, match=f"row 0: {column} = |have the same id"):
        Manifest.read(Path("x.parquet"))


@pytest.mark.parametrize("root", ["", "{", "[1]", '{"root": 3}', "[" * 10**5])
def test_a_manifest_whose_root_is_none(tmp_path, audio, root):
    table = pq.read_table(tmp_path / "good.parquet").replace_schema_metadata({"basilar": root})
    pq.write_table(table, tmp_path / "x.parquet")
    with pytest.raises(ManifestError, match="record of the root is damaged"):
        Manifest.read(tmp_path / "x.parquet")


@pytest.fixture(autouse=True)
def _somewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.slow
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
        [sys.executable, "-m", "basilar.pipeline.deployment.bundle", "bundle"],
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


def silence(container, codec, form):
    """Ten minutes of it, 230 MB as float32."""
    out = io.BytesIO()
    with av.open(out, "w", format=container) as file:
        stream = file.add_stream(codec, rate=48000, layout="stereo", format=form)
        size = stream.codec_context.frame_size or 4096
        dtype = np.dtype({"s16": "i2", "s16p": "i2", "s32p": "i4", "fltp": "f4"}[form])
        shape = (2, size) if form.endswith("p") else (1, 2 * size)
        frame = av.AudioFrame.from_ndarray(np.zeros(shape, dtype), format=form, layout="stereo")
        frame.sample_rate = 48000
        for i in range(600 * 48000 // size):
            frame.pts = i * size
            file.mux(stream.encode(frame))
        file.mux([packet for packet in stream.encode(None) if packet.size])
    return out.getvalue()


@pytest.mark.parametrize(
    ("container", "codec", "form"),
    [
        ("flac", "flac", "s16"),  # by libsndfile; the others by FFmpeg
        ("ogg", "flac", "s16"),
        ("ipod", "alac", "s16p"),
        ("wv", "wavpack", "s16p"),
    ],
)
def test_hours_of_silence_in_little_space_hit_the_limit_in_bounded_memory(
    tmp_path, container, codec, form
):
    file = tmp_path / "bomb"
    file.write_bytes(silence(container, codec, form))
    assert file.stat().st_size < 3e6
    code = (
        "import resource, sys\n"
        "from basilar.pipeline.audio import AudioError, Limits, decode\n"
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


def tables():
    """Recipes that ask for more than a machine has, and what refuses them."""
    for value in (2**40, -1, float("nan"), float("inf"), "512", True, 10**4000):
        yield {"kind": "mel", "n_fft": value}, "n_fft"
    yield {"kind": "mel", "hop_length": -1}, "hop_length"
    yield {"kind": "mel", "n_mels": 10**6}, "n_mels"
    yield {"kind": "mel", "n_fft": 512, "win_length": 513}, "win_length"
    yield {"kind": "mel", "fmin": 8000.0, "fmax": 100.0}, "fmin"
    yield {"kind": "mel", "fmin": 100.0, "fmax": 100.0000001}, "fmin"
    yield {"kind": "mel", "n_fft": 131_072, "n_mels": 4096}, "weights"
    yield {"kind": "stft", "n_fft": 131_072, "hop_length": 1}, "values"
    yield {"kind": "spectral", "n_fft": 131_072, "hop_length": 1}, "values"
    yield {"kind": "mfcc", "n_fft": 16, "n_mels": 4096, "hop_length": 1}, "values"
    yield {"kind": "chroma", "n_fft": 131_072, "n_chroma": 1024}, "weights"
    yield {"kind": "log_mel", "top_db": float("nan")}, "top_db"
    yield {"kind": "cqt", "n_bins": 4096, "bins_per_octave": 1}, "highest band"
    yield {"kind": "cqt", "bins_per_octave": 10**9}, "bins_per_octave"
    yield {"kind": "cqt", "fmin": 0.001}, "a filter of"
    yield {"kind": "cqt", "n_bins": 4096, "bins_per_octave": 1200, "fmin": 500.0,
           "gamma": 5000.0, "hop_length": 509}, "representation"  # fmt: skip
    yield {"kind": "chroma_cqt", "bins_per_octave": 13}, "multiple of n_chroma"


@pytest.mark.parametrize(("kind", "message"), list(tables()), ids=lambda x: str(x)[:60])
def test_recipes_that_ask_for_too_much_are_refused_at_once(kind, message, tmp_path):
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(RecipeError, match=message) as refused:
        Recipe.from_dict({"representation": kind}, source="my.toml")
    assert str(refused.value).startswith("my.toml: ")
    assert len(str(refused.value)) < 1000
    assert time.perf_counter() - started < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000


@pytest.mark.parametrize(
    "text",
    [
        "x" * 2**21,
        "a = " + "[" * 100_000,
        "a." * 5000 + "b = 1\n[representation]\nkind = 'mel'",
        "n = " + "9" * 100_000,
        "[store]\nchunk_kib = 1125899906842624\n[representation]\nkind = 'mel'",
        "[store]\nchunk_kib = 1\nshard_mib = 4096\n[representation]\nkind = 'mel'",
        "name = '" + "x" * 1000 + "'\n[representation]\nkind = 'mel'",
        "\n".join(f"k{i} = 1" for i in range(10_000)) + "\n[representation]\nkind = 'mel'",
    ],
    ids=range(8),
)
def test_files_that_are_no_recipes(text, basilar):
    Path("r.toml").write_text(text)
    code, _, err = basilar("recipe", "r.toml")
    assert code == 2
    assert err.startswith("error: ")
    assert "\nwhere: r.toml" in err
    assert len(err) < 10_000


@pytest.mark.slow
@pytest.mark.parametrize("value", [None, [], {}, "x\x1b", -1, 2**70, 1e308, "../../../x", "gone"])
def test_attributes_that_are_anything(root, basilar, value):
    store = store_of(root)
    file = store / "zarr.json"
    whole = json.loads(file.read_text())
    for name in whole["attributes"]["basilar"]:
        forged = json.loads(json.dumps(whole))
        forged["attributes"]["basilar"][name] = value
        if value == "gone":
            del forged["attributes"]["basilar"][name]
        file.unlink()
        file.write_text(json.dumps(forged))
        for command in (["ls"], ["show", store.stem]):
            code, out, err = basilar(*command, "--root", root)
            assert code in (0, 1)
            assert "\x1b" not in out + err
        try:
            fs = FeatureSet.open(store)
            assert fs.normalize(fs[0]).size
        except (DamagedArtifactError, ForeignStoreError):
            pass


def _object_codec(store):
    shutil.rmtree(store / "features")
    (store / "features" / "0.0").parent.mkdir()
    (store / "features" / "0.0").write_bytes(pickle.dumps(1))
    metadata = {"zarr_format": 2, "shape": [1, 1], "chunks": [1, 1], "dtype": "|O", "order": "C"}
    metadata |= {"compressor": None, "fill_value": None, "filters": [{"id": "pickle"}]}
    (store / "features" / ".zarray").write_text(json.dumps(metadata))


def _edits(file, **values):
    return lambda store: edit_json(store / file, lambda found: found.update(values))


FORGED = {
    "pickle in zarr 2": _object_codec,
    "unknown codec": _edits("features/zarr.json", codecs=[{"name": "numcodecs.pickle"}]),
    "objects": _edits("features/zarr.json", data_type="object"),
    "huge shape": _edits("features/zarr.json", shape=[2**45, 8]),
    "wide shape": _edits("features/zarr.json", shape=[2048, 2**45]),
    "huge table": _edits("n_frames/zarr.json", shape=[2**45]),
    "no shape": _edits("n_frames/zarr.json", shape=None),
    "deep": lambda store: (store / "zarr.json").write_text("[" * 10**6),
    "frames": lambda store: _fill(store / "n_frames", 2**40),
    "starts": lambda store: _fill(store / "start", -5),
    "pipe": lambda store: _pipe(store / "features" / "c" / "0" / "0"),
}


def _fill(folder, value):
    file = folder / "c" / "0"
    values = np.full(file.stat().st_size // 8, value, "<i8")
    file.unlink()
    file.write_bytes(values.tobytes())


def _pipe(file):
    file.unlink()
    os.mkfifo(file)


@pytest.mark.filterwarnings("ignore:.*is read through zarr-python")
@pytest.mark.parametrize("name", FORGED)
def test_forged_stores_are_refused(root, name, monkeypatch):
    store = store_of(root)
    FORGED[name](store)
    monkeypatch.setattr(pickle, "loads", lambda *_: pytest.fail("unpickled"))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises((DamagedArtifactError, FileNotFoundError)):
        FeatureSet.open(store)[0]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000


def test_a_link_out_of_a_store_is_a_problem_whatever_lies_there(root, basilar, tmp_path):
    store = store_of(root)
    (store / "clips.parquet").rename(tmp_path / "clips.parquet")
    (store / "clips.parquet").symlink_to(tmp_path / "clips.parquet")
    code, out, _ = basilar("verify", store.stem, "--root", root)
    assert code == 1
    assert "clips.parquet: is a link or a device" in out


def test_names_that_lead_out_of_a_store_are_a_problem(root, basilar):
    store = store_of(root)
    edit_json(store / "files.json", lambda found: found["files"].update({"../../x": [1, 1]}))
    code, out, _ = basilar("verify", store.stem, "--root", root)
    assert code == 1
    assert "files.json: damaged" in out


def test_nothing_runs_or_unpickles_what_it_reads():
    """By name: in no module, not even inside a function."""
    modules = {"pickle", "dill", "joblib", "cloudpickle", "marshal", "shelve", "yaml"}
    for file in tree.modules():
        assert not tree.roots(tree.imports(file)) & modules, file
        for node in ast.walk(tree.parsed(file)):
            if isinstance(node, ast.Call):
                assert getattr(node.func, "id", "") not in ("eval", "exec"), file
                given = {k.arg: ast.unparse(k.value) for k in node.keywords}
                assert given.get("shell", "False") == "False", file
                assert given.get("allow_pickle", "False") == "False", file
                if ast.unparse(node.func) == "np.load":
                    assert "allow_pickle" in given, file


@pytest.mark.slow
def test_no_pickle_is_loaded_from_scan_to_reproduction(audio_folder, basilar, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("something is unpickled")

    class Refused(pickle.Unpickler):
        def __init__(self, *_, **__):
            refuse()

    for name in ("load", "loads"):
        monkeypatch.setattr(pickle, name, refuse)
    monkeypatch.setattr(pickle, "Unpickler", Refused)
    Path("r.toml").write_text(tomli_w.dumps(SMALL))
    assert basilar("scan", audio_folder, "-o", "m.parquet")[0] == 0
    options = ("--root", "root", "--workers", 1)
    assert basilar("build", "r.toml", "m.parquet", *options)[0] == 0
    key = store_of(Path("root")).stem
    assert FeatureSet.open(store_of(Path("root"))).pooled("mean").size
    assert basilar("bundle", key, "--root", "root", "-o", "bundle")[0] == 0
    assert basilar("check-bundle", "bundle")[0] == 0
    assert basilar("verify", key, *options)[0] == 0
    assert basilar("reproduce", key, *options)[0] == 0
