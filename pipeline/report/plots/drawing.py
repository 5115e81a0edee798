"""Pictures of audio and its representations, drawn on Matplotlib's axes.

Nothing here opens a window, reads a file or uses pyplot; `render` returns the bytes of a picture,
equal for equal input. Draw and render inside `style`, which overrides a user's own settings. Axes
are true: seconds from the start of the clip, Hz or notes, values in the unit of the colour bar.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from io import BytesIO
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from basilar.dsp.compress import log
from basilar.dsp.mel import hz_to_mel, mel_to_hz
from basilar.pipeline.recipes.kinds.base import Representation
from basilar.pipeline.recipes.kinds.framed import Logarithmic
from basilar.pipeline.recipes.kinds.mel import Mfcc
from basilar.pipeline.recipes.recipe import Recipe
from basilar.pipeline.report.plots.axes import Columns, Scale, columns, seconds, ticks

Format = Literal["png", "svg"]
Bar = Literal["right", "bottom"]
Extend = Literal["neither", "both", "min", "max"]
WIDTH = 6.4  # inches, 640 pixels
MOST_COLUMNS = 1280  # rows of features, or groups of samples, drawn side by side
RANGE_DB = 80.0  # the range of a decibel scale, from the maximum down
ZOOMS = (800, 400, 200, 100)  # samples
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


@contextmanager
def style() -> Iterator[None]:
    """A block with our Matplotlib settings, independent of the user's own."""
    settings: Any = dict(matplotlib.rcParamsDefault.items()) | _SETTINGS
    del settings["backend"]
    with matplotlib.rc_context(settings):
        yield


def figure(height: float = 3.2) -> Figure:
    """An empty figure, 6.4 inches wide, for `add_subplot`."""
    return Figure(figsize=(WIDTH, height), layout="constrained")


def render(drawn: Figure, file_format: Format) -> bytes:
    """A figure as the bytes of a PNG or SVG file, without a date.

    A PNG gets a palette of 256 colours, as many as a colour map has: a third of the bytes.
    """
    full, few = BytesIO(), BytesIO()
    if file_format == "svg":
        drawn.savefig(full, format="svg", metadata={"Date": None, "Creator": None})
        return full.getvalue()
    drawn.savefig(full, format="png")
    # The method of Pillow that changes colours least: those of colour maps by 4 of 255.
    image = Image.open(full).convert("RGB")
    image = image.quantize(256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    image.save(few, "png", optimize=True)
    return few.getvalue()


def waveform(
    ax: Axes, y: NDArray[np.floating[Any]], sample_rate: float, *, start: float = 0.0
) -> None:
    """Draw samples (n,) over seconds; if there are many, the range of each group of neighbours.

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
    bar: Bar = "right",
) -> QuadMesh:
    """Draw features (frames, bins) of a recipe over seconds, with a colour bar.

    Magnitudes and powers are drawn in dB, or as they are without `decibels`; complex values by
    their magnitude. `scale` is that of the frequencies, by default the one that suits the recipe.
    `start` is the time of the first sample they come from. If there are more rows than pixels, the
    maximum of neighbours is drawn. Raises ValueError for a scale if columns are not frequencies.
    """
    across = columns(recipe)
    values, unit = seen(features_tf, recipe.representation, decibels)
    values, edges = _thinned(values, seconds(recipe, len(values), start=start))
    lowest, highest, extend = limits(values, recipe.representation, unit)
    mesh = ax.pcolormesh(edges, across.edges, values.T, vmin=lowest, vmax=highest, rasterized=True)
    ax.set_xlim(max(start, edges[0]), edges[-1])
    ax.set_xlabel("time (s)")
    frequency_axis(ax, across, scale)
    colour_bar(ax, mesh, unit, location=bar, extend=extend)
    return mesh


def colour_bar(
    ax: Axes, mesh: QuadMesh, unit: str, *, location: Bar = "right", extend: Extend = "neither"
) -> None:
    """Draw the colour bar of an image; `extend` says at which ends values go beyond it."""
    drawn = ax.get_figure()
    assert drawn is not None
    drawn.colorbar(mesh, ax=ax, label=unit, location=location, extend=extend)


def zoom(figure: Figure, y: NDArray[np.floating[Any]], sample_rate: float, *, start: float) -> None:
    """Draw 800, 400, 200 and 100 samples from just before the peak; each marks the 100."""
    first = int(np.clip(np.abs(y).argmax() - 50, 0, max(y.size - ZOOMS[0], 0)))
    peak = float(np.abs(y[first : first + ZOOMS[0]]).max()) or 1.0
    for ax, count in zip(figure.subplots(len(ZOOMS)), ZOOMS, strict=True):
        piece = y[first : first + count]
        ms = np.arange(piece.size) / sample_rate * 1000
        ax.plot(ms, piece, color=PALE, linewidth=0.8)
        ax.plot(ms, piece, ".", color=PALE, markersize=3)
        ax.plot(ms[: ZOOMS[-1]], piece[: ZOOMS[-1]], ".-", color=DARK, linewidth=0.8, markersize=3)
        ax.set_xlim(0, count / sample_rate * 1000)
        ax.set_ylim(-1.1 * peak, 1.1 * peak)
        ax.set_title(f"{count} samples, {count / sample_rate * 1000:.2f} ms", loc="left")
    ax.set_xlabel(f"time after {start + first / sample_rate:.4f} s (ms)")
    figure.supylabel("amplitude", fontsize=9)


def curves(figure: Figure, features_tf: NDArray[Any], recipe: Recipe, *, start: float) -> None:
    """Draw each column of features (frames, bins), which has a unit of its own, over seconds.

    If there are more rows than pixels, the maximum of neighbours is drawn.
    """
    edges, names = seconds(recipe, len(features_tf), start=start), columns(recipe).names
    values, edges = _thinned(features_tf, edges)
    figure.set_figheight(0.5 + features_tf.shape[1])
    axes = figure.subplots(features_tf.shape[1], sharex=True, squeeze=False)[:, 0]
    for column, ax in enumerate(axes):
        ax.plot((edges[:-1] + edges[1:]) / 2, values[:, column], color=DARK, linewidth=0.9)
        ax.set_title(names[column], loc="left")
        ax.set_ylim(bottom=0)
    axes[-1].set_xlim(max(start, edges[0]), edges[-1])
    axes[-1].set_xlabel("time (s)")


def mean_spectrum(
    figure: Figure, magnitude_tf: NDArray[Any], recipe: Recipe, *, scale: Scale | None = None
) -> None:
    """Draw the mean over time of magnitudes (frames, bins), linear and in dB.

    `recipe` is that of the magnitudes, an STFT or a CQT.
    """
    across = columns(recipe)
    mean = magnitude_tf.mean(axis=0, dtype=np.float64)
    decibels = 20 * np.log10(np.maximum(mean, 1e-5))
    linear, logarithmic = figure.subplots(2, sharex=True)
    linear.plot(across.centres, mean, color=DARK, linewidth=0.9)
    linear.set_ylabel("mean magnitude")
    linear.set_ylim(bottom=0)
    logarithmic.plot(across.centres, decibels, color=DARK, linewidth=0.9)
    logarithmic.set_ylabel("mean magnitude (dB)")
    logarithmic.set_ylim(bottom=max(decibels.min(), decibels.max() - RANGE_DB) - 3)
    frequency_axis(logarithmic, across, scale, "x")
    figure.align_ylabels([linear, logarithmic])


def frequency_axis(
    ax: Axes, across: Columns, scale: Scale | None = None, which: Literal["x", "y"] = "y"
) -> None:
    """Set up an axis for columns. Raises ValueError for a scale they cannot have."""

    def set_axis(name: str, *arguments: Any, **options: Any) -> None:
        getattr(ax, f"set_{which}{name}")(*arguments, **options)

    lowest, highest = float(across.edges[0]), float(across.edges[-1])
    if across.scale is None:
        if scale is not None:
            raise ValueError(f"--scale {scale}: a {across.label} is not a frequency; leave it out")
        set_axis("lim", lowest, highest)
        set_axis("label", across.label)
        if across.names:
            set_axis("ticks", list(across.names), list(across.names.values()))
        return
    scale = scale or across.scale
    if scale in ("log", "note"):
        lowest = lowest or float(across.edges[1])  # it has no place for 0 Hz
        set_axis("scale", "log", base=2)
    elif scale == "mel":
        both = (partial(turn, mel_scale=across.mel_scale) for turn in (hz_to_mel, mel_to_hz))
        set_axis("scale", "function", functions=tuple(both))
    set_axis("lim", lowest, highest)
    set_axis("label", "note" if scale == "note" else "frequency (Hz)")
    if scale != "linear":
        hz, names = ticks(lowest, highest, scale=scale, mel_scale=across.mel_scale)
        set_axis("ticks", hz, names)
        set_axis("ticks", [], minor=True)


def _thinned(
    x_tf: NDArray[Any], edges: NDArray[np.float64]
) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """The maximum of groups of rows, at most as many as can be seen, and the groups' edges."""
    begins = np.arange(0, len(x_tf), -(-len(x_tf) // MOST_COLUMNS))
    return np.maximum.reduceat(x_tf, begins, axis=0), np.append(edges[begins], edges[-1])


def seen(features: NDArray[Any], kind: Representation, decibels: bool) -> tuple[NDArray[Any], str]:
    """The values to draw of features (frames, bins), and their unit; magnitudes may be in dB."""
    values = np.abs(features) if np.iscomplexobj(features) else features.astype(np.float32)
    if isinstance(kind, Logarithmic):
        return values, _unit(kind)
    power = getattr(kind, "power", None) if kind.kind == "mel" else _POWERS.get(kind.kind)
    if power is None:
        units = {"pcen": "PCEN", "chroma": "relative energy", "chroma_cqt": "relative magnitude"}
        return values, units.get(kind.kind, "value")
    if not decibels:
        return values, "magnitude" if power == 1 else "power"
    return log(values if power == 2 else values * values, unit="db", floor=1e-10), "dB"


def limits(values: NDArray[Any], kind: Representation, unit: str) -> tuple[float, float, Extend]:
    """The values of the lowest and the highest colour, and the ends that values go beyond."""
    shown = values[:, 1 : kind.n_mfcc] if isinstance(kind, Mfcc) else values
    finite = shown[np.isfinite(shown)]
    if finite.size == 0:
        return 0.0, 1.0, "neither"
    lowest, highest = float(finite.min()), float(finite.max())
    if shown.size < values.size:  # coefficient 0, the level, would take up the range of colours
        return lowest, highest, "both"
    if unit.startswith("dB") and highest - lowest > RANGE_DB:
        return highest - RANGE_DB, highest, "min"
    return lowest, highest, "neither"


def _unit(kind: Logarithmic) -> str:
    if kind.kind == "mfcc":
        return "coefficient"
    unit = {"db": "dB", "ln": "natural logarithm", "log10": "decimal logarithm"}[kind.log]
    if kind.shift:
        unit += f" {kind.shift:+g}"
    return unit if kind.factor == 1.0 else f"({unit}) × {kind.factor:g}"
