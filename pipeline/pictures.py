"""Pictures of audio and its representations, drawn on Matplotlib's axes.

Nothing here opens a window, reads a file or uses pyplot; `render` returns the bytes of a picture,
equal for equal input. Draw and render inside `style`, whatever a user's own settings are. Axes are
true: seconds from the start of the clip, Hz or notes, values in the unit of the colour bar.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator
from numpy.typing import NDArray

from dsp.compress import log
from dsp.mel import hz_to_mel, mel_to_hz
from pipeline.axes import Columns, Scale, columns, note_name, notes_within, seconds
from pipeline.kinds import Logarithmic, Representation
from pipeline.recipe import Recipe

Format = Literal["png", "svg"]
WIDTH = 6.4  # inches, 640 pixels
MOST_COLUMNS = 1280  # rows of features, or of samples, that are drawn beside one another
RANGE_DB = 80.0  # below the maximum, what a decibel scale shows
DARK, BRIGHT, PALE = "#31688e", "#c43c75", "#b8c4cc"
_SETTINGS: dict[str, Any] = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.dpi": 100,
    "savefig.dpi": 100,
    "image.cmap": "magma",
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "basilar",
}
_POWERS = {"magnitude": 1, "stft": 1, "cqt": 1, "cqt_magnitude": 1, "power": 2}
_HZ = (0, 50, 100, 200, 500, 1000, 2000, 4000, 8000, 16000, 32000)


@contextmanager
def style() -> Iterator[None]:
    """Inside, Matplotlib's settings are ours and no others."""
    settings: Any = dict(matplotlib.rcParamsDefault.items()) | _SETTINGS
    del settings["backend"]
    with matplotlib.rc_context(settings):
        yield


def figure(height: float = 3.2) -> Figure:
    """An empty figure, 6.4 inches wide, for `add_subplot`."""
    return Figure(figsize=(WIDTH, height), layout="constrained")


def render(drawn: Figure, file_format: Format) -> bytes:
    """A figure as the bytes of a PNG or SVG file, without a date."""
    file = BytesIO()
    metadata = {"Date": None, "Creator": None} if file_format == "svg" else {"Software": None}
    drawn.savefig(file, format=file_format, metadata=metadata)
    return file.getvalue()


def waveform(
    ax: Axes, y: NDArray[np.floating[Any]], sample_rate: float, *, start: float = 0.0
) -> None:
    """Draw samples (n,) over seconds; of many, the range of each group of neighbours.

    `start` is the time of the first sample.
    """
    peak = float(np.abs(y).max(initial=0.0)) or 1.0
    group = -(-y.size // MOST_COLUMNS)
    if group <= 2:
        ax.plot(start + np.arange(y.size) / sample_rate, y, color=DARK, linewidth=0.8)
    else:
        begins = np.arange(0, y.size, group)
        edges = start + np.append(begins, y.size) / sample_rate
        low, high = np.minimum.reduceat(y, begins), np.maximum.reduceat(y, begins)
        low, high = np.append(low, low[-1]), np.append(high, high[-1])
        ax.fill_between(edges, low, high, step="post", color=DARK, linewidth=0.4)
    ax.set_xlim(start, start + y.size / sample_rate)
    ax.set_ylim(-1.05 * peak, 1.05 * peak)
    ax.set_xlabel("time (s)")
    ax.set_ylabel("amplitude")


def spectrogram(
    ax: Axes,
    features_tf: NDArray[Any],
    recipe: Recipe,
    *,
    scale: Scale | None = None,
    decibels: bool = True,
    start: float = 0.0,
    bar: Literal["right", "bottom"] = "right",
) -> QuadMesh:
    """Draw features (frames, bins) of a recipe over seconds, with a colour bar.

    Magnitudes and powers are drawn in dB, or as they are without `decibels`; complex values by
    their magnitude. `scale` is that of the frequencies, by default the one that suits the recipe.
    `start` is the time of the first sample they come from. Of more rows than pixels, the maximum of
    neighbours is drawn. Raises ValueError for a scale of columns that are no frequencies.
    """
    across = columns(recipe)
    values, unit = _values(features_tf, recipe.representation, decibels)
    times = seconds(recipe, len(values), start=start)
    group = -(-len(values) // MOST_COLUMNS)
    begins = np.arange(0, len(values), group)
    values = np.maximum.reduceat(values, begins, axis=0)
    edges = np.append(times[begins], times[-1])
    lowest, highest = float(values.min()), float(values.max())
    cut = unit.startswith("dB") and highest - lowest > RANGE_DB
    mesh = ax.pcolormesh(
        edges,
        across.edges,
        values.T,
        vmin=highest - RANGE_DB if cut else lowest,
        vmax=highest,
        rasterized=True,
    )
    ax.set_xlim(max(start, edges[0]), edges[-1])
    ax.set_xlabel("time (s)")
    frequency_axis(ax, across, scale)
    ax.get_figure().colorbar(  # type: ignore[union-attr]
        mesh, ax=ax, label=unit, location=bar, extend="min" if cut else "neither"
    )
    return mesh


def frequency_axis(ax: Axes, across: Columns, scale: Scale | None = None) -> None:
    """Make the vertical axis that of columns. Raises ValueError for a scale they cannot have."""
    if across.scale is None:
        if scale is not None:
            raise ValueError(f"columns that are {across.label}s have no {scale} scale")
        ax.set_ylim(across.edges[0], across.edges[-1])
        ax.set_ylabel(across.label)
        if across.names:
            ax.set_yticks(list(across.names), list(across.names.values()))
        return
    scale = scale or across.scale
    lowest, highest = float(across.edges[0]), float(across.edges[-1])
    if scale in ("log", "note"):
        lowest = lowest or float(across.edges[1])  # 0 Hz is nowhere on it
        ax.set_yscale("log", base=2)
    elif scale == "mel":
        mel_scale = across.mel_scale
        ax.set_yscale(
            "function",
            functions=(
                lambda hz: hz_to_mel(hz, mel_scale=mel_scale),
                lambda mel: mel_to_hz(mel, mel_scale=mel_scale),
            ),
        )
    ax.set_ylim(lowest, highest)
    if scale == "note":
        ticks = notes_within(lowest, highest)
        ax.set_yticks(ticks, [note_name(hz) for hz in ticks])
        ax.yaxis.set_minor_locator(NullLocator())
    elif scale != "linear":
        ax.set_yticks([hz for hz in _HZ if lowest <= hz <= highest])
        ax.yaxis.set_major_formatter(FuncFormatter(lambda hz, _: f"{hz:g}"))
        ax.yaxis.set_minor_locator(NullLocator())
    ax.set_ylabel("note" if scale == "note" else "frequency (Hz)")


def _values(
    features: NDArray[Any], kind: Representation, decibels: bool
) -> tuple[NDArray[Any], str]:
    """What is drawn of features (frames, bins), and its unit."""
    values = np.abs(features) if np.iscomplexobj(features) else features.astype(np.float32)
    if isinstance(kind, Logarithmic):
        return values, _unit(kind)
    power = getattr(kind, "power", None) if kind.kind == "mel" else _POWERS.get(kind.kind)
    if power is None:
        return values, {"pcen": "PCEN", "mfcc": "coefficient"}.get(kind.kind, "relative energy")
    if not decibels:
        return values, "magnitude" if power == 1 else "power"
    return log(values if power == 2 else values * values, unit="db", floor=1e-10), "dB"


def _unit(kind: Logarithmic) -> str:
    if kind.kind == "mfcc":
        return "coefficient"
    unit = {"db": "dB", "ln": "natural logarithm", "log10": "decimal logarithm"}[kind.log]
    if kind.shift:
        unit += f" {kind.shift:+g}"
    return unit if kind.factor == 1.0 else f"({unit}) × {kind.factor:g}"
