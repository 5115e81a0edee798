import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from basilar.pipeline.training.columns import encoded, is_one_of

TEXT = pa.chunked_array([pa.array(["a", None, "b"]), pa.array(["c", "a"])])
NUMBERS = {
    "float": pa.chunked_array([pa.array([0.5, None, float("nan")]), pa.array([1.0, 0.1])]),
    "int": pa.chunked_array([pa.array([0, 1, 2, 3, 2**60])]),
}


def test_a_column_as_codes():
    codes, values = encoded(TEXT)
    assert (codes.tolist(), values) == ([0, -1, 1, 2, 0], ["a", "b", "c"])
    codes, values = encoded(pa.chunked_array([], pa.string()))
    assert (codes.dtype, codes.shape, values) == (np.int64, (0,), [])


@pytest.mark.parametrize("column", [TEXT, *NUMBERS.values()], ids=["text", *NUMBERS])
@pytest.mark.parametrize(
    "value",
    [
        *("a", "abc", b"a", "1", 0, 1, 1.0, 1.5, True, 2**60, float(2**60), 2**60 + 1),
        *(np.str_("b"), np.float64(0.5), np.float32(0.1), np.int64(3)),
        *(["a"], ("a", "x"), {"a", "b"}, {"a": 1}, [], range(2), [1, 1.5], ["1", 1], [2**60 + 1]),
        *(np.array([1, 2]), np.array([1, 2], np.uint8), np.array(["a", "b"]), np.array([0.5, 1])),
        *(pd.Series(["a"]), pd.Index([1, 2]), [np.int64(3), "x"]),
    ],
    # Workers must agree on the names, and a set has no order of its own.
    ids=lambda value: repr(sorted(value) if isinstance(value, set) else value),
)
def test_a_value_or_one_of_several_as_pandas_has_it(column, value):
    wanted = list(value) if pd.api.types.is_list_like(value) else [value]
    expected = column.to_pandas().isin(wanted)
    assert is_one_of(column, value).tolist() == expected.tolist()


@pytest.mark.parametrize("value", [None, [None], float("nan"), np.array([np.nan]), pd.NA, [pd.NA]])
def test_none_stands_for_no_value(value):
    assert is_one_of(TEXT, value).tolist() == [False, True, False, False, False]
    assert is_one_of(NUMBERS["float"], value).tolist() == [False, True, True, False, False]
    assert not is_one_of(NUMBERS["int"], value).any()
    assert is_one_of(TEXT, ["a", None]).tolist() == [True, True, False, False, True]
