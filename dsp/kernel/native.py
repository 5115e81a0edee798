"""The kernel in C, where it was compiled."""

from collections.abc import Iterable
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from basilar.dsp.kernel.tables import Bands, Output, Program, fft, half_turns, transform

try:
    import basilar.dsp.kernel._native as _native
except ImportError:  # without a compiler the installation has none
    _native = None  # type: ignore[assignment]

# Of this interface. A clone that was changed and not installed again may have an older one in C.
VERSION = 2

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
    t = transform(1 if program.output == "samples" else program.n_fft)
    bank, bands, log = program.bank, program.bands, program.log
    filters = bank or bands
    outputs = get_args(Output)
    logarithm = [0.0] * 9
    if log is not None:
        logarithm = [log.gain, log.floor, *log.series, log.ln2, log.offset, log.factor]
    ints = (program.n_fft, min(program.hop_length, 2**31 - 1), program.length, t.a)
    flags = (outputs.index(program.output), program.remove_dc, log is not None)
    floats = (program.preemphasis, program.kept, program.mean_weight, *logarithm)
    start, weights = (filters.start, filters.weights) if filters else (np.empty(0, np.int32), ())
    return _native.Plan(
        window=program.window,
        column=t.column,
        turns=t.turns,
        circle=t.circle,
        roots=t.roots,
        radices=t.second.radices,
        fft_turns=_joined((*t.second.turns, *t.second.circles)),
        start=start if bands is None else start - np.int32(bands.lowest),
        count=np.array([len(w) for w in weights], np.int32),
        weights=_joined(weights),
        **_of_bands(bands, program.n_fft),
        ints=np.array(
            [*ints, *flags, log is not None and log.add, lanes or 0, *_sizes_of(bands)], np.int32
        ),
        floats=np.array(floats, np.float32),
    )


def _sizes_of(bands: Bands | None) -> tuple[int, ...]:
    if bands is None:
        return (0,) * 7
    kept = (bands.head, bands.n_rows, bands.low_lead, bands.n_low)
    return (bands.n_points, bands.lowest, bands.highest, *kept)


def _of_bands(bands: Bands | None, n_fft: int) -> dict[str, NDArray[Any]]:
    """The tables of bands; without any, empty ones."""
    empty = np.empty(0, np.float32)
    inverse, low = fft(bands.n_points if bands else 1), fft(1)
    lowpass = low_turns = empty
    if bands is not None and bands.lowpass is not None:
        low, lowpass, low_turns = fft(n_fft // 8), bands.lowpass, half_turns(n_fft)
    return {
        "band_turns": bands.turns if bands else empty,
        "phases": bands.phases if bands else empty,
        "inverse_radices": inverse.radices,
        "inverse_turns": _joined((*inverse.turns, *inverse.circles)),
        "lowpass": lowpass,
        "low_turns": low_turns,
        "low_radices": low.radices,
        "low_fft_turns": _joined((*low.turns, *low.circles)),
    }


def _joined(arrays: Iterable[NDArray[Any]]) -> NDArray[np.float32]:
    return np.concatenate([np.empty(0, np.float32), *(x.ravel() for x in arrays)])
