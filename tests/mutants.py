"""Faults planted in the code, one at a time: does a test fail? `python -m tests.mutants [WORD]`.

A mutant is a module with one change. It is killed if the tests that mirror the module, or the
examples in its docstrings, fail on it; it survives if they pass. A survivor is a missing test, or a
change that nobody can observe: `docs/mutations.md` says which, for all that are drawn.

What is drawn depends on `SEED`, the function and the change, not on where files lie. With WORD,
only the mutants of modules that have it in their path are tried. The tests of a module first run
without a fault, which they must pass, and with one that they cannot miss.
"""

import ast
import hashlib
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.conftest import REPOSITORY
from tests.tree import copy_to

SEED = 17
PACKAGES = ("dsp", "pipeline")
DRAWN = {  # which modules, by their path, and how many mutants of them
    r"dsp/\w+\.py": 16,
    r"pipeline/(\w+/)*(keys|hashing|hashes)\.py": 8,
    r"pipeline/(\w+/)*(store|store/\w+|layout|writer|reader)\.py": 8,
    r"pipeline/(\w+/)*loader\.py": 8,
}
_MEMORY = 12 << 30  # bytes, where there is no limit yet: a mutant may ask for all there are
_COMPARED = {
    **{ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt},
    **{ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is},
    **{ast.In: ast.NotIn, ast.NotIn: ast.In},
}
_COMPUTED = {
    **{ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult},
    **{ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult, ast.LShift: ast.RShift, ast.RShift: ast.LShift},
    **{ast.BitAnd: ast.BitOr, ast.BitXor: ast.BitAnd},
}


class Mutant(NamedTuple):
    """A module with one change, which is of some sort: its lines before and after, and the whole.

    `function` has the names of the classes it is in, and is empty outside of functions.
    """

    path: Path
    function: str
    sort: str
    before: str
    after: str
    source: str


def drawn() -> list[Mutant]:
    """The mutants that are drawn, module by module."""
    files = [file for package in PACKAGES for file in (REPOSITORY / package).rglob("*.py")]
    paths = sorted(file.relative_to(REPOSITORY) for file in files)
    found: list[Mutant] = []
    for pattern, count in DRAWN.items():
        chosen = [path for path in paths if re.fullmatch(pattern, path.as_posix())]
        candidates = sorted((mutant for path in chosen for mutant in mutants(path)), key=_lot)
        turns: Counter[str] = Counter()

        def turn(mutant: Mutant, turns: Counter[str] = turns) -> int:
            turns[mutant.sort] += 1
            return turns[mutant.sort]

        # Sorts take turns: else most would be constants.
        found += sorted(candidates, key=turn)[:count]
    return sorted(found, key=lambda mutant: mutant[:-1])


def _lot(mutant: Mutant) -> str:
    lines = (re.sub(" +#.*", "", line) for line in (mutant.before, mutant.after))
    what = "\n".join((str(SEED), mutant.function, mutant.sort, *lines))
    return hashlib.sha256(what.encode()).hexdigest()


def mutants(path: Path) -> Iterator[Mutant]:
    """All mutants of a module, by its path in the repository."""
    source = (REPOSITORY / path).read_bytes()
    begins = [0]  # of lines, in bytes: so are the columns of nodes
    for line in source.splitlines(keepends=True):
        begins.append(begins[-1] + len(line))
    for node, function in _nodes(ast.parse(source), ()):
        for sort, place, text in _changes(node):
            first, last = begins[place.lineno - 1], begins[place.end_lineno or 0]
            start = first + place.col_offset
            end = begins[(place.end_lineno or 0) - 1] + (place.end_col_offset or 0)
            new = text.encode()
            after = source[first:start] + new + source[end:last]
            yield Mutant(
                path,
                function=".".join(function),
                sort=sort,
                before=" ".join(source[first:last].decode().split()),
                after=" ".join(after.decode().split()),
                source=(source[:first] + after + source[last:]).decode(),
            )


def _nodes(node: ast.AST, function: tuple[str, ...]) -> Iterator[tuple[ast.AST, tuple[str, ...]]]:
    """All that may be changed, each with the names of the classes and functions around it.

    Annotations, decorators, texts and what only a type checker sees stay as they are.
    """
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        function = (*function, node.name)
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        return
    yield node, function
    for name, field in ast.iter_fields(node):
        if name not in ("annotation", "returns", "decorator_list"):
            for child in field if isinstance(field, list) else [field]:
                # Before Python 3.12 nodes within formatted texts do not know their places.
                if isinstance(child, ast.AST) and not isinstance(child, ast.JoinedStr):
                    yield from _nodes(child, function)


def _changes(node: ast.AST) -> Iterator[tuple[str, ast.expr | ast.stmt, str]]:
    """What a node may be changed to: the sort of change, what is replaced, and the text for it."""
    tests: list[ast.expr] = []
    match node:
        case ast.Compare(left, ops, others):
            for i, op in enumerate(ops):
                turned = [*ops[:i], _COMPARED[type(op)](), *ops[i + 1 :]]
                yield "comparison", node, ast.unparse(ast.Compare(left, turned, others))
        case (
            ast.BinOp(ast.Constant(str()) | ast.JoinedStr())
            | ast.BinOp(right=ast.Constant(str()) | ast.JoinedStr())
        ):
            pass  # paths and texts are put together, not computed
        case ast.BinOp(left, op, right) if type(op) in _COMPUTED:
            yield "arithmetic", node, ast.unparse(ast.BinOp(left, _COMPUTED[type(op)](), right))
        case ast.AugAssign(target, op, value) if type(op) in _COMPUTED:
            other = ast.AugAssign(target, _COMPUTED[type(op)](), value)
            yield "arithmetic", node, ast.unparse(other)
            yield "statement", node, "pass"
        case ast.BoolOp(op, values):
            swapped = ast.Or() if isinstance(op, ast.And) else ast.And()
            yield "condition", node, ast.unparse(ast.BoolOp(swapped, values))
        case ast.If(test) | ast.While(test) | ast.IfExp(test):
            tests = [test]
        case ast.comprehension(ifs=tests):
            pass
        case ast.Constant(bool(value)):
            yield "constant", node, str(not value)
        case ast.Constant(int(value)):
            yield from (("constant", node, str(value + step)) for step in (1, -1))
        case ast.Constant(float(value)):
            yield "constant", node, repr(1.1 * value or 1.0)
        case ast.Call(func, args, keywords):
            for keyword in filter(lambda keyword: keyword.arg, keywords):
                rest = [other for other in keywords if other is not keyword]
                yield "keyword", node, ast.unparse(ast.Call(func, args, rest))
        case ast.Expr(ast.Call()) | ast.Raise() | ast.Continue() | ast.Break():
            yield "statement", node, "pass"
    for test in tests:
        if not isinstance(test, ast.Compare | ast.Constant):  # which have changes of their own
            yield "condition", test, ast.unparse(ast.UnaryOp(ast.Not(), test))


class Tree:
    """A copy of the repository in a folder, to plant faults in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "repository"
        copy_to(self.folder)
        shared = REPOSITORY.parent / "shared"  # the corpora, beside the repository
        if shared.exists():
            (folder / "shared").symlink_to(shared)

    def failure(self, path: Path, source: str, timeout: float = 600.0) -> str:
        """What fails first of a module's tests, if that is its source; empty if all pass."""
        original = (self.folder / path).read_text("utf-8")
        mirror = Path("tests") / path.parent / f"test_{path.stem}.py"
        # Without bytecode: that of a file of the same size and second counts as the file's.
        command = [
            sys.executable,
            "-B",
            "-m",
            "pytest",
            "-x",
            "-p",
            "no:cacheprovider",
            "-m",
            "not torture",
        ]
        command += ["--hypothesis-seed=0", str(mirror), str(path)]
        (self.folder / path).write_text(source, "utf-8")
        try:
            done = subprocess.run(
                command,
                cwd=self.folder,
                env={**os.environ, "PYTHONPATH": str(self.folder)},
                capture_output=True,
                text=True,
                timeout=timeout,
            )
        except subprocess.TimeoutExpired:
            return f"no end within {timeout:.0f} s"
        finally:
            (self.folder / path).write_text(original, "utf-8")
        if done.returncode == 0:
            return ""
        named = re.search(r"^(?:FAILED|ERROR) (?:[\w-]+/)*(\w+\.py[\w.:]*)", done.stdout, re.M)
        return named[1] if named else f"status {done.returncode}"


def main(word: str = "") -> None:
    """Try the mutants that are drawn; print a row of a table for each."""
    if resource.getrlimit(resource.RLIMIT_AS)[1] == resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    seconds: dict[Path, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        tree = Tree(Path(folder))
        print("| place | change | became |\n|---|---|---|", flush=True)
        for mutant in drawn():
            path = mutant.path
            if word not in path.as_posix():
                continue
            if path not in seconds:
                started = time.monotonic()
                if failure := tree.failure(path, (REPOSITORY / path).read_text("utf-8")):
                    sys.exit(f"{path}: its tests fail without a fault ({failure}); mend them first")
                seconds[path] = time.monotonic() - started
                if not tree.failure(path, "raise ImportError('planted')\n"):
                    sys.exit(f"{path}: its tests pass without it; they import another copy of it")
            failure = tree.failure(path, mutant.source, timeout=60 + 10 * seconds[path])
            place = f"`{path.name}` {mutant.function or 'top level'}"
            became = f"killed by `{failure}`" if failure else "SURVIVED"
            change = f"`{mutant.before}` → `{mutant.after}`".replace("|", r"\|")
            print(f"| {place} | {change} | {became} |", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
