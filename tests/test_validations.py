"""A recipe that was validated is not validated again: once a command, in all its processes.

Commands that write a bundle are left out: it is read again, as whoever gets it will, to prove it.
"""

import json
from collections import Counter

import pytest

from basilar.pipeline.recipes.recipe import Recipe
from tests.conftest import SMALL

COMMANDS = {
    "recipe": ["recipe", "{recipe}"],
    "show": ["show", "{key}", "--root", "{root}"],
    "ls": ["ls", "--root", "{root}"],
    "verify": ["verify", "{key}", "--root", "{root}", "--sample", "2"],
    "reproduce": ["reproduce", "{key}", "--root", "{root}", "--workers", "2"],
    "build --dry-run": ["build", "{recipe}", "{manifest}", "--root", "{root}", "--dry-run"],
    "report": ["report", "{key}", "--root", "{root}", "-o", "{elsewhere}.html"],
    "plot": ["plot", "{key}", "a/00.wav", "--root", "{root}", "-o", "{elsewhere}.png"],
}


@pytest.fixture
def validated(monkeypatch, tmp_path):
    """How often each recipe is validated from now on: a file, which forked processes share."""
    file, validate = tmp_path / "validated", Recipe.model_validate
    file.touch()

    def note(recipe):
        with file.open("a") as lines:
            lines.write(json.dumps(recipe.resolved(), sort_keys=True) + "\n")
        return recipe

    def init(self, **sections):
        super(Recipe, self).__init__(**sections)
        note(self)

    monkeypatch.setattr(Recipe, "model_validate", lambda *a, **k: note(validate(*a, **k)))
    monkeypatch.setattr(Recipe, "__init__", init)
    return lambda: Counter(file.read_text().splitlines())


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_validates_a_recipe_once(name, validated, basilar, built, root, tmp_path):
    (tmp_path / "small.toml").write_text(Recipe.from_dict(SMALL).to_toml())
    own = json.dumps(Recipe.from_dict(SMALL).resolved(), sort_keys=True)
    before = validated()[own]
    assert before == 2  # the counter counts
    built.plan.manifest.write(tmp_path / "m.parquet")
    values = {
        "recipe": tmp_path / "small.toml",
        "manifest": tmp_path / "m.parquet",
        "key": built.plan.key,
        "root": root,
        "elsewhere": tmp_path / "elsewhere",
    }
    code, out, err = basilar(*(part.format(**values) for part in COMMANDS[name]))
    assert code == 0, (out, err)
    validated = validated()
    assert validated[own] - before == 1
    assert all(count == 1 for recipe, count in validated.items() if recipe != own)
