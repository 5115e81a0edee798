"""The README is true: its commands run, its files exist, its table of shapes is right."""

import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from pipeline import FeatureSet
from pipeline.recipe import Recipe
from tests.conftest import REPOSITORY

README = (REPOSITORY / "README.md").read_text("utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def commands():
    return [
        line.removeprefix("$ ")
        for block in blocks("console")
        for line in block.splitlines()
        if line.startswith("$ ")
    ]


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """The files of the repository in a new place, with the environment that runs this test."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    folder = tmp_path_factory.mktemp("clone")
    for name in listed.stdout.splitlines():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(REPOSITORY / name, folder / name)
    (folder / ".venv").symlink_to(sys.prefix)
    return folder


ENVIRONMENT = {
    **os.environ,
    "PATH": f"{Path(sys.prefix) / 'bin'}{os.pathsep}{os.environ['PATH']}",
    "MAKEFLAGS": "",
}


@pytest.fixture(scope="module")
def followed(clone):
    """The clone after all commands of the README, in order; each succeeded."""
    for command in commands():
        # The tests are what is running now, and the page of MLflow is opened below.
        if command == "make test" or command.startswith("mlflow ui"):
            continue
        # The environment is there already: only what comes after its set-up is run.
        command = command.replace("make demo", "make -o .venv/.ready demo")
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=clone,
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return clone


def test_the_roots_that_the_commands_build_agree(followed):
    roots = [followed / "features", followed / "elsewhere"]
    sets = [FeatureSet.open(path) for root in roots for path in (root / "features").glob("*.zarr")]
    assert len(sets) == 2
    assert sets[0].key == sets[1].key
    assert sets[0].digest == sets[1].digest


def test_the_python_examples_run(followed):
    for block in blocks("python"):
        if "torch" in block and importlib.util.find_spec("torch") is None:
            continue
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", block],
            cwd=followed,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr


def test_mlflow_shows_the_run(followed):
    (command,) = (command for command in commands() if command.startswith("mlflow ui"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [*command.split(), "--port", str(port)],
        cwd=followed,
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        (experiment,) = _ask(port, "experiments/get-by-name?experiment_name=basilar").values()
        question = {"experiment_ids": [experiment["experiment_id"]]}
        (run,) = _ask(port, "runs/search", question)["runs"]
        tags = {tag["key"]: tag["value"] for tag in run["data"]["tags"]}
        (path,) = (followed / "features" / "features").glob("*.zarr")
        assert tags["basilar.key"] == path.stem
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(20)


def _ask(port, question, body=None):
    """An answer of the server, which may need a while to start."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/api/2.0/mlflow/{question}",
        data,
        {"Content-Type": "application/json"},
    )
    for _ in range(120):
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return json.load(answer)
        except OSError:
            time.sleep(0.5)
    raise AssertionError("the server did not answer in a minute")


def test_make_targets_exist():
    for command in commands():
        if command.startswith("make "):
            target = command.split()[1]
            assert re.search(rf"^{target}:", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)


def test_the_file_tree_is_the_tree():
    (tree,) = blocks("text")
    folder, named = "", set()
    for line in tree.splitlines():
        name, description = line.split(maxsplit=1)
        assert description
        if name.endswith("/"):
            folder = name
        else:
            named.add(folder + name)
    there = {
        f"{package}/{file.name}"
        for package in ("dsp", "pipeline", "workflows")
        for file in (REPOSITORY / package).glob("*.py")
        if file.name != "__init__.py"
    }
    assert named == there


def test_the_tables_of_recipes_are_right():
    rows = re.findall(r"^\| (`[^|]+`) \| .* \| ([\d,]+) × (\d+) \|$", README, re.MULTILINE)
    described = set()
    for names, frames, bins in rows:
        for name in re.findall(r"`(\w+)`", names):
            recipe = Recipe.load(REPOSITORY / "params" / f"{name}.toml")
            kind = recipe.representation
            assert kind.n_frames(5 * recipe.resample.sample_rate) == int(frames.replace(",", "")), (
                name
            )
            assert kind.columns() == int(bins), name
            described.add(name)
    presets = re.findall(r"^\| (`[^|]+`) \| .* \| \d\.\de-\d(?: ¹)? \|$", README, re.MULTILINE)
    described |= {name for names in presets for name in re.findall(r"`(\w+)`", names)}
    assert described == {file.stem for file in (REPOSITORY / "params").glob("*.toml")}
