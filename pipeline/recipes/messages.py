"""Messages about mistakes in recipes: the key, its line, what is allowed, the nearest guess."""

import contextlib
import difflib
import tomllib
from collections.abc import Mapping
from typing import Any

from basilar.pipeline.recipes.kinds.registry import KINDS

_SEARCHED = 10_000  # characters: in longer recipes, the line of a mistake is not searched for


def parse_beginnings(toml: str) -> list[tuple[int, Any]]:
    """The tables that the first n lines of a text hold, with n, for each n that is valid TOML."""
    found = []
    lines = toml.splitlines(keepends=True) if len(toml) <= _SEARCHED else []
    for n in range(1, len(lines) + 1):
        with contextlib.suppress(ValueError, RecursionError):
            found.append((n, tomllib.loads("".join(lines[:n]))))
    return found


def name_line(beginnings: list[tuple[int, Any]], keys: list[str]) -> str:
    """`, line N`: the line that adds the key or, if none does, the table around it."""
    for depth in range(len(keys), 0, -1):
        for n, value in beginnings:
            for key in keys[:depth]:
                value = value.get(key) if isinstance(value, dict) else None
            if value is not None:
                return f", line {n}"
    return ""


def explain(error: Any, table: dict[str, Any], fields: Mapping[str, Any]) -> tuple[list[str], str]:
    """Explain a validation error of pydantic: its keys, and a message with what is allowed.

    `fields` are the sections of a recipe (`Recipe.model_fields`).
    """
    where = [str(part) for part in error["loc"]]
    section = KINDS.get(where[1]) if where[:1] == ["representation"] and len(where) > 1 else None
    if section is not None:  # pydantic adds the kind to the path
        where.pop(1)
    elif where and where[0] in fields:
        annotation = fields[where[0]].annotation
        section = annotation if isinstance(annotation, type) else None
    # For a union of types, pydantic adds their names to the path: users can only change the key.
    keys = where[:2]
    key = ".".join(part[:100] for part in keys)
    key = key if key.isprintable() else ascii(key)
    given = error["input"]
    match error["type"]:
        case "extra_forbidden":
            known = fields if len(where) == 1 or section is None else section.model_fields
            return keys, f"{key} is not a key; {suggest(where[-1], list(known))}"
        case "union_tag_invalid" | "union_tag_not_found":
            kind = table.get("representation", {}).get("kind", "")
            problem = f"{key}.kind = {abbreviate(kind)} is not a kind"
            return [*keys, "kind"], f"{problem}; {suggest(str(kind), list(KINDS))}"
        case "missing":
            return keys, f"{key} is missing; add it"
        case "value_error":  # raised by our own validators, which name the key
            text = str(error["ctx"]["error"])
            first = text.removeprefix(f"{key}: ").split(" ", 1)[0].rstrip(",:")
            if len(keys) < 2 and first in (section.model_fields if section else fields):
                keys = [*keys, first]
            return keys, text if not key or text.startswith(key) else f"{key}: {text}"
        case "literal_error" if isinstance(given, str):
            expected = error["ctx"]["expected"].replace(" or ", ",").split(",")
            allowed = suggest(given, [name.strip("' ") for name in expected])
        case _:
            allowed = error["msg"].replace("Input should be ", "it must be ")
    return keys, f"{key} = {abbreviate(given)} is refused; {allowed}"


def abbreviate(value: Any) -> str:
    """A value as text, cut after 200 characters."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer with too many digits, tables nested too deep
        text = f"a value of type {type(value).__name__}"
    return text if len(text) <= 200 else f"{text[:200]}…"


def suggest(word: str, allowed: list[str]) -> str:
    """Ask whether the nearest allowed word was meant; if none is near, list all."""
    near = difflib.get_close_matches(word[:100], allowed, 1)
    return f"did you mean {near[0]}?" if near else f"allowed: {', '.join(allowed)}"
