"""A wheel is built, installed and used, as one who has no clone would."""

import os
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import soundfile as sf

from basilar import FeatureSet
from tests.conftest import REPOSITORY
from tests.test_docs import copy_of_the_repository
from tests.test_installs import SESSION


def run(*command, cwd, **environment):
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built by the build backend alone: no network, and nothing left in the repository."""
    source = copy_of_the_repository(tmp_path_factory.mktemp("source"))
    folder = tmp_path_factory.mktemp("dist")
    code = f"from setuptools.build_meta import build_wheel; build_wheel({str(folder)!r})"
    run(sys.executable, "-W", "ignore", "-c", code, cwd=source)
    (file,) = folder.glob("basilar-*.whl")
    return file


@pytest.fixture
def audio(tmp_path, noise):
    (tmp_path / "audio").mkdir()
    for i in range(3):
        sf.write(tmp_path / "audio" / f"{i}.wav", noise(8000, i), 8000, subtype="PCM_16")
    return tmp_path / "audio"


def test_a_wheel_holds_what_it_needs_and_nothing_else(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = {
        f"basilar/{file.relative_to(REPOSITORY)}"
        for package in ("dsp", "pipeline", "workflows", "params")
        for file in (REPOSITORY / package).rglob("*")
        if file.is_file()
        and "__pycache__" not in file.parts
        and file.suffix not in (".c", ".h", ".md", ".so")
    } | {f"basilar/{file.name}" for file in (REPOSITORY / "basilar").glob("*.*")}
    files = {name for name in names if ".dist-info/" not in name}
    assert {"basilar/py.typed", "basilar/params/log_mel.toml"} <= expected
    assert {name.partition("/")[0] for name in files} == {"basilar"}
    compiled = files - expected
    assert files - compiled == expected
    # One for all Pythons, where there was a compiler.
    assert compiled == ({"basilar/dsp/kernel/_native.abi3.so"} if shutil.which("cc") else set())
    assert "-cp311-abi3-" in wheel.name
    assert any(name.endswith("licenses/LICENSE") for name in names)


@pytest.mark.torture
def test_an_installed_wheel_builds_a_feature_set(wheel, audio, tmp_path, tracker):
    site = tmp_path / "site"
    install = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target"]
    run(sys.executable, *install, site, wheel, cwd=tmp_path)
    used = ["-c", "import basilar; print(basilar.__file__)"]
    environment = {"PYTHONPATH": str(site), "MLFLOW_TRACKING_URI": tracker}
    assert run(sys.executable, *used, cwd=tmp_path, **environment).startswith(str(site))
    basilar = site / "bin" / "basilar"
    assert run(basilar, "--version", cwd=tmp_path, **environment) == "basilar 0.3.0\n"
    run(basilar, "build", "log_mel_speech", audio, "--root", "r", cwd=tmp_path, **environment)
    (path,) = (tmp_path / "r" / "features").glob("*.zarr")
    fs = FeatureSet.open(path)
    assert (len(fs), fs.n_bins) == (3, 40)
    assert np.isfinite(fs[0]).all()


def clean_environment(folder, wheel):
    """The Python of a new environment that has a wheel, and what that depends on."""
    run(sys.executable, "-m", "venv", "clean", cwd=folder)
    python = folder / "clean" / "bin" / "python"
    install = ["-m", "pip", "install", "--quiet", "-c", REPOSITORY / "constraints.txt"]
    run(python, *install, wheel, cwd=folder, PYTHONPATH="")
    return python


@pytest.mark.torture
def test_a_bare_wheel_reads_and_deploys(wheel, tmp_path):
    """Without an extra: a set and a bundle are read, and nothing else is installed for it."""
    python = clean_environment(tmp_path, wheel)
    environment = {"PYTHONPATH": ""}
    basilar = tmp_path / "clean" / "bin" / "basilar"
    assert run(basilar, "--version", cwd=tmp_path, **environment) == "basilar 0.3.0\n"
    golden = REPOSITORY / "tests" / "golden"
    said = run(basilar, "check-bundle", golden / "bundle-2", cwd=tmp_path, **environment)
    assert said.count("identical") == 6
    done = subprocess.run([basilar, "doctor"], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (2, 3)
    assert "pip install 'basilar[build]'" in done.stderr
    run(python, "-c", SESSION, golden, cwd=tmp_path, **environment)
    found = run(python, "-m", "pip", "list", "--format", "freeze", cwd=tmp_path, **environment)
    names = {line.partition("==")[0] for line in found.splitlines()}
    assert not names & {"pandas", "zarr", "luigi", "mlflow", "typer", "rich", "fsspec", "filelock"}


@pytest.mark.torture
def test_a_wheel_in_a_clean_environment(wheel, audio, tmp_path):
    """With what builds need and nothing else, in the versions that are tested."""
    python = clean_environment(tmp_path, f"{wheel}[build]")
    environment = {"PYTHONPATH": ""}
    basilar = tmp_path / "clean" / "bin" / "basilar"
    assert run(basilar, "--version", cwd=tmp_path, **environment) == "basilar 0.3.0\n"
    run(basilar, "doctor", cwd=tmp_path, **environment)
    run(basilar, "build", "log_mel_speech", audio, "--root", "r", cwd=tmp_path, **environment)
    (path,) = (tmp_path / "r" / "features").glob("*.zarr")
    run(basilar, "bundle", path.stem, "--root", "r", "-o", "b", cwd=tmp_path, **environment)
    run(basilar, "check-bundle", "b", cwd=tmp_path, **environment)
    luigi = ["-m", "luigi", "--module", "basilar.workflows.nightly", "Nightly", "--local-scheduler"]
    options = ["--audio", audio, "--recipes", "log_mel_speech", "--root", "n"]
    run(python, *luigi, *options, cwd=tmp_path, **environment)
    assert (tmp_path / "n" / "latest" / "log_mel_speech.json").exists()
