"""The Pythons and the releases of libraries that are admitted, and those that are pinned."""

import hashlib
import json
import os
import subprocess
import sys
import tomllib

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from basilar import FeatureSet
from tests import bits
from tests.conftest import REPOSITORY

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
# Transforms, bundles, and reading feature sets; Luigi, of builds, takes no Python 3.14 yet.
PINNED = {  # what the tests of each Python have
    "3.11": ("build", "demo", "test", "docs", "torch", "dask", "s3"),
    "3.12": ("build", "demo", "test", "docs", "dask", "s3"),
    "3.13": ("build", "demo", "test", "docs", "dask", "s3"),
}
NEXT = "3.14"


def requirements(*extras):
    lines = [*PROJECT["dependencies"], *(line for extra in extras for line in EXTRAS[extra])]
    return [Requirement(line) for line in lines]


def pins(python):
    """What constraints.txt says for one Python: the one release of each name."""
    environment = {**default_environment(), "python_version": python}
    found = {}
    _, *lines = (REPOSITORY / "constraints.txt").read_text("utf-8").splitlines()
    for line in lines:
        pin = Requirement(line)
        ((operator, version),) = ((each.operator, each.version) for each in pin.specifier)
        assert operator == "==", line
        if pin.marker is None or pin.marker.evaluate(environment):
            assert found.setdefault(canonicalize_name(pin.name), version) == version, line
    return found


def core():
    return [str(each) for each in requirements()]


@pytest.mark.parametrize("python", PINNED)
def test_what_the_tests_have_is_pinned_and_admitted(python):
    pinned = pins(python)
    assert SpecifierSet(PROJECT["requires-python"]).contains(python)
    for each in requirements(*PINNED[python]):
        name = canonicalize_name(each.name)
        if name == "basilar":  # one extra that needs another
            continue
        assert name in pinned, f"{each.name} on Python {python}"
        assert each.specifier.contains(pinned[name]), f"{each}: {pinned[name]} on Python {python}"


def test_nothing_newer_is_refused():
    """Upper bounds are for releases that are known to break, of which there are none."""
    assert SpecifierSet(PROJECT["requires-python"]).contains("3.99")
    for each in requirements(*EXTRAS):
        assert each.specifier.contains("9999.9"), each


def pip(*arguments):
    done = subprocess.run(
        [sys.executable, "-m", "pip", *map(str, arguments)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.torture  # asks the package index
def test_the_next_python_has_wheels_of_the_core(tmp_path):
    options = ["--only-binary=:all:", "--python-version", NEXT, "--target", tmp_path, "--dry-run"]
    report = json.loads(pip("install", "--quiet", *options, "--report", "-", *core()))
    found = {canonicalize_name(each["metadata"]["name"]) for each in report["install"]}
    assert {canonicalize_name(each.name) for each in requirements()} <= found


@pytest.mark.torture  # installs from the package index
def test_the_core_runs_on_the_next_python(tmp_path):
    """Transforms and readers compute and read the same bits there, of what pip finds today."""
    found = subprocess.run([REPOSITORY / ".ci" / "python", NEXT], capture_output=True, text=True)
    if found.returncode:
        pytest.skip(found.stderr.strip())
    subprocess.run([found.stdout.strip(), "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    pip("--python", python, "install", "--quiet", *core())
    (store,) = (REPOSITORY / "tests" / "golden" / "store-1" / "features").glob("*.zarr")
    code = """
import hashlib, json, sys
from basilar import FeatureSet
from tests import bits
rows = [hashlib.sha256(x.tobytes()).hexdigest() for x in FeatureSet.open(sys.argv[1])]
print(json.dumps(["%d.%d" % sys.version_info[:2], rows, bits.digests()]))
"""
    done = subprocess.run(
        [python, "-c", code, store],
        cwd=REPOSITORY,
        env={"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    rows = [hashlib.sha256(x.tobytes()).hexdigest() for x in FeatureSet.open(store)]
    assert json.loads(done.stdout) == [NEXT, rows, bits.digests()]
