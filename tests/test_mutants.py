import ast
import re

from tests import mutants
from tests.conftest import REPOSITORY


def test_forty_are_drawn_from_all_that_is_to_be_drawn_from():
    drawn = mutants.drawn()
    assert len(drawn) == len(set(drawn)) == sum(mutants.DRAWN.values()) == 40
    assert drawn == mutants.drawn()
    assert len({mutant.sort for mutant in drawn}) == 6


def test_a_mutant_is_its_module_with_one_line_changed():
    for mutant in mutants.drawn():
        original = (REPOSITORY / mutant.path).read_text("utf-8")
        assert ast.dump(ast.parse(mutant.source)) != ast.dump(ast.parse(original))
        words, others = original.split(), mutant.source.split()
        before, after = mutant.before.split(), mutant.after.split()
        assert before != after
        assert len(words) - len(before) == len(others) - len(after)
        ends = [i for i in range(len(words)) if words[i : i + len(before)] == before]
        assert any([*words[:i], *after, *words[i + len(before) :]] == others for i in ends)


def test_the_tests_that_are_said_to_kill_mutants_are_there():
    page = (REPOSITORY / "docs" / "mutations.md").read_text("utf-8")
    named = set(re.findall(r"`test_\w+\.py::(\w+)`", page))
    sources = (file.read_text("utf-8") for file in (REPOSITORY / "tests").rglob("test_*.py"))
    defined = re.findall(r"^def (test_\w+)", "\n".join(sources), re.M)
    assert len(named) > 30
    assert named <= set(defined)
