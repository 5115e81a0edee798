"""The rules of the house: which way imports point, and what must not be in the tree."""

import ast
import fnmatch
import graphlib
import json
import re
import subprocess
import sys

import pytest

from tests import tree
from tests.conftest import REPOSITORY
from tests.pipeline.test_errors import CLASSES
from tests.tree import imports, inside, modules, name_of, parsed, roots, tracked_files

# Each room, from the lowest to the highest, and the rooms that it imports. Every arrow of the code
# is in this table and every arrow of the table is in the code; none points to a room further down.
ROOMS = {
    "dsp": "",
    "errors": "",
    "host": "errors",
    "hashing": "",
    "progress": "",
    "defaults": "",
    "process": "dsp",
    "storage": "dsp errors",
    "text": "errors storage",
    "console": "text",
    "audio": "errors host defaults",
    "recipes": "dsp errors host hashing",
    "manifests": "errors hashing progress storage text audio",
    "plan": "errors hashing defaults audio recipes manifests",
    "compute": "dsp errors hashing defaults storage audio recipes manifests plan",
    "store": "dsp errors host hashing storage recipes manifests plan compute",
    "training": "dsp errors host defaults storage text recipes store",
    "records": "dsp errors progress storage recipes manifests plan compute store training",
    "deployment": "dsp errors storage audio recipes manifests compute training",
    "report": "dsp errors progress storage text recipes manifests plan compute store training "
    "records",
    "tracking": "errors storage recipes manifests training records deployment report",
    "build": "dsp errors host hashing progress defaults process storage text console recipes "
    "manifests plan compute store training records tracking",
    "audit": "dsp errors host hashing progress process storage audio recipes manifests compute "
    "store training records deployment tracking build",
    "cli": "errors host defaults process storage text console audio recipes manifests plan "
    "training records deployment report tracking build audit",
    "basilar": "errors audio recipes manifests compute training deployment build cli",
    "workflows": "errors hashing defaults process storage recipes manifests compute records "
    "tracking build basilar",
}
# `python -m pipeline.bundle` and `pipeline.canary` in a clone: old names of modules of a room.
OLD_NAMES = {"bundle": "deployment", "canary": "compute"}


def room_of(name):
    """The room of a module by its name, or none of what is not ours."""
    package, *rest = name.split(".")
    if package != "basilar":
        return None
    if rest[:1] == ["pipeline"]:
        room = rest[1] if len(rest) > 1 else None
        return OLD_NAMES.get(room, room)
    return rest[0] if rest and rest[0] in ("dsp", "workflows") else "basilar"


NAMES = {name_of(file): file for file in modules()}


def ours(file, **how):
    """The modules of ours that a file imports."""
    return {name for name in imports(file, **how) if name in NAMES}


def arrows():
    """Which rooms each room imports, anywhere in its modules."""
    found = {room: set() for room in ROOMS}
    for name, file in NAMES.items():
        room = room_of(name)
        found.setdefault(room, set())
        found[room] |= {room_of(other) for other in ours(file)} - {room, None}
    found.pop(None, None)
    return found


def test_packages_and_modules_are_found_in_all_folders():
    assert {"basilar", "dsp", "pipeline", "workflows"} <= set(tree.PACKAGES)
    assert "tests" not in tree.PACKAGES
    found = {inside(file) for file in modules()}
    assert {"pipeline/recipes/kinds/mel.py", "pipeline/report/plots/axes.py"} <= found
    assert not [name for name in found if name.startswith("basilar/dsp")]  # links are not followed


def test_rooms_import_what_the_table_says():
    assert arrows() == {room: set(names.split()) for room, names in ROOMS.items()}


def test_no_arrow_points_up():
    rank = {room: i for i, room in enumerate(ROOMS)}
    up = [(a, b) for a, names in ROOMS.items() for b in names.split() if rank[b] >= rank[a]]
    assert not up


def test_no_module_imports_itself_in_a_circle():
    """Names are looked up when a module is imported; what functions import comes later."""
    graph = {name: ours(file, at_import=True) - {name} for name, file in NAMES.items()}
    tuple(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError, which names them


def bare(names):
    """Those of our packages that are imported by a name that half of all projects have."""
    return roots(names) & (set(tree.PACKAGES) - {"basilar"} | {"params"})


def test_what_is_imported_is_basilar():
    """Nothing takes `pipeline` or `dsp` for a top-level name, which a user may have as well."""
    text = re.compile(r"^\s*(?:from|import) (?:pipeline|dsp|workflows|params)\b", re.M)
    for file in tracked_files():
        if file.is_relative_to(REPOSITORY / "tests" / "golden") or file.is_dir():
            continue  # made before the modules moved
        if file.suffix == ".py":
            assert not bare(imports(file)), inside(file)
        elif file.suffix in (".md", ".rst", ".ipynb", ".toml"):
            assert not text.search(file.read_text("utf-8")), inside(file)


@pytest.mark.parametrize("file", modules("dsp"), ids=inside)
def test_dsp_imports_numpy_soxr_and_the_standard_library_only(file):
    outside = roots(imports(file)) - set(sys.stdlib_module_names)
    assert outside <= {"numpy", "soxr", "basilar"}
    assert {room_of(name) for name in ours(file)} <= {"dsp"}


def users(library):
    """The modules that import a library, anywhere in them."""
    return {inside(file) for file in modules() if library in roots(imports(file))}


def test_only_tracking_imports_mlflow_and_what_mlflow_runs():
    allowed = re.compile(r"pipeline/(tracking/.+|deployment/mlflow_model)\.py")
    found = users("mlflow")
    assert "pipeline/tracking/runs.py" in found
    assert {file for file in found if not allowed.fullmatch(file)} == set()


def test_who_imports_what_draws_and_what_makes_pages():
    drawing = re.compile(r"pipeline/report/(plots/.+|charts)\.py")
    found = users("matplotlib")
    assert "pipeline/report/charts.py" in found
    assert {file for file in found if not drawing.fullmatch(file)} == set()
    assert users("jinja2") == {"pipeline/report/page.py"}
    for file in modules():
        assert "matplotlib.pyplot" not in imports(file), inside(file)


# What reading, training, transforms and bundles do without when they are imported, and the command.
TRAINING = "basilar.pipeline.training.loader basilar.pipeline.training.feature_set"
DEPLOYMENT = "basilar.pipeline.recipes.recipe basilar.pipeline.compute.transform"
HEAVY = "scipy luigi mlflow zarr pandas pyarrow torch matplotlib jinja2 typer rich"
LIGHT = [
    ("basilar", f"numpy pydantic {HEAVY}"),
    ("basilar.pipeline.audio basilar.dsp.representations", f"pydantic av soundfile {HEAVY}"),
    (TRAINING, f"pydantic av soundfile {HEAVY}"),
    (f"{DEPLOYMENT} basilar.pipeline.deployment.bundle", f"av soundfile {HEAVY}"),
    ("basilar.pipeline.cli", "luigi mlflow zarr pandas pyarrow torch matplotlib jinja2 scipy"),
]


@pytest.fixture(scope="module")
def loaded():
    """What is imported after each of these, in processes that one process has forked."""
    code = """
import importlib, json, os, sys
found = []
for names in json.loads(sys.argv[1]):
    r, w = os.pipe()
    if os.fork() == 0:
        for name in names.split():
            importlib.import_module(name)
        os.write(w, " ".join({name.split(".")[0] for name in sys.modules}).encode())
        os._exit(0)
    os.close(w)
    found.append(b"".join(iter(lambda: os.read(r, 65536), b"")).decode())
    os.wait()
print(json.dumps(found))
"""
    asked = json.dumps([names for names, _ in LIGHT])
    command = [sys.executable, "-c", code, asked]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [set(names.split()) for names in json.loads(done.stdout)]


@pytest.mark.parametrize("number", range(len(LIGHT)), ids=[names.split()[0] for names, _ in LIGHT])
def test_what_is_imported_imports_nothing_heavier(loaded, number):
    names, heavy = LIGHT[number]
    assert "basilar" in loaded[number], names
    assert not loaded[number] & set(heavy.split())


# Messages that are put together elsewhere, from others that have the form.
PUT_TOGETHER = {
    "message",
    "str(error)",
    "f'{said}; {where}'",
    "'\\n'.join(lines)",
    "'\\n'.join(dict.fromkeys(problems))",
}
# Errors that say something else than `WHERE: WHAT; WHAT TO DO`, and why.
OTHER_FORM = {
    "AudioError",  # what is wrong with a file, in the table of the quarantine, which names it
    "ForeignLayoutError",  # why zarr-python reads instead: a part of the warning that names it
    "StoppedError",  # by the keyboard: nothing is wrong
}
MESSAGES = {*CLASSES, "FileNotFoundError", "FileExistsError"} - OTHER_FORM


def rendered(node):
    """The first line of a literal message with a word for what is filled in; None of another."""
    match node:
        case ast.Constant(value=str(text)):
            return text.split("\n")[0]
        case ast.JoinedStr(values=values):
            parts = [v.value if isinstance(v, ast.Constant) else "word" for v in values]
            return "".join(parts).split("\n")[0]
        case ast.BinOp(left=left):
            return rendered(left)
    return None


def messages(file):
    """The messages of our errors in a file, also those that a class of ours gives itself."""
    for node in ast.walk(parsed(file)):
        if isinstance(node, ast.ClassDef) and node.name in MESSAGES:
            calls = [call for call in ast.walk(node) if isinstance(call, ast.Call)]
            for call in calls:
                if ast.unparse(call.func) == "super().__init__":
                    yield call.lineno, call.args[0]
        if not (isinstance(node, ast.Call) and len(node.args) == 1):
            continue
        if ast.unparse(node.func).rpartition(".")[2] in MESSAGES:
            yield node.lineno, node.args[0]


def test_errors_say_where_what_and_what_to_do():
    found = 0
    for file in modules():
        for line, message in messages(file):
            if ast.unparse(message) in PUT_TOGETHER:
                continue
            said = rendered(message)
            assert said is not None, f"{inside(file)}:{line}: not literal"
            assert re.fullmatch("[^;]+?: .+; .+", said), f"{inside(file)}:{line}: {said}"
            found += 1
    assert found > 100
    assert CLASSES.keys() >= OTHER_FORM


def test_no_file_names_a_registry():
    registry = re.compile("index" + r"-url|pypi\.org|pythonhosted|registry\.npmjs|/simple/")
    for file in tracked_files():
        if file.suffix in (".py", ".toml", ".txt", ".md", "") and file.is_file():
            found = registry.search(file.read_text("utf-8", "replace"))
            assert not found or file == REPOSITORY / "tests" / "test_architecture.py", file


def test_tests_mirror_the_tree():
    for package in ("dsp", "pipeline", "workflows"):
        for file in modules(package):
            place = file.relative_to(REPOSITORY).parent
            test = REPOSITORY / "tests" / place / f"test_{file.stem}.py"
            assert file.name == "__init__.py" or test.exists(), f"{file} is not tested by {test}"


def test_no_folder_of_tests_is_passed_over(request):
    """By default pytest does not look into folders named build or dist."""
    skipped = request.config.getini("norecursedirs")
    files = [*modules(), *(REPOSITORY / "tests").rglob("*.py")]
    folders = {part for file in files for part in file.relative_to(REPOSITORY).parent.parts}
    assert "build" in folders
    assert not [name for name in folders for skip in skipped if fnmatch.fnmatch(name, skip)]


MOST_LINES = 350
LONGER = {"dsp/cqt.py": "one algorithm: the kernels of the constant-Q transform, and their use"}


def test_no_file_is_longer_than_a_reader_holds():
    """A file that grows beyond has two responsibilities: cut it, or give the reason here."""
    lengths = {inside(file): len(file.read_text("utf-8").splitlines()) for file in modules()}
    long = {name: lines for name, lines in lengths.items() if lines > MOST_LINES}
    assert long.keys() == LONGER.keys(), long
