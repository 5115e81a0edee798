import base64
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import soundfile as sf

from basilar import Bundle, Transform
from basilar.pipeline.build import luigi_engine
from basilar.pipeline.build.build import Build
from basilar.pipeline.deployment.export import write_bundle
from basilar.pipeline.manifests.scan import scan
from basilar.pipeline.plan import Plan
from basilar.pipeline.recipes.recipe import Recipe
from basilar.pipeline.tracking.location import embedded_tracking_uri
from tests.conftest import REPOSITORY
from tests.pipeline.deployment.test_export import STANDARD, make_set
from tests.pipeline.store.test_publish import LOG_MEL, SMALL


@pytest.fixture(autouse=True, scope="module")
def _mlflow():
    """Imported when the first of these tests runs: it takes seconds, and makes every fork dear."""
    global MlflowException, ServedBundle
    from mlflow.exceptions import MlflowException

    from basilar.pipeline.deployment.mlflow_model import ServedBundle


def in_base64(data):
    return base64.b64encode(data).decode()


@pytest.fixture
def served(tmp_path, audio_folder):
    """A model with its bundle, of log-mels unless said otherwise, without a server."""

    def make(representation=LOG_MEL, normalization=STANDARD):
        fs, manifest = make_set(tmp_path / "root", audio_folder, representation, normalization)
        write_bundle(tmp_path / "bundle", fs, manifest=manifest, clips=0)
        model = ServedBundle()
        model.load_context(SimpleNamespace(artifacts={"bundle": str(tmp_path / "bundle")}))
        return model, fs

    return make


def test_all_forms_of_audio_give_the_stored_features(served, audio_folder):
    model, fs = served()
    clips = list(fs.clips["id"][:3])
    expected = [fs.normalize(fs[clip]).tobytes() for clip in clips]
    encoded = [in_base64((audio_folder / clip).read_bytes()) for clip in clips]
    samples = [sf.read(audio_folder / clip, dtype="float32")[0] for clip in clips]
    for table in (
        {"audio": encoded},
        {"samples": [y.tolist() for y in samples], "sample_rate": 8000},
        {"samples": [in_base64(y.tobytes()) for y in samples], "sample_rate": 8000},
        {"audio": encoded, "samples": None, "sample_rate": None},
    ):
        found = model.predict(None, pd.DataFrame(table))
        assert [x.tobytes() for x in found] == expected
    mixed = pd.DataFrame([{"audio": encoded[0]}, {"samples": samples[1], "sample_rate": 8000}])
    assert [x.tobytes() for x in model.predict(None, mixed)] == expected[:2]


def test_complex_features_come_in_two_parts(served, audio_folder):
    model, fs = served({"kind": "stft", "n_fft": 256, "hop_length": 64}, {"kind": "none"})
    clip = fs.clips["id"][0]
    (found,) = model.predict(
        None, pd.DataFrame({"audio": [in_base64((audio_folder / clip).read_bytes())]})
    )
    assert found.shape == (*fs[0].shape, 2)
    assert found.tobytes() == fs[0].tobytes()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({}, r"row 1: \[\]: give audio, or samples and sample_rate"),
        ({"samples": [0.0] * 9000}, r"row 1: \['samples'\]: give audio"),
        ({"audio": "AAAA", "sample_rate": 1}, r"\['audio', 'sample_rate'\]: give audio, or"),
        ({"audio": "no base64"}, "row 1: .*base64"),
        ({"audio": in_base64(b"no audio")}, "row 1: no audio format is recognised"),
        ({"samples": "AAA=", "sample_rate": 8000}, "row 1: buffer size must be a multiple"),
        ({"samples": ["x"], "sample_rate": 8000}, "row 1: could not convert"),
        ({"samples": [0.0], "sample_rate": 0}, "row 1: sample_rate: 0 Hz"),
        ({"samples": [[[0.0]]], "sample_rate": 8000}, "row 1: a signal of shape"),
    ],
)
def test_rows_without_a_clip_are_named(row, message):
    model, transform = ServedBundle(), Transform.from_recipe({"representation": LOG_MEL})
    model.bundle = SimpleNamespace(transform=transform.apply, transform_file=transform.apply_file)
    good = {"samples": [0.0] * 9000, "sample_rate": 8000}
    with pytest.raises(MlflowException, match=message) as refused:
        model.predict(None, pd.DataFrame([good, row]))
    assert refused.value.error_code == "INVALID_PARAMETER_VALUE"


def free_port():
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return opened.getsockname()[1]


@pytest.fixture
def server(tmp_path, audio_folder):
    """`mlflow models serve` of a build's registered model: (bundle, function that asks)."""
    sections = {"resample": {"sample_rate": 8000}, "representation": LOG_MEL, "store": SMALL}
    recipe = Recipe.from_dict({**sections, "normalization": STANDARD})
    plan, root = Plan(recipe, scan(audio_folder), 600.0), tmp_path / "root"
    uri = embedded_tracking_uri(root)
    build = Build(root=root, plan=plan, tracking_uri=uri, register_as="served@live")
    assert luigi_engine.run(build, workers=1).mlflow_run_id
    (folder,) = root.glob("mlflow/artifacts/models/*/artifacts/artifacts/bundle")
    port = free_port()
    programs = Path(sys.executable).parent  # mlflow runs uvicorn by its name
    command = [str(programs / "mlflow"), "models", "serve"]
    options = ["--host", "127.0.0.1", "--port", str(port), "--env-manager", "local"]
    with (tmp_path / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "-m", "models:/served@live", *options],
            cwd=tmp_path,
            env={
                **os.environ,
                "PATH": f"{programs}:{os.environ['PATH']}",
                "PYTHONPATH": str(REPOSITORY),
                "MLFLOW_TRACKING_URI": uri,
                "MLFLOW_DISABLE_TELEMETRY": "true",
            },
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=5).close()
                break
            except OSError:
                assert process.poll() is None, (tmp_path / "server.log").read_text()
                time.sleep(0.2)

        def ask(records):
            body = json.dumps({"dataframe_records": records}).encode()
            headers = {"Content-Type": "application/json"}
            url = f"http://127.0.0.1:{port}/invocations"
            with urllib.request.urlopen(urllib.request.Request(url, body, headers)) as answer:
                return json.loads(answer.read())["predictions"]

        yield Bundle.load(folder), ask
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)  # its own group: the server and what it started
            process.wait(20)


@pytest.mark.slow
def test_mlflow_serves_the_bits_of_the_bundle(server, audio_folder, noise, capsys):
    bundle, ask = server
    files = sorted(audio_folder.rglob("*.wav"))[:3]
    answers = ask([{"audio": in_base64(file.read_bytes())} for file in files])
    for file, answer in zip(files, answers, strict=True):
        features = np.array(answer, np.float32)
        assert features.tobytes() == bundle.transform_file(file).tobytes()
    y = noise(44100)
    expected = bundle.transform(y, sample_rate=44100).tobytes()
    for samples in (y.tolist(), in_base64(y.tobytes())):
        (answer,) = ask([{"samples": samples, "sample_rate": 44100}])
        assert np.array(answer, np.float32).tobytes() == expected
    with pytest.raises(urllib.error.HTTPError) as refused:
        ask([{"audio": "AAAA"}])
    assert refused.value.code == 400
    assert "row 0: no audio format is recognised" in refused.value.read().decode()
    spent = []
    for _ in range(20):
        started = time.perf_counter()
        ask([{"samples": in_base64(y.tobytes()), "sample_rate": 44100}])
        spent.append(1000 * (time.perf_counter() - started))
    with capsys.disabled():
        print(
            f"\nmlflow models serve, 1 s of audio at 44.1 kHz: {statistics.median(spent):.1f} ms, "
            f"at most {max(spent):.1f} ms"
        )
