"""The rules of the house: which way imports point, and what must not be in the tree."""

import ast
import re
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY

ALLOWED = {
    "dsp": {"numpy", "scipy", "soxr", "dsp"},
    "pipeline": None,
    "workflows": None,
}
FORBIDDEN = {"pipeline": {"workflows", "tests"}, "workflows": {"tests"}}


def modules(package):
    return sorted((REPOSITORY / package).rglob("*.py"))


def imports(file, *, at_the_top=False):
    """Names of the packages a module imports: everywhere in it, or when it is imported."""
    tree = ast.parse(file.read_text("utf-8"))
    nodes = ast.walk(tree)
    if at_the_top:
        nodes = (node for node in tree.body if not isinstance(node, ast.If))
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file.name}: relative import"
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def packages(names):
    return {name.split(".")[0] for name in names}


@pytest.mark.parametrize("file", modules("dsp"), ids=lambda file: file.stem)
def test_dsp_imports_numpy_scipy_soxr_and_the_standard_library_only(file):
    outside = packages(imports(file)) - set(sys.stdlib_module_names)
    assert outside <= ALLOWED["dsp"]


@pytest.mark.parametrize("package", ["pipeline", "workflows"])
def test_imports_point_one_way(package):
    for file in modules(package):
        assert not packages(imports(file)) & FORBIDDEN[package], file.name


def test_only_tracking_imports_mlflow_and_what_mlflow_runs():
    users = {file.stem for file in modules("pipeline") if "mlflow" in packages(imports(file))}
    assert users == {"tracking", "served"}
    for file in modules("pipeline"):
        assert not imports(file, at_the_top=True) & {
            "basilar.pipeline.tracking.runs",
            "basilar.pipeline.deployment.mlflow_model",
        }


@pytest.mark.parametrize(
    ("module", "light"),
    [
        ("basilar.dsp.representations", {"numpy", "scipy", "soxr", "dsp"}),
        (
            "basilar.pipeline.recipes.recipe",
            {"numpy", "scipy", "soxr", "pydantic", "dsp", "pipeline"},
        ),
        ("basilar.pipeline.audio", {"numpy", "pipeline"}),
    ],
)
def test_what_a_bundle_needs_imports_nothing_heavier(module, light):
    heavy = {"luigi", "mlflow", "zarr", "pandas", "pyarrow", "av", "soundfile", "typer", "rich"}
    code = f"import sys, {module}; print(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert not loaded & heavy
    assert light - {"soxr"} <= loaded


def test_loaders_import_little():
    heavy = {"luigi", "mlflow", "zarr", "pandas", "pyarrow", "scipy", "pydantic", "torch"}
    code = f"import sys, basilar.pipeline.training.loader; print(*{heavy} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_matplotlib_is_imported_only_to_draw():
    users = {file.stem for file in modules("pipeline") if "matplotlib" in packages(imports(file))}
    assert users == {"banks", "charts", "drawing", "gallery"}
    for file in [*modules("pipeline"), *modules("workflows")]:
        assert "matplotlib.pyplot" not in imports(file), file.name
    code = "import sys, basilar.pipeline.cli as c; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_only_pages_import_jinja():
    users = {file.stem for file in modules("pipeline") if "jinja2" in packages(imports(file))}
    assert users == {"page"}


# Our exceptions, which `console.laid_out` shows in three lines: the rest is of libraries' making.
MESSAGES = re.compile(
    "(Recipe|Manifest|Usage|Storage|DamagedArtifact|ForeignStore|Bundle|Canary|Picture|NoRecord|"
    "MissingAudio|Repair|Rebuild|Incomparable|TooManyBad|Busy|Cluster|Scheduler|Tracker|"
    "ChangedAudio|FileNotFound|FileExists)Error"
)
# Messages that are put together elsewhere, from others that have the form.
PUT_TOGETHER = {
    "str(error)",
    "f'{said}; {where}'",
    "'\\n'.join(lines)",
    "'\\n'.join(dict.fromkeys(problems))",
}


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


def test_errors_say_where_what_and_what_to_do():
    found = 0
    for file in [*modules("pipeline"), *modules("workflows")]:
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if not (isinstance(node, ast.Call) and len(node.args) == 1):
                continue
            name = ast.unparse(node.func).rpartition(".")[2]
            message = node.args[0]
            if MESSAGES.fullmatch(name) and ast.unparse(message) not in PUT_TOGETHER:
                said = rendered(message)
                assert said is not None, f"{file.name}:{node.lineno}: not literal"
                form = re.fullmatch("[^;]+?: .+; .+", said)
                assert form, f"{file.name}:{node.lineno}: {said}"
                found += 1
    assert found > 100


def tracked_files():
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    return [REPOSITORY / name for name in listed.stdout.splitlines()]


def test_no_file_names_a_registry():
    registry = re.compile("index" + r"-url|pypi\.org|pythonhosted|registry\.npmjs|/simple/")
    for file in tracked_files():
        if file.suffix in (".py", ".toml", ".txt", ".md", ""):
            found = registry.search(file.read_text("utf-8", "replace"))
            assert not found or file == REPOSITORY / "tests" / "test_architecture.py", file


@pytest.mark.parametrize("package", ["dsp", "pipeline", "workflows"])
def test_nothing_is_unpickled(package):
    for file in modules(package):
        assert not packages(imports(file)) & {"pickle", "cloudpickle", "joblib", "shelve"}, file
        assert "allow_pickle=True" not in file.read_text("utf-8"), file


def test_tests_mirror_the_tree():
    for package in ("dsp", "pipeline", "workflows"):
        for file in modules(package):
            place = file.relative_to(REPOSITORY).parent
            test = REPOSITORY / "tests" / place / f"test_{file.stem}.py"
            assert file.name == "__init__.py" or test.exists(), f"{file} is not tested by {test}"
