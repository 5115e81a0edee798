"""What is wrong with a recipe, in words: the key, its line, what is allowed, the nearest guess."""

import contextlib
import difflib
import tomllib
from collections.abc import Mapping
from typing import Any

from basilar.pipeline.recipes.kinds.registry import KINDS

_SEARCHED = 10_000  # characters of the longest recipe in which a mistake's line is found


def beginnings(toml: str) -> list[tuple[int, Any]]:
    """What the first lines of a text say, and how many they are, unless they end in a value."""
    found = []
    lines = toml.splitlines(keepends=True) if len(toml) <= _SEARCHED else []
    for n in range(1, len(lines) + 1):
        with contextlib.suppress(ValueError, RecursionError):
            found.append((n, tomllib.loads("".join(lines[:n]))))
    return found


def line_of(beginnings: list[tuple[int, Any]], keys: list[str]) -> str:
    """`, line N`, after which the key is there, or if it never is, the table around it."""
    for depth in range(len(keys), 0, -1):
        for n, value in beginnings:
            for key in keys[:depth]:
                value = value.get(key) if isinstance(value, dict) else None
            if value is not None:
                return f", line {n}"
    return ""


def explain(error: Any, table: dict[str, Any], fields: Mapping[str, Any]) -> tuple[list[str], str]:
    """One validation error of pydantic: its keys; and the key, what is wrong, what is allowed.

    `fields` are the sections of a recipe (`Recipe.model_fields`).
    """
    where = [str(part) for part in error["loc"]]
    section = KINDS.get(where[1]) if where[:1] == ["representation"] and len(where) > 1 else None
    if section is not None:  # pydantic puts the chosen kind into the path
        where.pop(1)
    elif where and where[0] in fields:
        annotation = fields[where[0]].annotation
        section = annotation if isinstance(annotation, type) else None
    # Members of a union of types are named after the key: the key is what the user can change.
    keys = where[:2]
    key = ".".join(part[:100] for part in keys)
    key = key if key.isprintable() else ascii(key)
    given = error["input"]
    match error["type"]:
        case "extra_forbidden":
            known = fields if len(where) == 1 or section is None else section.model_fields
            return keys, f"{key} is not a key; {nearest(where[-1], list(known))}"
        case "union_tag_invalid" | "union_tag_not_found":
            kind = table.get("representation", {}).get("kind", "")
            problem = f"{key}.kind = {short(kind)} is not a kind"
            return [*keys, "kind"], f"{problem}; {nearest(str(kind), list(KINDS))}"
        case "missing":
            return keys, f"{key} is missing; add it"
        case "value_error":  # of our own validators, which name the key
            text = str(error["ctx"]["error"])
            first = text.removeprefix(f"{key}: ").split(" ", 1)[0].rstrip(",:")
            if len(keys) < 2 and first in (section.model_fields if section else fields):
                keys = [*keys, first]
            return keys, text if not key or text.startswith(key) else f"{key}: {text}"
        case "literal_error" if isinstance(given, str):
            expected = error["ctx"]["expected"].replace(" or ", ",").split(",")
            allowed = nearest(given, [name.strip("' ") for name in expected])
        case _:
            allowed = error["msg"].replace("Input should be ", "it must be ")
    return keys, f"{key} = {short(given)} is refused; {allowed}"


def short(value: Any) -> str:
    """A value as a recipe has it, the beginning of a long one."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of too many digits, tables in tables
        text = f"a value of type {type(value).__name__}"
    return text if len(text) <= 200 else f"{text[:200]}…"


def nearest(word: str, allowed: list[str]) -> str:
    """The allowed word that comes nearest, as a question; else all that are allowed."""
    near = difflib.get_close_matches(word[:100], allowed, 1)
    return f"did you mean {near[0]}?" if near else f"allowed: {', '.join(allowed)}"
