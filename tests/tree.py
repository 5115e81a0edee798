"""The code as tests look at it: every package and every module, found and not typed."""

import ast
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tests.conftest import REPOSITORY

# What is installed: every package at the top level but the tests.
PACKAGES = sorted({file.parent.name for file in REPOSITORY.glob("*/__init__.py")} - {"tests"})


def modules(*packages: str) -> list[Path]:
    """The files of some packages, however deep; by default of all."""
    found = (REPOSITORY / package for package in packages or PACKAGES)
    return sorted(file for folder in found for file in folder.rglob("*.py"))


def tracked_files() -> list[Path]:
    """The files and links that git tracks, and new ones that it does not ignore."""
    command = ["git", "ls-files", "-z", "-co", "--exclude-standard"]
    listed = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    files = (REPOSITORY / name for name in listed.stdout.split("\0") if name)
    return [file for file in files if file.exists()]


def copy_to(folder: Path) -> None:
    """Copy them to another folder; links stay links."""
    for file in tracked_files():
        copy = folder / file.relative_to(REPOSITORY)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(file, copy, follow_symlinks=False)


def inside(file: Path) -> str:
    """The path of a file in the repository, with forward slashes."""
    return file.relative_to(REPOSITORY).as_posix()


def name_of(file: Path) -> str:
    """The name that a module is imported by."""
    parts = file.relative_to(REPOSITORY).with_suffix("").parts
    name = ".".join(part for part in parts if part != "__init__")
    return name if name.split(".")[0] == "basilar" else f"basilar.{name}"


@cache
def parsed(file: Path) -> ast.Module:
    """The syntax of a module."""
    return ast.parse(file.read_text("utf-8"))


def nodes_at_import(node: ast.AST) -> Iterator[ast.AST]:
    """What runs when a module is imported: no function, and nothing that is there for types."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from nodes_at_import(child)


def imports(file: Path, *, at_import: bool = False) -> set[str]:
    """Names that a module imports, also `package.name` of what may be a module of a package.

    Everywhere in it, or only when it is imported.
    """
    tree = parsed(file)
    names: set[str] = set()
    for node in nodes_at_import(tree) if at_import else ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{inside(file)}: a relative import"
            assert node.module is not None
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def roots(names: set[str]) -> set[str]:
    """The top-level packages of names."""
    return {name.split(".")[0] for name in names}
