"""Features of frames by C, or by its twin in NumPy, with the same bits.

C is used where it was compiled. The environment variable BASILAR_KERNEL=numpy chooses the twin.
README.md, beside this file, states the order of all operations.
"""

import os
from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from basilar.dsp.kernel import native, twin
from basilar.dsp.kernel.tables import Bands, Bank, Logarithm, Output, Program

__all__ = ["Bands", "Bank", "Logarithm", "Output", "Plan", "Program", "in_use", "over_rows", "plan"]


class Plan(Protocol):
    """A program that is ready to run."""

    def run(
        self,
        signals: tuple[NDArray[np.float32], ...],
        out: NDArray[np.float32] | None,
        lower: NDArray[np.float32] | None = None,
    ) -> int:
        """Write the rows of all frames of the signals to `out`, float32 (frames, width).

        `signals` are float32 (samples,), contiguous. With bands, `lower`, float32 (frames, n_low),
        takes the samples of the lower rate, and either of both may be None. Returns the number of
        frames. Raises ValueError or TypeError for arrays of other kinds or shapes.
        """


def in_use() -> str:
    """What computes: `C`, or `NumPy`.

    >>> in_use() in ("C", "NumPy")
    True
    """
    chosen = os.environ.get("BASILAR_KERNEL", "")
    if chosen not in ("", "numpy"):
        raise ValueError(f"BASILAR_KERNEL: {chosen!r} is not numpy: set it to that, or not at all")
    return "C" if native.is_there() and not chosen else "NumPy"


def plan(program: Program) -> Plan:
    """A program, ready to run on signals as often as needed, by several threads at once.

    Plans are kept: asking again costs little.

    >>> ready = plan(Program(np.ones(4, np.float32), hop_length=2, length=4))
    >>> out = np.empty((2, 3), np.float32)
    >>> ready.run((np.ones(6, np.float32),), out), out.tolist()
    (2, [[16.0, 0.0, 0.0], [16.0, 0.0, 0.0]])
    """
    return _plan(program, in_use())


@lru_cache(maxsize=64)
def _plan(program: Program, by: str) -> Plan:
    return native.plan(program) if by == "C" else twin.Plan(program)


def over_rows(
    x: NDArray[np.float32], *, bank: Bank | None = None, log: Logarithm | None = None
) -> NDArray[np.float32]:
    """Filters over the values of each row, then a logarithm: float32 (rows, filters).

    `x` is float32 (rows, values); without filters, the result has its shape. Raises ValueError for
    filters over another number of values.

    >>> bank = Bank.of(np.array([[1, 1, 1], [0, 0, 2]], np.float32))
    >>> over_rows(np.array([[1, 2, 3], [4, 5, 6]], np.float32), bank=bank).tolist()
    [[6.0, 6.0], [15.0, 12.0]]
    """
    program = _row_program(x.shape[1], bank, log)
    out = np.empty((len(x), program.width), np.float32)
    plan(program).run((np.ascontiguousarray(x).reshape(-1),), out)
    return out


@lru_cache(maxsize=64)
def _row_program(width: int, bank: Bank | None, log: Logarithm | None) -> Program:
    window = np.ones(width, np.float32)
    return Program(window, width, width, output="samples", bank=bank, log=log)
