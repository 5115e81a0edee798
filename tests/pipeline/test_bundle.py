"""`python -m pipeline.bundle`, which bundles print that were made before the modules moved."""

import subprocess
import sys

from tests.conftest import REPOSITORY


def ask(folder):
    command = [sys.executable, "-m", "pipeline.bundle", *([folder] if folder else [])]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)


def test_it_takes_one_folder_and_says_what_is_no_bundle(tmp_path):
    assert ask("").returncode == 2
    done = ask(str(tmp_path))
    assert (done.returncode, done.stdout) == (1, "")
    assert f"{tmp_path}: no bundle here" in done.stderr


def test_a_class_from_the_old_name_is_the_one_of_today():
    code = (
        "from pipeline.bundle import Bundle as old; from basilar import Bundle as new;"
        "from pipeline.audio import AudioError as a; from basilar.errors import AudioError as b;"
        "print(old is new, a is b)"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True"]
