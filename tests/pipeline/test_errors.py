"""Every BasilarError, found in the code: its base, its built-in, its place."""

import ast
import builtins
import importlib

import pytest

import basilar.errors
from basilar.pipeline import errors
from tests import tree


def classes():
    """Every exception class of the code by name: the names of its bases, and its file."""
    defined = {}
    for file in tree.modules():
        for node in ast.walk(tree.parsed(file)):
            if isinstance(node, ast.ClassDef):
                bases = [ast.unparse(base).rpartition(".")[2] for base in node.bases]
                assert node.name not in defined or not node.name.endswith("Error"), node.name
                defined[node.name] = bases, file

    def ancestors(name, seen=frozenset()):
        found = {name}
        for base in defined.get(name, ((), None))[0]:
            found |= ancestors(base, seen | {name}) if base not in seen else set()
        return found

    raised = {}
    for name, (_, file) in defined.items():
        above = ancestors(name) - {name}
        native = {base for base in above if isinstance(getattr(builtins, base, None), type)}
        native = {base for base in native if issubclass(getattr(builtins, base), BaseException)}
        if native:
            raised[name] = above, native, file
    return raised


CLASSES = classes()
# They were exceptions of no other kind before they had a base in common.
PLAIN = {"AudioError", "BasilarError", "StoppedError", "UsageError"}


def test_there_are_as_many_as_we_know_of():
    assert len(CLASSES) > 25
    assert {"RecipeError", "AudioError", "MissingAudioError", "UsageError"} <= CLASSES.keys()


@pytest.mark.parametrize("name", sorted(CLASSES.keys() - {"BasilarError"}))
def test_an_error_derives_from_our_base_and_a_built_in(name):
    above, native, _ = CLASSES[name]
    assert name.endswith("Error")
    assert "BasilarError" in above
    assert native - {"Exception"} or name in PLAIN


def test_the_door_has_every_class_of_the_room():
    of_room = {name for name, (_, _, file) in CLASSES.items() if file.name == "errors.py"}
    assert len(of_room) > 15
    assert of_room <= set(basilar.errors.__all__)
    for name in of_room:
        assert getattr(basilar.errors, name) is getattr(errors, name)
    for name in basilar.errors.__all__:
        assert issubclass(getattr(basilar.errors, name), errors.BasilarError)


def test_the_command_tells_basilars_errors_by_their_base():
    text = importlib.import_module("basilar.pipeline.text")
    assert text.explain_error(errors.RecipeError("a: b; c")) == "a: b; c"
    assert "report what it prints" in text.explain_error(ValueError("a: b; c"))
