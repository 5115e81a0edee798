import ast
import json
import os
import subprocess
import sys
from importlib.util import find_spec

import pytest

from basilar.pipeline import process
from tests.conftest import REPOSITORY

# The state of a process that a library has no business to change, as JSON can say it.
STATE = """
import json, locale, logging, os, signal, sys, warnings
from importlib import import_module

def state():
    import luigi
    loggers = [logging.root, *map(logging.getLogger, sorted(logging.root.manager.loggerDict))]
    mask = os.umask(0)
    os.umask(mask)
    config = luigi.configuration.get_config()
    return {
        "environment": dict(os.environ),
        "signals": {n: str(signal.getsignal(n)) for n in signal.valid_signals()},
        "handlers": {l.name: str(l.handlers) for l in loggers if l.handlers},
        "levels": {l.name: [l.level, l.propagate] for l in loggers if l.level or not l.propagate},
        "luigi": {section: dict(config.items(section)) for section in config.sections()},
        "events": {str(k): list(map(str, v)) for k, v in luigi.Task._event_callbacks.items()},
        "locale": locale.setlocale(locale.LC_ALL),
        "warnings": list(map(str, warnings.filters)),
        "umask": mask,
        "hooks": [str(sys.excepthook), str(sys.unraisablehook)],
        "recursion": sys.getrecursionlimit(),
    }
"""
IMPORTS_CHANGE_NOTHING = f"""{STATE}
import tracemalloc
modules, others = json.loads(sys.stdin.read())
for name in others:  # what they do when they are imported is their own affair
    import_module(name)
before = state()
largest = 0
tracemalloc.start()
for name in modules:
    tracemalloc.reset_peak()
    held = tracemalloc.get_traced_memory()[0]
    import_module(name)
    largest = max(largest, tracemalloc.get_traced_memory()[1] - held)
after = state()
print(json.dumps([before, after, largest]))
"""


def modules():
    """All modules of the package by name, but workflows, which are commands."""
    files = [f for room in ("dsp", "pipeline") for f in (REPOSITORY / room).rglob("*.py")]
    dotted = {".".join(f.relative_to(REPOSITORY).with_suffix("").parts): f for f in files}
    if find_spec("torch") is None:  # which is optional
        del dotted["pipeline.training.torch"]
    return {f"basilar.{name.removesuffix('.__init__')}": f for name, f in sorted(dotted.items())}


def other_packages(files):
    """Every module of somebody else that these files import at their top."""
    names = set()
    for file in files:
        for node in ast.parse(file.read_text("utf-8")).body:
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add(node.module)
    return sorted(name for name in names if name.split(".")[0] not in ("basilar", "__future__"))


def ran(code, given=None):
    """What a fresh process prints, whose environment is not the one that tests have configured."""
    plain = {k: v for k, v in os.environ.items() if k not in process._ENVIRONMENT}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=plain,
        input=json.dumps(given),
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def imported():
    found = modules()
    return ran(IMPORTS_CHANGE_NOTHING, [list(found), other_packages(found.values())])


@pytest.mark.slow
def test_imports_change_nothing_of_the_process(imported):
    before, after, _ = imported
    assert before["signals"]
    for name, value in before.items():
        assert after[name] == value, name


def test_no_import_makes_a_large_array(imported):
    *_, largest = imported
    assert 0 < largest < 12 << 20  # bytes: code, and classes of pydantic


def test_what_is_configured_is_said_once_and_leaves_what_the_user_has_set():
    code = f"""{STATE}
import basilar.pipeline.process as process
os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = "3"
import luigi
luigi.configuration.get_config().set("retcode", "not_run", "7")
process.configure()
once = state()
process.configure()
print(json.dumps([once, state()]))
"""
    once, twice = ran(code)
    assert once == twice
    assert once["environment"]["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "3"
    assert once["environment"]["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert once["environment"]["ARROW_DEFAULT_MEMORY_POOL"] == "system"
    assert once["luigi"]["worker"]["check_unfulfilled_deps"] == "false"
    assert once["luigi"]["retcode"] == {
        **dict.fromkeys(
            ["already_running", "missing_data", "task_failed", "scheduling_error"], "1"
        ),
        **{"not_run": "7", "unhandled_exception": "2"},
    }


def test_nothing_is_imported_to_be_configured():
    code = """
import json, sys
from basilar.pipeline.process import configure
configure()
print(json.dumps(sorted({"numpy", "luigi", "mlflow", "pyarrow"} & sys.modules.keys())))
"""
    assert ran(code) == []


COMMAND = """
import sys
from basilar.pipeline import cli
sys.argv = ["basilar", "recipe", "--schema"]
sys.stdout = sys.stderr
try:
    cli.main()
except SystemExit:
    sys.stdout = sys.__stdout__
"""
ENTRIES = {
    "command": COMMAND,
    "workflow": "import basilar.workflows.build_feature_set",
    "engine": """
from basilar.pipeline.build import luigi_engine
try:
    luigi_engine.run(None, workers=1)
except AttributeError:  # it is no build
    pass
""",
}


@pytest.mark.slow
@pytest.mark.parametrize("entry", ENTRIES)
def test_commands_workflows_and_builds_begin_with_it(entry):
    once = ran(f"{ENTRIES[entry]}\n{STATE}\nprint(json.dumps(state()))")
    assert once["environment"]["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert ("retcode" in once["luigi"]) == (entry != "command")  # which imports no Luigi for this
