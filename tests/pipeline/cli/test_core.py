import json
import re

import pytest

from tests.test_installs import CORE_ONLY, GOLDEN, NO_UNIX, python

RUN = """
sys.argv[0] = "basilar"
from basilar.pipeline.cli import main

main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("lacking", [CORE_ONLY, NO_UNIX, CORE_ONLY + NO_UNIX])
def test_the_command_checks_bundles_without_the_libraries_of_builds(lacking, basilar, tmp_path):
    """As the whole command does, which says the same."""
    bundle = GOLDEN / "bundle-2"
    for arguments in (
        ("--version",),
        ("check-bundle", bundle),
        ("check-bundle", bundle, "--json"),
        ("check-bundle", tmp_path),
        ("check-bundle", tmp_path, "--json"),
    ):
        done = python(lacking + RUN, *arguments)
        assert (done.returncode, done.stdout, done.stderr) == basilar(*arguments)
    assert basilar("check-bundle", bundle)[0] == 0
    assert basilar("check-bundle", tmp_path)[0] == 2


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("check-bundle",), "the following arguments are required: DIR"),
        (("check-bundle", "a", "b"), "unrecognized arguments: b"),
    ],
)
def test_wrong_use_of_what_is_left(arguments, problem):
    done = python(CORE_ONLY + RUN, *arguments, "--json")
    assert (done.returncode, json.loads(done.stdout)) == (2, {"error": problem})
    assert done.stderr.startswith("usage: basilar ")


@pytest.mark.parametrize(
    ("lacking", "problem"),
    [
        (
            CORE_ONLY,
            "all but --version and check-bundle need what is not installed (luigi, ",
        ),
        (NO_UNIX, "scans and builds need a system that forks processes"),
    ],
)
@pytest.mark.parametrize("arguments", [(), ("--help",), ("build", "log_mel", "audio"), ("nope",)])
def test_everything_else_says_what_to_install(lacking, problem, arguments):
    done = python(lacking + RUN, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    error, where, to_do = done.stderr.splitlines()
    assert error.startswith(f"error: {problem}")
    assert re.fullmatch("where: (basilar|Linux)", where)
    assert to_do.startswith("to do: ")
    done = python(lacking + RUN, *arguments, "--json")
    assert (done.returncode, list(json.loads(done.stdout))) == (2, ["error"])


def test_the_module_is_the_command():
    run = "import runpy\nsys.argv[0] = 'basilar'\nrunpy.run_module('basilar', run_name='__main__')"
    done = python(CORE_ONLY + run, "--version")
    assert (done.returncode, done.stdout) == (0, "basilar 0.3.0\n")
    assert python(CORE_ONLY + run, "doctor").stderr.startswith("error: all but --version and ")
