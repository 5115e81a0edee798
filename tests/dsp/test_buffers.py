import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from basilar.dsp.buffers import _SAMPLES, _VALUES, allocate_rows, batches, row_blocks, views


def test_rows_lie_one_after_the_other_in_what_the_caller_made():
    made = []

    def empty(shape, dtype):
        made.append(np.zeros(shape, dtype))
        return made[-1]

    first, none, last = allocate_rows([2, 0, 1], 3, np.float32, empty=empty)
    first[:], last[:] = 1, 2
    (whole,) = made
    assert whole.tolist() == [[1] * 3, [1] * 3, [2] * 3]
    assert none.shape == (0, 3)
    assert [x.tolist() for x in views(whole, [1, 2])] == [whole[:1].tolist(), whole[1:].tolist()]


@given(st.integers(0, 3 * _VALUES), st.integers(1, 2 * _VALUES))
def test_pieces_cover_all_rows_and_are_small(rows, columns):
    x = np.broadcast_to(np.float32(0), (rows, columns))
    found = list(row_blocks(x)) if rows * columns < 200 * _VALUES else []
    assert [part.start for part in found[1:]] == [part.stop for part in found[:-1]]
    if found:
        assert (found[0].start, found[-1].stop) == (0, rows)
    for part in found:
        assert part.stop - part.start == 1 or x[part].size <= _VALUES


@given(st.lists(st.integers(0, 2 * _SAMPLES), max_size=20))
def test_batches_cover_all_signals_and_are_no_longer_than_needed(lengths):
    signals = [np.broadcast_to(np.float32(0), n) for n in lengths]
    found = list(batches(signals))
    assert [i for some in found for i in range(some.start, some.stop)] == list(range(len(lengths)))
    for some in found:
        assert some.stop > some.start
        assert sum(lengths[some][:-1]) < _SAMPLES
