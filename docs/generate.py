"""Write the tables of fields in recipes.md from the types: `python docs/generate.py`.

A test compares them with the types.
"""

import inspect
from pathlib import Path
from typing import Any

from basilar.pipeline.recipes.kinds.base import Section
from basilar.pipeline.recipes.kinds.constant_q import ConstantQ
from basilar.pipeline.recipes.kinds.framed import Framed, Logarithmic
from basilar.pipeline.recipes.kinds.mel import MelBands
from basilar.pipeline.recipes.kinds.registry import KINDS
from basilar.pipeline.recipes.recipe import Decode, Normalization, Recipe, Resample, Store

PAGE = Path(__file__).with_name("recipes.md")
BEGIN, END = "<!-- fields: by docs/generate.py -->\n", "<!-- end of fields -->\n"
SECTIONS = {"decode": Decode, "resample": Resample, "normalization": Normalization, "store": Store}
GROUPS = {
    "Frames": Framed,
    "Mel bands": MelBands,
    "Logarithm": Logarithmic,
    "Constant Q": ConstantQ,
}


def tables() -> str:
    """All sections, groups and kinds, each with its fields, as Markdown."""
    names = [name for name in Recipe.model_fields if name not in {*SECTIONS, "representation"}]
    parts = ["### Top level", "", *_rows(Recipe, names)]
    for name, section in SECTIONS.items():
        text = inspect.getdoc(section) or ""
        parts += [f"### `[{name}]`", "", text, "", *_rows(section, _own(section))]
    parts += ["### `[representation]`", "", f"`kind` is one of {', '.join(map(_code, KINDS))}.", ""]
    for title, group in GROUPS.items():
        kinds = ", ".join(_code(name) for name, kind in KINDS.items() if issubclass(kind, group))
        parts += [f"#### {title}", "", f"Shared by {kinds}.", "", *_rows(group, _own(group))]
    for name, kind in KINDS.items():
        groups = [title for title, group in GROUPS.items() if issubclass(kind, group)]
        dtype = _values(kind.model_json_schema()["properties"]["dtype"])
        text = f"{inspect.getdoc(kind)} Fields: {', '.join([*groups, f'`dtype` ({dtype})'])}"
        own = [field for field in _own(kind) if field not in ("kind", "dtype")]
        parts += [f"#### `{name}`", "", f"{text}{', and' if own else '.'}", ""]
        parts += _rows(kind, own) if own else []
    return "\n".join(parts)


def page(text: str) -> str:
    """A page with the tables between its two marks written again."""
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{tables()}\n{END}{rest.split(END)[1]}"


def _own(section: type[Section]) -> list[str]:
    """The fields that a class defines or overrides."""
    return [name for name in section.__annotations__ if name in section.model_fields]


def _rows(section: type[Section], names: list[str]) -> list[str]:
    properties = section.model_json_schema()["properties"]
    rows = ["| field | values | default | |", "|---|---|---|---|"]
    for name in names:
        schema, value = properties[name], section.model_fields[name].default
        default = "none" if value is None else _code(_toml(value))
        rows.append(f"| `{name}` | {_values(schema)} | {default} | {_described(section, name)} |")
    return [*rows, ""]


def _described(section: type[Section], name: str) -> str:
    """The description of a field, from the class or from the one that it overrides."""
    fields = (base.model_fields.get(name) for base in section.__mro__ if issubclass(base, Section))
    text = next((field.description for field in fields if field and field.description), None)
    if text is None:
        raise ValueError(f"{section.__name__}.{name} has no docstring")
    return " ".join(text.split()).replace("|", "\\|")


def _values(schema: dict[str, Any]) -> str:
    """The values that a JSON Schema allows, in words."""
    if "anyOf" in schema:
        return ", or ".join(
            _values(option) for option in schema["anyOf"] if option.get("type") != "null"
        )
    if "enum" in schema or "const" in schema:
        return ", ".join(_code(_toml(value)) for value in schema.get("enum", [schema.get("const")]))
    kind = {"integer": "whole number", "number": "number", "boolean": "`true`, `false`"}
    words = [kind.get(schema["type"], "text")]
    bounds = {
        "minimum": "from",
        "exclusiveMinimum": "above",
        "maximum": "to",
        "exclusiveMaximum": "below",
    }
    words += [
        f"{word} {_number(schema[bound])}" for bound, word in bounds.items() if bound in schema
    ]
    return " ".join(words)


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)


def _code(text: str) -> str:
    return f"`{text}`"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text("utf-8")), "utf-8")
