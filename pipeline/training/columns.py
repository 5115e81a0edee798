"""Columns of the table of clips, read by PyArrow alone: importing pandas takes seconds."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pyarrow as pa


def encoded(column: "pa.ChunkedArray") -> tuple[NDArray[np.int64], list[Any]]:
    """A column as indices into its values, -1 for none."""
    chunks = column.dictionary_encode().unify_dictionaries().chunks
    codes = [chunk.indices.fill_null(-1).to_numpy().astype(np.int64) for chunk in chunks]
    values = chunks[0].dictionary.to_pylist() if chunks else []
    return np.concatenate([np.empty(0, np.int64), *codes]), values


def is_one_of(column: "pa.ChunkedArray", value: Any) -> NDArray[np.bool_]:
    """Where a column has a value, or one of those in it; None, NaN and NA stand for none."""
    listed = isinstance(value, Iterable) and not isinstance(value, str | bytes)
    listed = listed and getattr(value, "ndim", 1) > 0
    many = value if listed else [value]
    wanted = {v.item() if isinstance(v, np.generic | np.ndarray) else v for v in many}
    no_value = any(v is None or (v != v) is not False for v in wanted)
    codes, values = encoded(column)
    return np.array([*(no_value if v != v else v in wanted for v in values), no_value])[codes]
