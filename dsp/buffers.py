"""Arrays for results, in memory or in files, and the order in which they are filled.

Results for many signals, or for a long one, are written piece by piece into arrays from a function
like `np.empty` (`Empty`), which may return memory-mapped files. Nothing else is as long as the
signals.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Allocate = Callable[[tuple[int, ...], Any], NDArray[Any]]

_VALUES = 1 << 17  # of a piece: its temporaries stay in a core's cache
_SAMPLES = 1 << 21  # of signals that are transformed together


@cache
def keep_freed_memory() -> None:
    """Let glibc keep the memory of freed blocks for the next ones, from now on.

    It gives that back to the system, which clears every page of the next ones, until an array
    larger than these was freed: this one, whose memory is never touched. Without it the blocks of
    a clip of one second take three times as long.
    """
    np.empty(16 << 20, np.uint8)


def allocate_rows(
    counts: Sequence[int], n_columns: int, dtype: Any, *, empty: Allocate = np.empty
) -> list[NDArray[Any]]:
    """Uninitialized arrays (count, n_columns) of `dtype`: consecutive views of a single one.

    >>> [x.shape for x in allocate_rows([2, 1], 4, np.float32)]
    [(2, 4), (1, 4)]
    """
    return views(empty((sum(counts), n_columns), dtype), counts)


def views(x: NDArray[Any], counts: Sequence[int]) -> list[NDArray[Any]]:
    """The rows of `x` divided into parts of `counts` rows."""
    return [x[start:end] for start, end in pairwise(accumulate(counts, initial=0))]


def row_blocks(x: NDArray[Any]) -> Iterator[slice]:
    """The rows of `x` (rows, …) in slices of some 100,000 values, one row at least.

    >>> list(row_blocks(np.zeros((3, 100_000))))
    [slice(0, 1, None), slice(1, 2, None), slice(2, 3, None)]
    """
    rows = max(1, _VALUES * len(x) // max(1, x.size))
    for start in range(0, len(x), rows):
        yield slice(start, min(start + rows, len(x)))


def batches(signals: Sequence[NDArray[np.float32]]) -> Iterator[slice]:
    """Consecutive signals in slices of some million samples, one signal at least.

    >>> list(batches([np.zeros(n, np.float32) for n in (1, 2, 3_000_000, 3)]))
    [slice(0, 3, None), slice(3, 4, None)]
    """
    first = samples = 0
    for i, y in enumerate(signals, start=1):
        samples += y.size
        if samples >= _SAMPLES or i == len(signals):
            yield slice(first, i)
            first, samples = i, 0
