import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import venv
from dataclasses import replace

import numpy as np
import pytest
import soundfile as sf

from basilar import Bundle
from basilar.dsp import framing
from basilar.pipeline import audio
from basilar.pipeline.audio import decoding
from basilar.pipeline.compute import stages
from basilar.pipeline.compute.transform import Transform
from basilar.pipeline.deployment import bundle
from basilar.pipeline.deployment.export import write_bundle
from basilar.pipeline.errors import BundleError, CanaryError
from basilar.pipeline.manifests.source import Source
from tests.conftest import REPOSITORY
from tests.pipeline.compute.test_canary import an_ulp_more, changing, clear_caches, one_weight
from tests.pipeline.deployment.test_export import STANDARD, make_set
from tests.pipeline.store.test_publish import LOG_MEL

BARE = ("numpy", "soxr", "soundfile", "av", "pydantic")
ABSENT = ("tomli_w", "zarr", "pandas", "pyarrow", "luigi", "filelock", "google_crc32c", "typer")
RECIPES = {
    "log_mel": (LOG_MEL, STANDARD),
    "half": ({**LOG_MEL, "dtype": "float16"}, {"kind": "robust", "split": "all"}),
    "stft": ({"kind": "stft", "n_fft": 256, "hop_length": 64}, {"kind": "none", "split": "all"}),
    "cqt": ({"kind": "log_cqt", "n_bins": 48}, {"kind": "min_max", "per": "global"}),
}


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Four clips of noise, in four formats."""
    folder = tmp_path_factory.mktemp("clips")
    for i, name in enumerate(("a.wav", "b.flac", "c.mp3", "d.ogg")):
        y = 0.1 * np.random.default_rng(i).standard_normal(9000 + 1000 * i)
        sf.write(folder / name, y, 16000 if i else 8000)
    return folder


@pytest.fixture(scope="module")
def made(clips, tmp_path_factory):
    """By the name of a recipe: its feature set, and its bundle."""
    folder = tmp_path_factory.mktemp("bundles")
    found = {}
    for name, (representation, normalization) in RECIPES.items():
        fs, manifest = make_set(folder / f"set {name}", clips, representation, normalization)
        write_bundle(folder / name, fs, manifest=manifest, clips=1)
        found[name] = fs, folder / name
    return found


@pytest.fixture
def copy(made, tmp_path):
    """A bundle to damage."""
    return shutil.copytree(made["log_mel"][1], tmp_path / "copy")


@pytest.fixture
def forge(copy):
    """Change a bundle and make its checksums fit, as somebody who means harm can."""

    def change(edit=None, **files):
        file = copy / "bundle.json"
        index = json.loads(file.read_bytes())
        del index["sha256"]
        for name, data in files.items():
            name = name.replace("__", "/").replace("_npy", ".npy")
            (copy / name).write_bytes(data)
            sha256 = hashlib.sha256(data).hexdigest()
            index["files"][name] = {"bytes": len(data), "sha256": sha256}
        if edit:
            edit(index)
        index["sha256"] = hashlib.sha256(bundle.encode_index(index)).hexdigest()
        file.write_bytes(bundle.encode_index(index))
        return copy

    return change


def npy(array, **options):
    out = io.BytesIO()
    np.save(out, array, **options)
    return out.getvalue()


@pytest.mark.parametrize("name", RECIPES)
def test_a_bundle_computes_what_training_reads(made, clips, name):
    fs, folder = made[name]
    loaded = Bundle.load(folder)
    assert (loaded.key, loaded.labels, loaded.sample_rate) == (fs.key, fs.labels, 16000)
    for clip in fs.clips["id"]:
        expected = fs.normalize(fs[clip])
        features = loaded.transform_file(clips / clip)
        assert features.dtype == expected.dtype
        assert features.tobytes() == expected.tobytes()
        y, rate = audio.decode(clips / clip)
        assert loaded.transform(y, sample_rate=rate).tobytes() == expected.tobytes()
    assert all(golden == (golden.name, "identical", 0.0) for golden in loaded.check())


def test_excerpts(made, clips):
    loaded = Bundle.load(made["log_mel"][1])
    y, rate = audio.decode(clips / "b.flac", offset=0.1, duration=0.25)
    features = loaded.transform_file(clips / "b.flac", offset=0.1, duration=0.25)
    assert features.tobytes() == loaded.transform(y, sample_rate=rate).tobytes()


@pytest.mark.parametrize(
    "name",
    [
        *("pyminiaudio__music.mp3", "pyminiaudio__music.m4a"),
        *("audiofile__gs-16b-1c-16000hz.opus", "audiofile__gs-16b-1c-44100hz.aac"),
    ],
)
def test_priming_is_the_same_by_every_route(made, corpora, name):
    fs, folder = made["log_mel"]
    path = corpora / "music" / name
    transform = Transform(fs.typed_recipe)
    y, rate = audio.decode(path)
    source = Source("x", name, hashlib.sha256(path.read_bytes()).hexdigest())
    pieces = [
        replace(source, duration=5001 / rate),
        replace(source, offset=5001 / rate),
    ]
    decoded = stages.decode([source, *pieces], transform, root=path.parent)
    assert decoded.signals[0].tobytes() == y.tobytes()
    assert np.concatenate(decoded.signals[1:]).tobytes() == y.tobytes()
    features = []
    stages.represent(stages.resample(decoded, transform), transform, features.append)
    made_of_it = features[0]
    assert transform.apply_file(path).tobytes() == made_of_it.tobytes()
    served = Bundle.load(folder).transform_file(path)
    assert served.tobytes() == fs.normalize(made_of_it).tobytes()


def test_a_stream_gives_the_bits_of_the_whole(made, clips):
    loaded = Bundle.load(made["log_mel"][1])
    y, rate = audio.decode(clips / "a.wav")
    stream, rng = loaded.stream(rate), np.random.default_rng(1)
    pieces = np.split(y, np.sort(rng.integers(0, y.size, 7)))
    parts = [*(stream.push(piece) for piece in pieces), stream.finish()]
    assert np.concatenate(parts).tobytes() == loaded.transform(y, sample_rate=rate).tobytes()


@pytest.mark.parametrize("name", ["log_mel", "cqt"])
def test_one_byte_of_any_file_changed_is_found_and_named(made, tmp_path, name):
    copy = shutil.copytree(made[name][1], tmp_path / "copy")
    files = sorted(path for path in copy.rglob("*") if path.is_file())
    assert len(files) == 14  # all kinds of files there are in a bundle
    for file in files:
        data = file.read_bytes()
        for place in {0, len(data) // 2, len(data) - 1}:
            file.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
            with pytest.raises(BundleError, match=f"{file.relative_to(copy).as_posix()}"):
                Bundle.load(copy)
        file.write_bytes(data)
    assert Bundle.load(copy).key


def test_any_byte_of_the_index_counts(copy):
    file = copy / "bundle.json"
    data = file.read_bytes()
    for place in range(0, len(data), 41):
        file.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        with pytest.raises(BundleError, match=r"bundle\.json: damaged"):
            Bundle.load(copy)
    file.write_bytes(data.replace(b"\n ", b"\n  ", 1))
    with pytest.raises(BundleError, match="its checksum does not match"):
        Bundle.load(copy)


def test_a_missing_file_and_all_that_are_damaged_are_named(copy):
    (copy / "README.md").unlink()
    (copy / "scale.npy").write_bytes(b"")
    with pytest.raises(BundleError, match=r"damaged or missing: README\.md, scale\.npy; make it"):
        Bundle.load(copy)
    with pytest.raises(FileNotFoundError, match="no bundle here; basilar bundle KEY makes one"):
        Bundle.load(copy / "golden")


@pytest.mark.parametrize(
    "name", ["../secret", "/etc/passwd", "golden/../../x", "golden/", "..", ""]
)
def test_names_that_lead_elsewhere_are_refused(forge, name):
    def edit(index):
        index["files"][name] = {"bytes": 1, "sha256": "0"}

    with pytest.raises(BundleError, match="String should"):
        Bundle.load(forge(edit))


def test_a_link_that_leads_elsewhere_is_refused(copy, tmp_path):
    secret = tmp_path / "secret"
    (copy / "README.md").rename(secret)
    (copy / "README.md").symlink_to(secret)
    with pytest.raises(BundleError, match=r"damaged or missing: README\.md"):
        Bundle.load(copy)


class Trap:
    def __reduce__(self):
        return exec, ("raise SystemExit('unpickled')",)


def test_nothing_is_unpickled(forge):
    trap = npy(np.array([Trap()], object), allow_pickle=True)
    with pytest.raises(BundleError, match=r"centre\.npy: not an array"):
        Bundle.load(forge(centre_npy=trap))


def test_headers_that_claim_more_than_there_is(forge):
    data = npy(np.zeros(40, np.float32)).replace(b"(40,), }         ", b"(40000000000,), }")
    assert b"40000000000" in data
    with pytest.raises(BundleError, match=r"centre\.npy: not an array \(mmap length"):
        Bundle.load(forge(centre_npy=data))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros(41, np.float32), r"centre\.npy and scale\.npy must hold 40 values"),
        (np.zeros((2, 2, 2), np.float32), r"is neither signal nor features"),
        (np.zeros(40, np.int32), r"int32 \(40,\) is neither signal nor features"),
    ],
)
def test_arrays_of_another_form(forge, array, message):
    with pytest.raises(BundleError, match=message):
        Bundle.load(forge(centre_npy=npy(array)))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda i: i.update(schema_version=2), "schema_version: Input should be 1"),
        (lambda i: i.update(code="import os"), "code: Extra inputs are not permitted"),
        (lambda i: i.pop("labels"), "labels: Field required"),
        (lambda i: i["files"].pop("centre.npy"), r"has no checksum of centre\.npy"),
        (lambda i: i["vectors"][0].update(audio="x.npy"), r"has no checksum of x\.npy"),
        (lambda i: i["vectors"].clear(), "vectors: List should have at least 1 item"),
        (
            lambda i: i["files"]["README.md"].update(bytes=1 << 40),
            "less than or equal to 1073741824",
        ),
        (lambda i: i["recipe"]["representation"].update(n_mel=3), "n_mel is not a key; did you"),
        (
            lambda i: i["op_versions"].update(representation=1),
            r"made with the op versions .*'representation': 1.* install basilar 0",
        ),
    ],
)
def test_an_index_that_says_something_else(forge, edit, message):
    with pytest.raises(BundleError, match=message):
        Bundle.load(forge(edit))


@pytest.mark.parametrize(
    "data", [b"[" * 100_000, b"[1]", b"7", b"\xff", b"", b" " * (1 << 24) + b"{}"]
)
def test_an_index_that_is_none(copy, data):
    (copy / "bundle.json").write_bytes(data)
    with pytest.raises(BundleError, match=r"bundle\.json: damaged"):
        Bundle.load(copy)


def test_golden_vectors_that_moved_are_found(forge, copy, capsys):
    file = copy / "golden" / "canary.flac.features.npy"
    features = np.load(file, allow_pickle=False)
    features[3, 5] += 0.25
    loaded = Bundle.load(forge(**{"golden__canary.flac.features_npy": npy(features)}))
    moved = [golden for golden in loaded.check() if not golden.identical]
    assert [(golden.name, golden.difference) for golden in moved] == [
        ("canary as a file", pytest.approx(0.25, rel=1e-5))
    ]
    assert bundle.main([str(copy)]) == 1
    assert "canary as a file               MOVED, by up to 0.25" in capsys.readouterr().out
    Bundle.load(forge(**{"golden__canary.flac.features_npy": npy(features[:-1])}))
    assert bundle.main([str(copy)]) == 1


def test_loading_computes_a_golden_vector_of_the_very_recipe(forge, copy):
    file = copy / "golden" / "canary_44100.npy.features.npy"
    features = np.load(file, allow_pickle=False) * 1.01
    with pytest.raises(CanaryError, match="canary at 44100 Hz: it computes other numbers than wh"):
        Bundle.load(forge(**{"golden__canary_44100.npy.features_npy": npy(features)}))


def test_an_installation_that_computes_something_else_is_refused(made, monkeypatch, capsys):
    folder = made["log_mel"][1]
    original = framing.window
    clear_caches()
    monkeypatch.setattr(framing, "window", changing(original, one_weight))
    with pytest.raises(CanaryError, match="representation log_mel: it computes other numbers"):
        Bundle.load(folder)
    assert bundle.main([str(folder)]) == 1
    assert "error: representation log_mel: it computes" in capsys.readouterr().err
    clear_caches()
    monkeypatch.setattr(framing, "window", changing(original, an_ulp_more))
    moved = Bundle.load(folder).check()
    assert not any(golden.identical for golden in moved)
    assert all(0 < golden.difference < 1e-3 for golden in moved)
    clear_caches()


def test_a_decoder_that_computes_something_else_is_refused(made, monkeypatch, clips):
    loaded = Bundle.load(made["log_mel"][1])
    clear_caches()
    monkeypatch.setattr(decoding, "_mix", lambda block, _, *, out: np.copyto(out, block[:, -1]))
    with pytest.raises(CanaryError, match="decode wav"):
        loaded.transform_file(clips / "d.ogg")
    clear_caches()


def test_checking_without_the_command(made, capsys):
    fs, folder = made["log_mel"]
    assert bundle.main([str(folder)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"{folder}: the bundle of {fs.key}"
    assert said[1] == "  canary at 44100 Hz             identical"
    assert len(said) == 6
    assert bundle.main([]) == 2
    assert bundle.main([str(folder / "nowhere")]) == 1


@pytest.fixture(scope="session")
def bare(tmp_path_factory):
    """The Python of an environment that holds what a bundle needs, and nothing else."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
    constraints = ["--disable-pip-version-check", "-c", str(REPOSITORY / "constraints.txt")]
    subprocess.run([*pip, *constraints, *BARE], check=True)
    return python


@pytest.mark.torture
def test_a_bare_environment_computes_the_same_bits(bare, made, clips, tmp_path):
    code = """
import hashlib, importlib.util, json, sys
from basilar import Bundle
absent, clips, *folders = json.loads(sys.argv[1])
found = {"absent": [name for name in absent if importlib.util.find_spec(name) is None]}
for folder in folders:
    bundle = Bundle.load(folder)
    assert all(golden.identical for golden in bundle.check())
    features = [bundle.transform_file(file).tobytes() for file in clips]
    found[bundle.key] = [hashlib.sha256(data).hexdigest() for data in features]
print(json.dumps(found))
"""
    environment = {"PYTHONPATH": str(REPOSITORY), "PATH": os.environ["PATH"]}

    def run(*arguments):
        done = subprocess.run(
            [bare, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    files = sorted(map(str, clips.iterdir()))
    folders = [str(folder) for _, folder in made.values()]
    found = json.loads(run("-c", code, json.dumps([ABSENT, files, *folders])))
    assert found.pop("absent") == list(ABSENT)
    for fs, _ in made.values():
        by_name = sorted(range(len(fs)), key=lambda i, fs=fs: fs.clips["id"][i])
        stored = [fs.normalize(fs[i]).tobytes() for i in by_name]
        assert found[fs.key] == [hashlib.sha256(data).hexdigest() for data in stored]
    assert "canary at 48000 Hz             identical" in run(
        "-m", "basilar.pipeline.deployment.bundle", folders[0]
    )


@pytest.mark.torture
def test_importing_takes_at_most_twice_the_time_of_what_it_is_made_of():
    def seconds(modules):
        code = f"import {modules}, time; print(time.process_time())"
        command = [sys.executable, "-c", code]
        return min(float(subprocess.check_output(command, cwd=REPOSITORY)) for _ in range(5))

    libraries = seconds("numpy, pydantic")
    assert seconds("basilar.pipeline.deployment.bundle") < 2 * libraries


def test_importing_brings_nothing_heavy():
    module = "basilar.pipeline.deployment.bundle"
    code = f"import sys, {module}; print(*{set(ABSENT)} & sys.modules.keys())"
    done = subprocess.check_output([sys.executable, "-c", code], cwd=REPOSITORY, text=True)
    assert done.split() == []
