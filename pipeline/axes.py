"""What the rows and columns of features stand for: seconds, Hz, notes, coefficients.

Conventions
-----------
* Every bin has a centre and reaches from one edge to the next. A row reaches half a hop to both
  sides of the sample that its frame is centred on; a column half way to its neighbours', on the
  scale that columns are evenly spaced on: Hz (STFT), mel or octaves (CQT).
* Scales turn Hz into places on an axis: `linear`, `log`, `mel` (the recipe's own mel scale, or
  `slaney`), and `note`, which is `log` with the names of notes, A4 = 440 Hz.
* Columns that are no frequencies (pitch classes, cepstral coefficients) are counted from 0.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dsp.mel import MelScale, hz_to_mel, mel_to_hz
from pipeline.kinds import Chroma, ChromaCqt, ConstantQ, Framed, MelBands, Mfcc, Spectral
from pipeline.recipe import Recipe

Scale = Literal["linear", "log", "mel", "note"]
NOTES = ("C", "C♯", "D", "D♯", "E", "F", "F♯", "G", "G♯", "A", "A♯", "B")


@dataclass(frozen=True)
class Columns:
    """Where the columns of features lie, lowest first.

    `centres` float64 (bins,) and `edges` (bins + 1,) are in Hz if `scale`, the one that suits them,
    is not None; else they count columns, and `names` names some of them.
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
    """Where the columns of a recipe's features lie.

    >>> columns(Recipe.from_dict({"representation": {"kind": "cqt"}})).centres[[9, 21]].round(6)
    array([55.      , 110.     ])
    """
    kind, sample_rate = recipe.representation, recipe.resample.sample_rate
    if isinstance(kind, Chroma | ChromaCqt):
        return _counted(kind.columns(), "pitch class", _pitch_classes(kind.n_chroma, kind.base_c))
    if isinstance(kind, Mfcc):
        orders = ["c", "Δc", "ΔΔc"][: 1 + kind.n_deltas]
        step = 5 if kind.n_mfcc >= 10 else 1
        names = {
            order * kind.n_mfcc + k: f"{name}{k}"
            for order, name in enumerate(orders)
            for k in range(0, kind.n_mfcc, step * (1 + kind.n_deltas))
        }
        return _counted(kind.columns(), "coefficient", names)
    if isinstance(kind, MelBands):
        lowest, highest = hz_to_mel([kind.fmin, kind.fmax or 0.0], mel_scale=kind.mel_scale)
        half_bands = np.linspace(lowest, highest, 2 * kind.n_mels + 3)[1:-1]
        hz = mel_to_hz(half_bands, mel_scale=kind.mel_scale)
        return Columns(hz[1::2], hz[::2], "mel", "frequency (Hz)", {}, kind.mel_scale)
    if isinstance(kind, ConstantQ):
        centres, half = kind.parameters.frequencies(), 2 ** (0.5 / kind.bins_per_octave)
        edges = np.append(centres / half, centres[-1] * half)
        return Columns(centres, edges, "note", "note", {})
    if isinstance(kind, Framed) and not isinstance(kind, Spectral):
        hz_per_bin = sample_rate / kind.n_fft
        bins = np.arange(kind.columns(), dtype=np.float64)
        # Nothing lies below 0 Hz, nor above half the sample rate.
        edges = np.clip(np.append(bins, bins.size) - 0.5, 0.0, kind.n_fft / 2) * hz_per_bin
        return Columns(bins * hz_per_bin, edges, "linear", "frequency (Hz)", {})
    return _counted(kind.columns(), "column", {})


def note_name(hz: float) -> str:
    """The name of the note that is nearest to a frequency.

    >>> note_name(440.0), note_name(32.7)
    ('A4', 'C1')
    """
    semitone = round(69 + 12 * np.log2(hz / 440))
    return f"{NOTES[semitone % 12]}{semitone // 12 - 1}"


def notes_within(lowest: float, highest: float) -> list[float]:
    """The frequencies in Hz of every C, or of more notes if there are few: A4 = 440 Hz.

    >>> [note_name(hz) for hz in notes_within(100, 1000)]
    ['C3', 'F♯3', 'C4', 'F♯4', 'C5', 'F♯5']
    """
    found: list[float] = []
    for step in (12, 6, 3, 1):
        semitones = np.arange(0, 144, step)
        hz = 440 * 2 ** ((semitones - 69) / 12)
        found = hz[(lowest <= hz) & (hz <= highest)].tolist()
        if len(found) >= 4:
            break
    return found


def _counted(n_columns: int, label: str, names: dict[int, str]) -> Columns:
    edges = np.arange(n_columns + 1, dtype=np.float64) - 0.5
    return Columns(np.arange(n_columns, dtype=np.float64), edges, None, label, names)


def _pitch_classes(n_chroma: int, base_c: bool) -> dict[int, str]:
    if n_chroma % 12:
        return {}
    first = 0 if base_c else 9
    return {k * n_chroma // 12: NOTES[(first + k) % 12] for k in range(12)}
