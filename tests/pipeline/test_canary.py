"""`python -m pipeline.canary`, which bundles print that were made before the modules moved."""

import subprocess
import sys

from basilar.pipeline.compute.canary import names
from tests.conftest import REPOSITORY


def ask(*arguments):
    command = [sys.executable, "-m", "pipeline.canary", *arguments]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)


def test_it_takes_what_the_module_of_today_takes():
    done = ask("--help")
    assert done.returncode == 2
    assert done.stderr == "usage: python -m basilar.pipeline.compute.canary [--write]\n"


def test_it_computes_every_canary():
    done = ask()
    assert (done.returncode, done.stderr) == (0, "")
    said = [line[:30].strip() for line in done.stdout.splitlines()]
    assert said == [name for name, _ in names()]
