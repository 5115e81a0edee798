import os
import tomllib

import pytest

from basilar.errors import BasilarError, MissingLibraryError, UnsupportedSystemError
from basilar.pipeline import host
from tests.conftest import REPOSITORY

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]


def names(requirements):
    return [line.partition(">=")[0] for line in requirements if not line.startswith("basilar[")]


def test_what_extras_bring_is_what_the_project_says():
    assert list(host.CORE) == names(PROJECT["dependencies"])
    for extra, libraries in host.EXTRAS.items():
        assert list(libraries) == names(PROJECT["optional-dependencies"][extra])
    (everything,) = PROJECT["optional-dependencies"]["all"]
    assert everything == f"basilar[{','.join(name for name in host.EXTRAS if name != 'torch')}]"


def test_only_a_release_that_is_known_to_break_is_left_out():
    requirements = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    assert not [line for lines in requirements for line in lines if "<" in line or "==" in line]
    assert PROJECT["requires-python"] == ">=3.11"


def test_what_is_missing_is_named_and_not_imported(monkeypatch):
    assert host.missing("build") == []
    monkeypatch.setitem(host.EXTRAS, "build", {"luigi": "luigi", "nothing": "no_such_module"})
    assert host.missing("build") == ["nothing"]
    assert host.require("json", "here").__name__ == "json"
    with pytest.raises(MissingLibraryError, match=r"^here: it needs no_such_module .*; install"):
        host.require("no_such_module", "here")
    assert issubclass(MissingLibraryError, ImportError)
    assert issubclass(MissingLibraryError, BasilarError)


def test_a_system_without_forks_is_refused(monkeypatch):
    host.require_fork()
    monkeypatch.delattr(os, "fork")
    with pytest.raises(UnsupportedSystemError, match=r"scans and builds need .* on Linux"):
        host.require_fork()
