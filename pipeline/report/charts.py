"""Charts of a report: inline SVG, and small pictures of features without axes.

Matplotlib draws the charts, without pyplot, in placeholder colours. Each of these is replaced with
a variable of the page's style sheet, so that charts follow light and dark mode. Text stays text.
Equal data give equal bytes.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO, StringIO
from typing import Any

import numpy as np
from matplotlib import colormaps, rc_context, rcParamsDefault
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray
from PIL import Image

from basilar.pipeline.report.describe import PERCENTILES, Profile

# Placeholders for the page's colours; nothing else is drawn in them.
_INK, _FAINT = "#000001", "#000002"
_SERIES = ("#000003", "#000004")
_PAGE = {_INK: "--ink", _FAINT: "--line", _SERIES[0]: "--a", _SERIES[1]: "--b"}
_SETTINGS: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "basilar",
    "font.size": 10.0,
    "axes.edgecolor": _FAINT,
    "axes.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.axisbelow": True,
    "axes.grid.axis": "y",
    "axes.grid": True,
    "axes.unicode_minus": True,
    "grid.color": _FAINT,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.4,
    "path.simplify": True,
    "text.color": _INK,
    "xtick.color": _FAINT,
    "ytick.color": _FAINT,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "ytick.major.size": 0.0,
}
_SIZE = (5.2, 3.0)  # inches of 72 pixels: the width of a phone's page
_FEW = 12  # bins: fewer are drawn as points, not lines
_MOST_PIXELS = (480, 128)  # frames and bins of a picture


@contextmanager
def style() -> Iterator[None]:
    """A block in which charts are drawn, independent of the user's own Matplotlib settings."""
    settings: dict[Any, Any] = {**rcParamsDefault, **_SETTINGS}
    del settings["backend"]
    with rc_context(settings):
        yield


@contextmanager
def _axes(x_label: str, y_label: str) -> Iterator[tuple[Axes, StringIO]]:
    """Axes to draw on, and a buffer that holds the chart once the block has ended."""
    out, drawn = StringIO(), StringIO()
    figure = Figure(figsize=_SIZE, facecolor="none")
    ax = figure.add_axes((0.13, 0.16, 0.85, 0.72), facecolor="none")
    ax.set_xlabel(x_label)
    ax.set_ylabel(y_label)
    # Positions are fixed, so that Matplotlib need not lay out all texts to compute them.
    ax.set_title("", y=1.0)
    ax.xaxis.set_label_coords(0.5, -0.13)
    ax.yaxis.set_label_coords(-0.11, 0.5)
    yield ax, out
    figure.savefig(drawn, format="svg", metadata={"Date": None, "Creator": None})
    out.write(_for_the_page(drawn.getvalue()))


def _for_the_page(svg: str) -> str:
    """Turn an SVG file into an element with the page's colours and fonts, short numbers, no ids."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' id="[a-zA-Z]+[\w.]*_\d+"', "", svg)  # of groups: equal in every chart
    svg = re.sub(r"font-(?:size|family): [^;\"]*;? ?", "", svg)
    svg = re.sub(r"\d+\.\d{2,}(?=[ \",)%LMCQZz]|$)", lambda n: f"{float(n[0]):.2f}", svg)
    for colour, name in _PAGE.items():
        svg = svg.replace(colour, f"var({name})")
    size = " ".join(f"{72 * inches:g}" for inches in _SIZE)
    return re.sub(
        r"<svg [^>]*>",
        f'<svg xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="0 0 {size}" aria-hidden="true">',
        svg,
        count=1,
    )


def bars(
    series: Sequence[tuple[str, NDArray[np.float64], NDArray[Any]]],
    x_label: str,
    y_label: str,
    *,
    logarithmic: bool = False,
) -> str:
    """Histograms as SVG. A series is a name, edges (cells + 1,) and counts or shares (cells,).

    `logarithmic` concerns the horizontal axis.
    """
    with _axes(x_label, y_label) as (ax, out):
        for (name, edges, counts), colour in zip(series, _SERIES, strict=False):
            alpha = 0.85 if len(series) == 1 else 0.55
            ax.stairs(counts, edges, fill=True, color=colour, alpha=alpha, label=name)
        ax.set_ylim(bottom=0)
        if logarithmic:
            ax.set_xscale("log")
            ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.margins(x=0.01)
        ax.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        _legend(ax, len(series) > 1)
    return out.getvalue()


def means(series: Sequence[tuple[str, Profile]], *, ranges: bool = True) -> str:
    """Mean ± standard deviation and range of each bin as SVG, for one profile or several."""
    with _axes("bin", series[0][1].unit) as (ax, out):
        for (name, profile), colour in zip(series, _SERIES, strict=False):
            label = name if len(series) > 1 else "mean ± std"
            low, high = profile.mean - profile.std, profile.mean + profile.std
            _band(ax, low, high, colour, 0.22)
            _line(ax, profile.mean, colour, label)
            if ranges:
                for i, edge in enumerate((profile.min, profile.max)):
                    _line(ax, edge, _INK, "" if i else "range", width=0.6)
        _scale(ax, series[0][1])
        _legend(ax, True)
    return out.getvalue()


def percentiles(profile: Profile) -> str:
    """Percentiles of each bin as SVG: 1 to 99, 5 to 95 and 25 to 75 %, and the median."""
    with _axes("bin", profile.unit) as (ax, out):
        for i, alpha in enumerate((0.14, 0.22, 0.36)):
            low, high = profile.percentiles[i], profile.percentiles[-1 - i]
            name = f"{PERCENTILES[i]}–{PERCENTILES[-1 - i]} %"
            _band(ax, low, high, _SERIES[0], alpha, label=name)
        _line(ax, profile.percentiles[3], _SERIES[0], "median")
        _scale(ax, profile)
        _legend(ax, True)
    return out.getvalue()


def heat(profile: Profile) -> str:
    """The histogram of each bin as SVG: brighter values are more frequent, blank ones absent."""
    n_bins, cells = len(profile.counts), np.flatnonzero(profile.counts.sum(axis=0))
    first, last = (int(cells[0]), int(cells[-1]) + 1) if cells.size else (0, 1)
    shares = profile.counts[:, first:last] / np.maximum(
        profile.counts.max(axis=1, keepdims=True), 1
    )
    colours = colormaps["viridis"](np.sqrt(shares.T), bytes=True)
    colours[shares.T == 0] = 0
    with _axes("bin", profile.unit) as (ax, out):
        ax.grid(False)
        extent = (-0.5, n_bins - 0.5, float(first), float(last))
        ax.imshow(colours, origin="lower", aspect="auto", extent=extent, interpolation="none")
        edges = profile.edges
        if profile.logarithmic:
            low, high = np.log10(edges[max(first, 1)]), np.log10(edges[last])
            step = max(1, int((high - low) / 5))
            values = 10.0 ** np.arange(np.ceil(low), high, step)
        else:
            found = MaxNLocator(6).tick_values(edges[first], edges[last])
            values = np.array([v for v in found if edges[first] <= v <= edges[last]])
        ax.set_yticks(np.interp(values, edges, np.arange(len(edges))), [f"{v:g}" for v in values])
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    return out.getvalue()


def spread(profile: Profile, n_cells: int = 80) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The histogram of all bins together: edges (n_cells + 1,) and the % in each cell.

    Values are assumed to spread evenly within a cell; the outermost cells are cut at the lowest and
    the highest value.
    """
    low, high = float(profile.min.min()), float(profile.max.max())
    if high <= low:
        low, high = low - 0.5, low + 0.5
    edges = np.linspace(low, high, n_cells + 1)
    own = np.broadcast_to(profile.edges, (len(profile.counts), profile.edges.shape[-1]))
    own = np.clip(own, profile.min[:, None], profile.max[:, None])
    below = np.zeros(n_cells + 1)
    for of_bin, counts in zip(own, profile.counts, strict=True):
        upto = np.concatenate([[0.0], np.cumsum(counts, dtype=np.float64)])
        below += np.interp(edges, of_bin, upto)
    below[-1] = profile.counts.sum()
    return edges, np.diff(below) * (100 / max(below[-1], 1.0))


def picture(values_tf: NDArray[np.floating[Any]], lowest: float, highest: float) -> bytes:
    """Values (frames, bins) as a PNG file without axes: time runs right, bins run up.

    Colours go from `lowest` to `highest`. If there are more frames or bins than pixels, the maximum
    of neighbours is drawn.
    """
    for axis, most in enumerate(_MOST_PIXELS):
        group = -(-values_tf.shape[axis] // most)
        begins = np.arange(0, values_tf.shape[axis], group)
        values_tf = np.maximum.reduceat(values_tf, begins, axis=axis)
    shares = (values_tf - lowest) / (highest - lowest if highest > lowest else 1.0)
    levels = np.round(255 * np.clip(shares, 0.0, 1.0)).astype(np.uint8)
    image = Image.fromarray(np.ascontiguousarray(levels.T[::-1]), "L")
    image.putpalette(colormaps["magma"](np.arange(256), bytes=True)[:, :3].tobytes())
    file = BytesIO()
    image.save(file, "PNG", optimize=True)
    return file.getvalue()


def _line(ax: Axes, y: NDArray[np.float64], colour: str, label: str, width: float = 1.4) -> None:
    few = len(y) < _FEW
    ax.plot(
        np.arange(len(y)),
        y,
        color=colour,
        linewidth=0 if few else width,
        marker="_" if few else "",
        markersize=14,
        markeredgewidth=width,
        label=label,
    )


def _band(
    ax: Axes,
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    colour: str,
    alpha: float,
    label: str = "",
) -> None:
    x = np.arange(len(low))
    if len(low) < _FEW:
        ax.bar(x, high - low, 0.5, bottom=low, color=colour, alpha=alpha, linewidth=0, label=label)
    else:
        ax.fill_between(x, low, high, color=colour, alpha=alpha, linewidth=0, label=label)


def _scale(ax: Axes, profile: Profile) -> None:
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    ax.margins(x=0 if len(profile.mean) >= _FEW else 0.1)
    if profile.logarithmic:
        least = profile.percentiles[0][profile.percentiles[0] > 0].min(initial=np.inf)
        low = min(least, float(profile.mean[profile.mean > 0].min(initial=np.inf)))
        if np.isfinite(low):
            ax.set_yscale("log", nonpositive="clip")
            ax.set_ylim(low / 2, max(float(profile.max.max()), low) * 2)


def _legend(ax: Axes, wanted: bool) -> None:
    if wanted:
        ax.legend(
            loc="lower left",
            bbox_to_anchor=(-0.02, 0.99),
            ncols=4,
            frameon=False,
            handlelength=1.2,
            columnspacing=1.4,
        )
