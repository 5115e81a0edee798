"""One default for one thing, whether a command, a function or a workflow is asked."""

import ast
import inspect

import typer

from basilar.pipeline import defaults
from basilar.pipeline.audio.isolation import isolated
from basilar.pipeline.build.build import Build
from basilar.pipeline.cli.options import app
from basilar.pipeline.compute.stages import decode
from basilar.pipeline.plan import Plan
from basilar.pipeline.training.feature_set import FeatureSet
from basilar.workflows.build_feature_set import BuildFeatureSet
from tests.conftest import REPOSITORY


def of_function(function):
    parameters = inspect.signature(function).parameters.values()
    return {parameter.name: parameter.default for parameter in parameters}


def of_command(name):
    import basilar.pipeline.cli.command  # noqa: F401  # registers the commands

    (found,) = (c for c in app.registered_commands if (c.name or c.callback.__name__) == name)
    command = typer.main.get_command_from_info(
        found, pretty_exceptions_short=True, rich_markup_mode=None
    )
    return {parameter.name: parameter.default for parameter in command.params}


def test_a_build_has_the_same_defaults_from_everywhere():
    command, record = of_command("build"), of_function(Build)
    workflow = {name: parameter._default for name, parameter in BuildFeatureSet.get_params()}
    for name, value in (("max_bad", defaults.MAX_BAD), ("clip_timeout", defaults.CLIP_TIMEOUT)):
        assert command[name] == record[name] == workflow[name] == value
    assert command["keep"].split(",") == workflow["keep"].split(",") == list(record["keep"])
    assert record["keep"] == defaults.KEEP
    assert command["shard_seconds"] == workflow["shard_seconds"] == defaults.SHARD_SECONDS
    assert of_function(Plan)["shard_seconds"] == defaults.SHARD_SECONDS


def test_functions_have_them_too():
    assert of_function(FeatureSet.open)["cache_bytes"] == defaults.CACHE_BYTES
    for function in (decode, isolated):
        assert of_function(function)["timeout"] == defaults.CLIP_TIMEOUT


def test_the_module_imports_nothing():
    tree = ast.parse((REPOSITORY / "pipeline" / "defaults.py").read_text("utf-8"))
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
