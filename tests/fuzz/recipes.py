"""Recipes drawn from the types that recipes are made of: every kind, every field, every bound."""

import types
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types as bounds
from hypothesis import strategies as st
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from basilar.pipeline.recipes.kinds.registry import KINDS
from basilar.pipeline.recipes.recipe import Recipe

ABSENT = object()  # a value that TOML cannot write: the key is left out
WRONG = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([10**300, -(10**20), 0, 1, 2**63]),
    st.floats(),
    st.text(max_size=20),
    st.dates(),
    st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=3),
)


def tables(kind: str) -> st.SearchStrategy[dict[str, Any]]:
    """Tables of recipes of a kind, valid field by field; most keys are left out."""
    sections = {
        name: _section(field.annotation)
        for name, field in Recipe.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
    }
    # Rates that are in use: most filters are refused at others.
    rates = st.sampled_from([8000, 16000, 22050, 44100])
    usual = st.fixed_dictionaries({"sample_rate": rates})
    sections["resample"] = st.one_of(usual, usual, sections["resample"])
    return st.fixed_dictionaries(
        {"representation": _section(KINDS[kind])},
        optional={**sections, "name": st.text(max_size=9)},
    )


@st.composite
def _section(draw: st.DrawFn, section: type[BaseModel]) -> dict[str, Any]:
    fields = section.model_fields
    table = {}
    for name, field in fields.items():
        if field.is_required() or draw(st.integers(0, 3)) == 0:
            value = draw(of(field.annotation, tuple(field.metadata)))
            if value is not ABSENT:
                table[name] = value
    return table


def of(annotation: Any, metadata: tuple[Any, ...] = ()) -> st.SearchStrategy[Any]:
    """Values of a type of a field, and of its bounds."""
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *more = get_args(annotation)
        flat = [m for x in more for m in (x.metadata if isinstance(x, FieldInfo) else [x])]
        return of(inner, (*metadata, *flat))
    if origin is Literal:
        return st.sampled_from(get_args(annotation))
    if origin in (Union, types.UnionType):
        return st.one_of([of(member, metadata) for member in get_args(annotation)])
    if annotation is types.NoneType:
        return st.just(ABSENT)
    if annotation is bool:
        return st.booleans()
    if annotation is str:
        least = max((m.min_length for m in metadata if isinstance(m, bounds.MinLen)), default=0)
        return st.text(min_size=least, max_size=9)
    low, high, open_low, open_high = None, None, False, False
    for m in metadata:
        if isinstance(m, bounds.Ge | bounds.Gt):
            low, open_low = (m.ge, False) if isinstance(m, bounds.Ge) else (m.gt, True)
        if isinstance(m, bounds.Le | bounds.Lt):
            high, open_high = (m.le, False) if isinstance(m, bounds.Le) else (m.lt, True)
    assert low is not None, f"{annotation} {metadata} has no bounds"
    assert high is not None, f"{annotation} {metadata} has no bounds"
    if annotation is int:
        high -= open_high
        # Most bounds are far beyond what is in use, or what a test can compute.
        usual = st.integers(low, min(high, low + 600))
        return st.one_of(usual, usual, usual, st.integers(low, high))
    assert annotation is float, f"no strategy for {annotation}"
    usual = st.integers(-2, 100).map(float).filter(lambda x: low < x < high)
    exact = st.floats(low, high, exclude_min=open_low, exclude_max=open_high, allow_subnormal=False)
    return st.one_of(usual, exact, exact) if low + 1 < high else exact


def paths(value: Any, where: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value inside of a JSON value or a table, the outermost first."""
    items = value.items() if isinstance(value, dict) else ()
    items = enumerate(value) if isinstance(value, list) else items
    return [where, *(path for key, item in items for path in paths(item, (*where, key)))]
