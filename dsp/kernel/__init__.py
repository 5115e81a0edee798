"""Features of frames by C, or by its twin in NumPy, with the same bits.

C is used where it was compiled. The environment variable BASILAR_KERNEL=numpy chooses the twin.
README.md, beside this file, states the order of all operations.
"""

import os
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from basilar.dsp.kernel import native, twin
from basilar.dsp.kernel.tables import Bank, Logarithm, Output, Program

__all__ = ["Bank", "Logarithm", "Output", "Plan", "Program", "in_use", "plan"]


class Plan(Protocol):
    """A program that is ready to run."""

    def run(self, signals: tuple[NDArray[np.float32], ...], out: NDArray[np.float32]) -> int:
        """Write the rows of all frames of the signals to `out`, float32 (frames, width).

        `signals` are float32 (samples,), contiguous. Returns the number of frames. Raises
        ValueError or TypeError for arrays of other kinds or shapes.
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

    >>> ready = plan(Program(np.ones(4, np.float32), hop_length=2, length=4))
    >>> out = np.empty((2, 3), np.float32)
    >>> ready.run((np.ones(6, np.float32),), out), out.tolist()
    (2, [[16.0, 0.0, 0.0], [16.0, 0.0, 0.0]])
    """
    return native.plan(program) if in_use() == "C" else twin.Plan(program)
