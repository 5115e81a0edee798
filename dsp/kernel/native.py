"""The kernel in C, where it was compiled."""

from collections.abc import Iterable
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from basilar.dsp.kernel.tables import Output, Program, transform

try:
    import basilar.dsp.kernel._native as _native
except ImportError:  # without a compiler the installation has none
    _native = None  # type: ignore[assignment]

# Of this interface. A clone that was changed and not installed again may have an older one in C.
VERSION = 1

Lanes = Literal[4, 8, 16]


def is_there() -> bool:
    """Whether C was compiled. Raises ImportError if that was done from other sources."""
    if _native is not None and _native.VERSION != VERSION:
        raise ImportError(
            f"the compiled kernel has version {_native.VERSION}, its Python {VERSION}: compile it "
            "again, in a clone by pip install -e ."
        )
    return _native is not None


def widths() -> tuple[Lanes, ...]:
    """The numbers of frames that this processor can compute at once; none without C.

    >>> set(widths()) <= {4, 8, 16}
    True
    """
    return tuple(n for n in get_args(Lanes) if is_there() and n <= _native.LANES)


def plan(program: Program, lanes: Lanes | None = None) -> "_native.Plan":
    """A program, ready to run: its tables in C.

    `lanes` is one of `widths`, and the largest by default. Bits do not depend on it. Raises
    ValueError for a program that C does not take, such as an `n_fft` above 2^22.
    """
    t = transform(program.n_fft)
    bank, log = program.bank, program.log
    outputs = get_args(Output)
    logarithm = [0.0] * 9
    if log is not None:
        logarithm = [log.gain, log.floor, *log.series, log.ln2, log.offset, log.factor]
    ints = (program.n_fft, min(program.hop_length, 2**31 - 1), program.length, t.a)
    flags = (outputs.index(program.output), program.remove_dc, log is not None)
    floats = (program.preemphasis, program.kept, program.mean_weight, *logarithm)
    return _native.Plan(
        window=program.window,
        column=t.column,
        turns=t.turns,
        radices=t.radices,
        fft_turns=_joined(t.stage_turns),
        circle=t.circle,
        circles=_joined(t.circles),
        roots=t.roots,
        start=np.empty(0, np.int32) if bank is None else bank.start,
        count=np.array([] if bank is None else [len(w) for w in bank.weights], np.int32),
        weights=_joined(() if bank is None else bank.weights),
        ints=np.array([*ints, *flags, log is not None and log.add, lanes or 0], np.int32),
        floats=np.array(floats, np.float32),
    )


def _joined(arrays: Iterable[NDArray[Any]]) -> NDArray[np.float32]:
    return np.concatenate([np.empty(0, np.float32), *(x.ravel() for x in arrays)])
