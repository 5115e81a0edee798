"""`import basilar`: the public names, what importing them costs, and a house of the same rooms."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import basilar as package
from tests.conftest import REPOSITORY

BIN = Path(sys.executable).parent
LUIGI = ("-m", "luigi", "--module", "basilar.workflows.build_feature_set", "BuildFeatureSet")


def test_all_public_names_are_there_and_no_other():
    for name in package.__all__:
        assert getattr(package, name) is not None
    assert dir(package) == sorted(package.__all__)
    with pytest.raises(AttributeError, match="module 'basilar' has no attribute 'feature_set'"):
        _ = package.feature_set


def test_importing_it_imports_nothing_of_it():
    code = """
import sys, time
before, started = set(sys.modules), time.process_time()
import basilar
seconds = time.process_time() - started
print(seconds, *sorted(set(sys.modules) - before))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, *imported = done.stdout.split()
    assert [name for name in imported if name.startswith("basilar")] == ["basilar"]
    packages = {name.partition(".")[0] for name in imported}
    assert packages <= {"basilar", *sys.stdlib_module_names}
    assert float(seconds) < 0.1  # milliseconds; NumPy alone takes longer


@pytest.fixture
def own(tmp_path):
    """A user's project, whose packages have the names of our rooms; ours must not look at them."""
    for name in ("pipeline", "dsp", "params", "workflows", "utils"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"raise ImportError('own {name}')\n")
    return tmp_path


def run(*command, cwd, **environment):
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": ".", **environment},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_it_is_used_beside_packages_of_the_same_names_as_its_rooms(own, built):
    code = f"""
import basilar
from basilar import *
print(basilar.__file__, len(basilar.open({str(built.root)!r}, "small")), build.__name__)
"""
    file, clips, name = run(sys.executable, "-c", code, cwd=own).split()
    assert Path(file) == REPOSITORY / "basilar" / "__init__.py"
    assert (clips, name) == ("12", "build")
    assert run(BIN / "basilar", "--version", cwd=own) == "basilar 0.3.0\n"
    assert run(sys.executable, "-m", "basilar", "--version", cwd=own) == "basilar 0.3.0\n"
    options = run(sys.executable, *LUIGI, "--help", cwd=own)
    assert "--BuildFeatureSet-recipe" in options


@pytest.mark.torture
def test_the_three_jobs_beside_packages_of_the_same_names(own, audio_folder, tracker):
    """Build by the command, build by Luigi, open in training: one set."""
    said = {"cwd": own, "MLFLOW_TRACKING_URI": tracker}
    basilar = BIN / "basilar"
    run(basilar, "scan", audio_folder, "-o", "m.parquet", "--label", "parent", **said)
    run(basilar, "build", "log_mel_speech", "m.parquet", "--root", "one", **said)
    where = ("--recipe", "log_mel_speech", "--manifest", "m.parquet", "--root", "two")
    run(sys.executable, *LUIGI, *where, "--local-scheduler", **said)
    code = """
import basilar
sets = [basilar.open(root, "log_mel_speech") for root in ("one", "two")]
assert sets[0].digest == sets[1].digest
print(sum(len(batch["label"]) for batch in basilar.Loader(sets[0], n_frames=8)))
"""
    assert run(sys.executable, "-c", code, **said) == "12\n"
