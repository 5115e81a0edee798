"""The meaning of the rows and columns of features: seconds, Hz, notes, coefficients.

Conventions
-----------
* Every bin has a centre, and reaches from one edge to the next. The edges of a row are half a hop
  from the sample that its frame is centred on. The edges of a column are half-way to the centres of
  its neighbours, on the scale that columns are evenly spaced on: Hz (STFT), mel, or octaves (CQT).
* Scales map Hz to positions on an axis: `linear`, `log`, `mel` (the recipe's own mel scale, or
  `slaney`), and `note`, which is `log` with the names of notes, A4 = 440 Hz.
* Columns that are not frequencies (pitch classes, cepstral coefficients) are counted from 0.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from basilar.dsp.cqt import Cqt
from basilar.dsp.mel import MelScale, hz_to_mel, mel_to_hz
from basilar.pipeline.recipes.kinds.chroma import Chroma
from basilar.pipeline.recipes.kinds.constant_q import ChromaCqt, ConstantQ
from basilar.pipeline.recipes.kinds.framed import Framed
from basilar.pipeline.recipes.kinds.mel import MelBands, Mfcc
from basilar.pipeline.recipes.kinds.spectra import Spectral
from basilar.pipeline.recipes.recipe import Recipe

Scale = Literal["linear", "log", "mel", "note"]
ROUND_HZ = (0.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, *(1000.0 * 2**k for k in range(9)))
STATISTICS = ("RMS", "zero crossings", "centroid (Hz)", "roll-off (Hz)")  # of `spectral`
NOTES = ("C", "C♯", "D", "D♯", "E", "F", "F♯", "G", "G♯", "A", "A♯", "B")


@dataclass(frozen=True)
class Columns:
    """The positions of the columns of features, lowest first.

    If columns are frequencies, `centres` float64 (bins,) and `edges` (bins + 1,) are in Hz, and
    `scale` is the one that suits them. Else `scale` is None, columns are counted, and `names` names
    some of them.
    """

    centres: NDArray[np.float64]
    edges: NDArray[np.float64]
    scale: Scale | None
    label: str
    names: dict[int, str]
    mel_scale: MelScale = "slaney"


def seconds(recipe: Recipe, n_frames: int, *, start: float = 0.0) -> NDArray[np.float64]:
    """The edges of `n_frames` rows in seconds: float64 (n_frames + 1,).

    `start` is the time of the first sample that the features were computed from.

    >>> seconds(Recipe.from_dict({"representation": {"kind": "mel"}}), 2).round(4).tolist()
    [-0.0116, 0.0116, 0.0348]
    """
    edges = recipe.representation.centres(np.arange(n_frames + 1, dtype=np.float64) - 0.5)
    return np.asarray(start + edges / recipe.resample.sample_rate)


def columns(recipe: Recipe) -> Columns:
    """The positions of the columns of a recipe's features.

    >>> cqt = Recipe.from_dict({"representation": {"kind": "cqt"}})
    >>> columns(cqt).centres[[9, 21]].round(6).tolist()
    [55.0, 110.0]
    """
    kind, sample_rate = recipe.representation, recipe.resample.sample_rate
    if isinstance(kind, Chroma | ChromaCqt):
        return _counted(kind.columns(), "pitch class", _pitch_classes(kind.n_chroma, kind.base_c))
    if isinstance(kind, Mfcc):
        orders = ["c", "Δc", "ΔΔc"][: 1 + kind.n_deltas]
        step = 10 if kind.n_deltas else 5
        names = {
            order * kind.n_mfcc + k: f"{name}{k}"
            for order, name in enumerate(orders)
            for k in range(0, kind.n_mfcc, step)
        }
        return _counted(kind.columns(), "coefficient", names)
    if isinstance(kind, MelBands):
        fmax = sample_rate / 2 if kind.fmax is None else kind.fmax
        lowest, highest = hz_to_mel([kind.fmin, fmax], mel_scale=kind.mel_scale)
        half_bands = np.linspace(lowest, highest, 2 * kind.n_mels + 3)[1:-1]
        hz = mel_to_hz(half_bands, mel_scale=kind.mel_scale)
        return Columns(hz[1::2], hz[::2], "mel", "frequency (Hz)", {}, kind.mel_scale)
    if isinstance(kind, ConstantQ):
        return of_cqt(kind.parameters)
    if isinstance(kind, Framed) and kind.columns() == kind.framing.n_bins:
        return of_stft(kind.n_fft, sample_rate)
    names = dict(enumerate(STATISTICS)) if isinstance(kind, Spectral) else {}
    return _counted(kind.columns(), "column", names)


def of_stft(n_fft: int, sample_rate: int) -> Columns:
    """The positions of the bins of an STFT."""
    bins = np.arange(n_fft // 2 + 1, dtype=np.float64)
    # No bin reaches below 0 Hz or above half the sample rate.
    edges = np.clip(np.append(bins, bins.size) - 0.5, 0.0, n_fft / 2)
    hz = sample_rate / n_fft
    return Columns(bins * hz, edges * hz, "linear", "frequency (Hz)", {})


def of_cqt(parameters: Cqt) -> Columns:
    """The positions of the bins of a constant-Q transform."""
    centres, half = parameters.frequencies(), 2 ** (0.5 / parameters.bins_per_octave)
    return Columns(centres, np.append(centres / half, centres[-1] * half), "note", "note", {})


def note_name(hz: float) -> str:
    """The name of the note that is nearest to a frequency.

    >>> note_name(440.0), note_name(32.7)
    ('A4', 'C1')
    """
    semitone = round(69 + 12 * np.log2(hz / 440))
    return f"{NOTES[semitone % 12]}{semitone // 12 - 1}"


def ticks(
    lowest: float,
    highest: float,
    *,
    scale: Literal["log", "mel", "note"],
    mel_scale: MelScale = "slaney",
) -> tuple[list[float], list[str]]:
    """The positions in Hz and the labels of an axis from `lowest` to `highest`: round Hz, or notes.

    >>> ticks(100, 1000, scale="note")[1]
    ['C3', 'F♯3', 'C4', 'F♯4', 'C5', 'F♯5']
    >>> ticks(0, 11025, scale="mel")[1]
    ['200', '500', '1000', '2000', '4000', '8000']
    """
    if scale == "note":
        hz = np.empty(0)
        for step in (12, 6, 3, 1):  # every C, or more notes if these are few
            hz = 440 * 2 ** ((np.arange(0, 144, step) - 69) / 12)
            hz = hz[(lowest <= hz) & (hz <= highest)]
            if hz.size >= 4:
                break
        return hz.tolist(), [note_name(f) for f in hz]
    to_axis = partial(hz_to_mel, mel_scale=mel_scale) if scale == "mel" else np.log2
    low, high = to_axis(lowest), to_axis(highest)
    kept: list[float] = []
    place: Any = np.inf
    # From the top down, since low frequencies are too close together on a mel axis.
    for f in reversed([f for f in ROUND_HZ if lowest <= f <= highest]):
        if place - (to_axis(f) - low) / (high - low) > 0.09:
            place = (to_axis(f) - low) / (high - low)
            kept.insert(0, f)
    return kept, [f"{f:g}" for f in kept]


def _counted(n_columns: int, label: str, names: dict[int, str]) -> Columns:
    edges = np.arange(n_columns + 1, dtype=np.float64) - 0.5
    return Columns(np.arange(n_columns, dtype=np.float64), edges, None, label, names)


def _pitch_classes(n_chroma: int, base_c: bool) -> dict[int, str]:
    if n_chroma % 12:
        return {}
    first = 0 if base_c else 9
    return {k * n_chroma // 12: NOTES[(first + k) % 12] for k in range(12)}
