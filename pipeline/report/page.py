"""Reports as HTML files that open from disk, need no network and print well.

Text from files (ids, labels, messages) is escaped, and characters that cannot be printed are shown
as escapes. The page's content security policy lets a browser run the page's own script, identified
by its hash, and fetch nothing. Equal reports give equal bytes.
"""

import base64
import hashlib
import math
from functools import cache
from importlib.metadata import version
from typing import Any, NamedTuple

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray

from basilar.pipeline.recipes.recipe import Recipe
from basilar.pipeline.report import charts
from basilar.pipeline.report.describe import Cells, Profile, Table
from basilar.pipeline.text import printable


class Chart(NamedTuple):
    """A chart of a page: SVG, and what it shows in words."""

    title: str
    svg: Markup
    words: str


def shown(value: float, digits: int | None = None) -> str:
    """A number as text: thousands separated, `digits` after the point or four significant ones.

    >>> shown(47314), shown(0.13004), shown(2.0, 2), shown(float("-inf")), shown(float("nan"))
    ('47,314', '0.13', '2.00', '−∞', 'not known')
    """
    if isinstance(value, int):
        return f"{value:,}".replace("-", "−")
    if math.isnan(value):
        return "not known"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if digits is None:
        text = f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"
    else:
        text = f"{value:,.{digits}f}"
    return text.replace("-", "−")


def _digits(table: Table) -> list[int | None]:
    """The digits after the point in each column, so that its largest number has four in all.

    None for columns without fractions, and for those whose magnitudes differ too much.
    """
    found: list[int | None] = []
    for column in zip(*table.rows, strict=True):
        sizes = [abs(v) for v in column if isinstance(v, float) and math.isfinite(v) and v]
        if not sizes or max(sizes) > 1e4 * min(sizes):
            found.append(None)
        else:
            found.append(max(0, 3 - math.floor(math.log10(max(sizes)))))
    return found


@cache
def _environment() -> Environment:
    """The environment of templates: it escapes all text that is not marked as HTML."""
    made = Environment(
        loader=PackageLoader("basilar.pipeline.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: (
            printable(value) if isinstance(value, str) and not hasattr(value, "__html__") else value
        ),
    )
    made.filters |= {"shown": shown, "raw": _raw, "digits": _digits}
    made.tests["hash"] = lambda value: (
        isinstance(value, str) and len(value) == 32 and set(value) <= set("0123456789abcdef")
    )
    return made


def written(template: str, **content: Any) -> str:
    """Render a page from a template and its content."""
    environment = _environment()
    assert environment.loader is not None
    script, style = (
        environment.loader.get_source(environment, name)[0] for name in ("page.js", "page.css")
    )
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template(template).render(
        **content,
        script=Markup(script),
        style=Markup(style),
        script_sha256=digest,
        footer=f"Made by Basilar {version('basilar')} from the set’s own records.",
    )


def _raw(value: float) -> str:
    """A number in JavaScript's notation."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else f"{'-' if value < 0 else ''}Infinity"
    return repr(value)


def block(lines: list[str]) -> Markup:
    """Lines as preformatted text, each escaped."""
    return Markup("\n").join(map(printable, lines))


def length(hours: float) -> str:
    """A length in hours or minutes, as text.

    >>> length(2.0), length(0.05)
    ('2 h', '3 min')
    """
    return f"{hours:,.3g} h" if hours >= 0.1 else f"{60 * hours:.3g} min"


def size(n_bytes: int) -> str:
    """A number of bytes as text.

    >>> size(7_600_000)
    '7.6 MB'
    """
    return f"{n_bytes / 1e9:.3g} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.3g} MB"


def chart(title: str, svg: str, words: str) -> Chart:
    """A chart with its title, and a description for those who cannot see it."""
    label = Markup('<svg role="img" aria-label="{}" ').format(printable(f"{title}. {words}"))
    return Chart(title, Markup(svg.replace("<svg ", str(label), 1)), words)


def durations(series: list[tuple[str, Cells]]) -> Chart:
    """A chart of the durations of clips, for one set or several."""
    svg = _histograms(series, "seconds")
    return chart("Duration of clips", svg, _ranges(series, "s"))


def levels(series: list[tuple[str, Cells]], recipe: Recipe) -> Chart:
    """A chart of the levels of clips, for one set or several."""
    svg = _histograms(series, "RMS, dBFS")
    rate = shown(recipe.resample.sample_rate)
    words = f"RMS of one channel at {rate} Hz; a full-scale sine has −3 dBFS."
    return chart("Level of clips", svg, f"{_ranges(series, 'dB')} {words}")


def _histograms(series: list[tuple[str, Cells]], x_label: str) -> str:
    several = len(series) > 1
    drawn = [
        (name, cells.edges, cells.counts * (100 / cells.counts.sum() if several else 1))
        for name, cells in series
    ]
    logarithmic = any(cells.logarithmic for _, cells in series)
    return charts.bars(
        drawn, x_label, "% of clips" if several else "clips", logarithmic=logarithmic
    )


def _ranges(series: list[tuple[str, Cells]], unit: str) -> str:
    """The ranges of histograms in words."""
    said = []
    for name, (edges, counts, _) in series:
        upto = np.cumsum(counts)
        middle, most = int(np.searchsorted(upto, upto[-1] / 2)), int(counts.argmax())
        low, high, half, begin, end = (
            f"{edges[i]:.3g}".replace("-", "−")
            for i in (0, len(counts), middle + 1, most, most + 1)
        )
        said.append(
            f"{name + ': from' if name else 'From'} {low} to {high} {unit}; about half of the "
            f"clips are below {half} {unit}; the most common values are between {begin} and "
            f"{end} {unit}."
        )
    return " ".join(said)


def span(values: NDArray[np.float64], profile: Profile) -> str:
    """The lowest and the highest of some values, to three digits of the profile's range."""
    widest = float(np.abs([profile.min.min(), profile.max.max()]).max()) or 1.0
    digits = max(0, 2 - math.floor(math.log10(widest))) if widest > 1e-3 else None
    low, high = float(values.min()) + 0.0, float(values.max()) + 0.0
    low, high = (round(x, digits) + 0.0 if digits is not None else x for x in (low, high))
    return f"{shown(low, digits)} and {shown(high, digits)}"


def unit(profile: Profile) -> str:
    """The unit that follows a profile's number in a sentence."""
    return " dB" if profile.unit == "dB" else ""


def inline(media_type: str, data: bytes) -> Markup:
    """Bytes as a data URL."""
    return Markup(f"data:{media_type};base64,{base64.b64encode(data).decode()}")
