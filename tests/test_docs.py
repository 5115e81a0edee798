"""What the documentation says is true: commands run and print what is shown, tables and links hold.

Blocks of `console` and `python` are run by every test run, those of `sh`, which need servers or
minutes, by `make torture`; `py`, `text`, `ini` and `yaml` are not run. In what is shown, `…` stands
for anything. A block of `text` behind one of `python` is what that prints.
"""

import ast
import contextlib
import importlib.util
import io
import json
import os
import re
import shlex
import signal
import string
import subprocess
import sys
import time
import tomllib
import urllib.request
from pathlib import Path

import pytest

from basilar import FeatureSet
from basilar.pipeline import cli
from basilar.pipeline.recipes.recipe import Recipe
from tests import tree
from tests.conftest import REPOSITORY
from tests.pipeline.clusters import Server
from tests.test_architecture import OLD_NAMES, ROOMS, room_of

PAGES = {
    path.relative_to(REPOSITORY).as_posix(): path.read_text("utf-8")
    for path in [*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/*.md")]
}
README = PAGES["README.md"]
RECIPES = PAGES["docs/recipes.md"]
ADDING = "docs/adding.md"  # it changes the code
PICTURES = "docs/representations.md"  # test_representations_page draws and compares them
DIFFERENT = ("basilar why", "basilar diff")  # exit with 1 to say so
# What is running now; what shows pages until it is stopped; what serves a model, for `torture`.
NOT_NOW = ("make test", "basilar ui", "basilar parity")
BLOCK = re.compile(
    r"^```(console|python|diff|toml|sh)\n(.*?)^```$(?:\n\n```text\n(.*?)^```$)?", re.M | re.S
)


def steps(text):
    """What a reader runs, in order: (language, code, what is shown of its output)."""
    for language, block, output in BLOCK.findall(text):
        if language != "console":
            yield language, block, output
            continue
        for entry in re.split(r"^\$ ", block, flags=re.M)[1:]:
            lines = entry.splitlines()
            end = 1 + next(i for i, line in enumerate(lines) if not line.endswith("\\"))
            yield language, "\n".join(lines[:end]), "\n".join(lines[end:])


def commands(text):
    return [code for language, code, _ in steps(text) if language == "console"]


def shows(shown, said):
    """Whether what was said is what is shown."""
    parts = (re.escape(part) for part in shown.strip().split("…"))
    return not shown or re.fullmatch(".*".join(parts), said.strip(), re.S)


def copy_of_the_repository(folder):
    """Its files, with the environment that runs this test."""
    tree.copy_to(folder)
    (folder / ".venv").symlink_to(sys.prefix)
    return folder


class Reader:
    """Follows pages in one folder, with one shell's variables; `basilar` runs in this process."""

    def __init__(self, folder, *, in_process=True):
        self.folder = folder
        self.in_process = in_process
        self.variables = {}
        self.environment = {
            **os.environ,
            "PATH": f"{Path(sys.prefix) / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(folder),
            "MAKEFLAGS": "--no-print-directory",  # whoever runs this by make
        }

    def run(self, command, shown):
        """Run a command, which must do what it shows."""
        command = string.Template(command).safe_substitute(self.variables)
        if assigned := re.fullmatch(r"(\w+)=\$\((.*)\)", command):
            _, self.variables[assigned[1]], _ = self._shell(assigned[2])
            return
        if self.in_process and command.startswith("basilar "):
            code, out, err = self._basilar(command)
        else:
            # The environment is there already: only what comes after its set-up is run.
            code, out, err = self._shell(command.replace("make demo", "make -o .venv/.demo demo"))
        fails = shown.startswith("error:")
        expected = 2 if fails else int(command.startswith(DIFFERENT))
        assert code == expected, f"$ {command}\n{out}\n{err}"
        assert shows(shown, err if fails else out), f"$ {command}\nprints\n{out}{err}\nnot\n{shown}"

    def _shell(self, command):
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.folder,
            env={**self.environment, **self.variables},
            capture_output=True,
            text=True,
            timeout=300,
        )
        return done.returncode, done.stdout.rstrip("\n"), done.stderr

    def _basilar(self, command):
        command, _, target = command.partition(" > ")
        out, err = io.StringIO(), io.StringIO()
        with (
            pytest.MonkeyPatch.context() as patch,
            contextlib.chdir(self.folder),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            patch.setattr("sys.argv", shlex.split(command))
            with pytest.raises(SystemExit) as stopped:
                cli.main()
        if target:
            (self.folder / target).write_text(out.getvalue())
        return int(stopped.value.code or 0), "" if target else out.getvalue(), err.getvalue()

    def follow(self, page):
        """All that a page says, in order; its Python is one session."""
        session = {"__name__": "__main__"}
        for language, code, shown in steps(PAGES[page]):
            if language == "console" and not code.startswith(NOT_NOW):
                self.run(code, shown)
            if language != "python":
                continue
            if "torch" in code and importlib.util.find_spec("torch") is None:
                continue
            out = io.StringIO()
            with contextlib.chdir(self.folder), contextlib.redirect_stdout(out):
                exec(compile(code, page, "exec"), session)
            assert shows(shown, out.getvalue()), f"{page}:\n{code}\nprints\n{out.getvalue()}"


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    """One who has followed the README."""
    reader = Reader(copy_of_the_repository(tmp_path_factory.mktemp("clone")))
    reader.follow("README.md")
    return reader


@pytest.mark.slow
def test_the_roots_that_the_commands_build_agree(reader):
    roots = [reader.folder / "features", reader.folder / "elsewhere"]
    sets = [FeatureSet.open(path) for root in roots for path in (root / "features").glob("*.zarr")]
    assert len(sets) == 2
    assert sets[0].key == sets[1].key
    assert sets[0].digest == sets[1].digest


@pytest.mark.slow
def test_the_pages_are_true(reader):
    for page in sorted(PAGES.keys() - {"README.md", ADDING, PICTURES}):
        reader.follow(page)


@pytest.mark.slow
def test_the_patches_of_a_new_representation(tmp_path):
    reader = Reader(copy_of_the_repository(tmp_path), in_process=False)
    for language, code, shown in steps(PAGES[ADDING]):
        if language == "diff":
            subprocess.run(["git", "apply"], cwd=tmp_path, input=code, text=True, check=True)
        elif language == "toml":
            (tmp_path / "params" / f"{tomllib.loads(code)['name']}.toml").write_text(code)
        else:
            reader.run(code, shown)


@pytest.mark.torture  # test_ui starts the same server in every run
def test_mlflow_shows_the_run(reader):
    (command,) = (command for command in commands(README) if command.startswith("basilar ui"))
    ports = ["--luigi-port", "0", "--mlflow-port", "0"]
    server = subprocess.Popen(
        [*command.split(), *ports, "--json"],
        cwd=reader.folder,
        env=reader.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        port = json.loads(server.stdout.readline())["mlflow"].rpartition(":")[2]
        (experiment,) = _ask(port, "experiments/get-by-name?experiment_name=basilar").values()
        question = {"experiment_ids": [experiment["experiment_id"]]}
        (run,) = _ask(port, "runs/search", question)["runs"]
        tags = {tag["key"]: tag["value"] for tag in run["data"]["tags"]}
        (path,) = (reader.folder / "features" / "features").glob("*.zarr")
        assert tags["basilar.key"] == path.stem
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.communicate(timeout=20)


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


@pytest.fixture
def bucket(reader):
    """The demo's audio in `s3://bucket`, for who follows the pages."""
    with Server() as server:
        reader.environment |= server.environment
        upload = "import s3fs; s = s3fs.S3FileSystem(); s.mkdir('bucket'); "
        upload += "s.put('demo/audio', 'bucket', recursive=True)"
        code, _, err = reader._shell(f'python -c "{upload}"')
        assert code == 0, err
        yield


@pytest.mark.torture
def test_what_takes_long_or_needs_servers(reader, bucket):
    reader.in_process = False  # MLflow finds its servers on the PATH
    for page, text in sorted(PAGES.items()):
        for language, code, shown in steps(text):
            if language == "console" and code.startswith("basilar parity"):
                reader.run(code, shown)
            if language == "sh":
                script = subprocess.Popen(
                    ["bash", "-euc", code],
                    cwd=reader.folder,
                    env={**reader.environment, **reader.variables},
                    start_new_session=True,
                )
                try:
                    assert script.wait(300) == 0, f"{page}:\n{code}"
                finally:  # with the servers it has started, if any
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(script.pid, signal.SIGTERM)


def test_every_language_of_blocks_is_known():
    known = {"console", "python", "text", "sh", "py", "ini", "yaml", "toml", "diff", "mermaid"}
    for page, text in PAGES.items():
        fences = re.findall(r"^```(.*)$", text, re.M)
        assert {name for name in fences[::2] if name[:1] != "{"} <= known, page
        assert set(fences[1::2]) <= {""}, f"{page}: a fence is not closed"


def test_make_targets_exist():
    targets = re.findall(r"^([\w-]+):", (REPOSITORY / "Makefile").read_text("utf-8"), re.M)
    for page, text in PAGES.items():
        found = re.findall(r"(?:`|^\$ )make ((?:[a-z-]+ ?)+)", text, re.M)
        for name in " ".join(found).split():
            assert name in targets, f"{page}: make {name}"


def anchors(text):
    """Where links into a page may point: its headings, as GitHub and Sphinx call them."""
    without_code = re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)
    headings = re.findall(r"^#+ (.*)$", without_code, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", PAGES[page]):
        target, _, anchor = link.partition("#")
        path = ((REPOSITORY / page).parent / target).resolve() if target else REPOSITORY / page
        assert path.exists(), f"{page}: {link}"
        if anchor:
            name = path.relative_to(REPOSITORY).as_posix()
            assert anchor in anchors(PAGES[name]), f"{page}: {link}"


def test_every_page_is_in_the_index_and_in_the_readme():
    pages = {Path(page).stem for page in PAGES if page.startswith("docs/")} - {"index"}
    index = PAGES["docs/index.md"].splitlines()
    for page in pages:
        assert page in index
        assert f"(docs/{page}.md)" in README
    assert len(README.splitlines()) < 300


def test_the_file_tree_is_the_tree():
    (drawn,) = re.findall(r"^```text\n(.*?)^```$", PAGES["CONTRIBUTING.md"], re.M | re.S)
    folders, named = [], []
    for line in drawn.splitlines():
        name, description = line.split(maxsplit=1)
        assert description
        depth = (len(line) - len(line.lstrip())) // 2
        folders = [*folders[:depth], name]
        if not name.endswith("/"):
            named.append("".join(folders))
    there = {
        str(file.relative_to(REPOSITORY)) for file in tree.modules() if file.name != "__init__.py"
    }
    assert set(named) == there
    old = {f"pipeline/{name}.py" for name in OLD_NAMES}
    rooms = [room_of(tree.name_of(REPOSITORY / path)) for path in named if path not in old]
    assert list(dict.fromkeys(rooms)) == list(ROOMS)  # imports point up the page


def test_the_tour_names_what_is_there():
    """Every function is in its file; every step is in one room, and every room is entered once."""
    text = PAGES["CONTRIBUTING.md"].split("## A tour for newcomers")[1].split("\n## ")[0]
    entered = []
    for step in re.split(r"^\d+\. ", text, flags=re.M)[1:]:
        files = [REPOSITORY / path for path in re.findall(r"`(\w+/[\w/]+\.py)`", step)]
        (room,) = {room_of(tree.name_of(file)) for file in files}
        entered.append(room)
        # A name is that of the file before it: `file.py`: `one`, `two`.
        for path, names in re.findall(r"`(\w+/[\w/]+\.py)`:\s([^/]+)(?=`\w+/|\Z)", step):
            found = set(re.findall(r"`(\w+)`", names))
            assert found, path
            assert found <= defined(tree.parsed(REPOSITORY / path)), path
        assert len(re.findall(r"\.py`:\s+`", step)) == len(files), step
    assert sorted(entered) == sorted(ROOMS)


def defined(module):
    """The names of a module's functions, classes and variables."""
    names = {getattr(node, "name", None) for node in module.body}
    for node in module.body:
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return names


def test_the_tables_of_recipes_are_right():
    rows = re.findall(r"^\| (`[^|]+`) \| .* \| ([\d,]+) × (\d+) \|$", RECIPES, re.M)
    described = set()
    for names, frames, bins in rows:
        for name in re.findall(r"`(\w+)`", names):
            recipe = Recipe.load(name)
            kind = recipe.representation
            assert kind.n_frames(5 * recipe.resample.sample_rate) == int(frames.replace(",", "")), (
                name
            )
            assert kind.columns() == int(bins), name
            described.add(name)
    presets = re.findall(r"^\| (`[^|]+`) \| .* \| \d\.\de-\d(?: ¹)? \|$", RECIPES, re.M)
    assert f"[{len(re.findall('`', ''.join(presets))) // 2} presets]" in README
    described |= {name for names in presets for name in re.findall(r"`(\w+)`", names)}
    shipped = {file.stem for file in (REPOSITORY / "params").glob("*.toml")}
    assert described == shipped
    assert f"{len(shipped)} are shipped" in README


def test_the_tables_of_fields_are_those_of_the_types():
    module = importlib.util.spec_from_file_location("generate", REPOSITORY / "docs/generate.py")
    generate = importlib.util.module_from_spec(module)
    module.loader.exec_module(generate)
    assert generate.page(RECIPES) == RECIPES, "run: python docs/generate.py"


def test_messages_that_are_explained_are_said():
    sources = "".join(file.read_text("utf-8") for file in tree.modules())
    sources = re.sub(r'"\s+f?"', "", sources)  # a text over several lines
    table = PAGES["docs/troubleshooting.md"].split("## What is said")[1].split("\n\n")[1]
    messages = re.findall(r"^\| `([^`]+)`", table, re.M)
    assert len(messages) > 5
    for message in messages:
        for part in filter(None, map(str.strip, message.split("…"))):
            assert part in sources, message
