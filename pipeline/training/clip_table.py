"""The table of clips of a store, read when it is asked for, by PyArrow or as pandas has it."""

import difflib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from basilar.pipeline.host import require
from basilar.pipeline.storage.files import open_table
from basilar.pipeline.training.columns import encoded, is_one_of

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


class ClipTable:
    """The clips of a store in content order, `total` of them, or the rows that are selected."""

    def __init__(self, path: Path, total: int, selected: NDArray[np.int64] | None) -> None:
        self.path = path
        self.file = path / "clips.parquet"
        self.total, self.selected = total, selected

    def __len__(self) -> int:
        return self.total if self.selected is None else len(self.selected)

    @cached_property
    def rows(self) -> NDArray[np.int64]:
        """The row of each clip in the store."""
        return np.arange(self.total) if self.selected is None else self.selected

    def of_selected(self, values: NDArray[Any]) -> NDArray[Any]:
        """Those of one value a clip of the store that are of selected clips."""
        return values if self.selected is None else values[self.selected]

    def row_of(self, clip_id: str) -> int:
        """Which clip has an id. Raises KeyError."""
        if clip_id not in self._row_of:
            raise KeyError(f"{self.path}: no clip has the id {clip_id!r}")
        return self._row_of[clip_id]

    def frame(self) -> "pd.DataFrame":
        """The table as pandas has it. Raises MissingLibraryError without pandas."""
        table: pd.DataFrame = require("pandas", str(self.file)).read_parquet(self.file)
        return table if self.selected is None else table.iloc[self.selected].reset_index(drop=True)

    def matching(self, query: str | None, values: Mapping[str, Any]) -> NDArray[np.int64]:
        """Which clips have these values in their columns, and fit an expression of pandas.

        Raises ValueError for a column there is not, and MissingLibraryError without pandas.
        """
        for name in values.keys() - set(self._columns):
            near = difflib.get_close_matches(name, self._columns, 1) or self._columns
            raise ValueError(
                f"{self.path}: clips have no column {name!r}; did you mean {', '.join(near)}?"
            )
        chosen = np.ones(len(self), bool)
        for name, value in values.items():
            chosen &= self.of_selected(is_one_of(self._column(name), value))
        found = np.flatnonzero(chosen)
        return self.frame().iloc[found].query(query).index.to_numpy() if query else found

    @cached_property
    def labels(self) -> list[str]:
        """All labels of the store, sorted."""
        return sorted(encoded(self._column("label"))[1])

    @cached_property
    def label_codes(self) -> NDArray[np.int64]:
        """The label of each clip as an index into `labels`, -1 for none."""
        codes, names = encoded(self._column("label"))
        code_of = {name: code for code, name in enumerate(self.labels)}
        return self.of_selected(np.array([*map(code_of.get, names), -1], np.int64)[codes])

    @cached_property
    def _row_of(self) -> dict[str, int]:
        ids = self._column("id").to_pylist()
        return {ids[row]: i for i, row in enumerate(self.rows.tolist())}

    @cached_property
    def _columns(self) -> list[str]:
        import pyarrow.parquet as pq

        names: list[str] = pq.read_schema(self.file).names
        return names

    def _column(self, name: str) -> "pa.ChunkedArray":
        """A column of the table of all clips."""
        with open_table(self.file) as file:
            return file.read([name], use_threads=False).column(0)
