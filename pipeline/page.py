"""A report as one HTML file: it opens from the disk, asks nothing of a network and prints well.

What comes from files (ids, labels, messages) is escaped, and what of it is no letter is shown by
its number; the page's policy lets a browser run its own few lines of script, known by their hash,
and fetch nothing. Equal reports give equal bytes.
"""

import base64
import hashlib
import math
import time
from collections.abc import Iterator
from functools import cache
from importlib.metadata import version
from typing import Any, NamedTuple

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray

from pipeline import charts
from pipeline.console import printable
from pipeline.describe import Cells, Profile, Table
from pipeline.listening import EXCERPT_SECONDS, PLAYED, encoded
from pipeline.recipe import Recipe
from pipeline.report import Example, Report

_DEEPEST_DB = 80.0  # below the maximum, what pictures of features show
_SECTIONS = {
    "what": "What it is",
    "data": "Data",
    "features": "Features",
    "examples": "Examples",
    "quarantine": "Quarantine",
    "hashes": "Hashes",
    "build": "Build",
}
_NORMALIZATIONS = {
    "standard": "mean and standard deviation",
    "min_max": "minimum and range",
    "robust": "median and interquartile range",
}


class Chart(NamedTuple):
    """A chart as the page has it: SVG, and in words what it shows."""

    title: str
    svg: Markup
    words: str


def render(report: Report) -> str:
    """A report as an HTML page."""
    a, recipe = report.attributes, report.recipe
    name, short = recipe.name or recipe.representation.kind, a["key"][:12]
    kind = recipe.representation
    total = a["clips"] + a["quarantined"]
    of_labels = f" of {shown(report.n_labels)} labels" if report.n_labels else ""
    summary = (
        f"{shown(a['clips'])} clips{of_labels}, {_hours(report.hours)} of audio, as "
        f"{shown(a['frames'])} frames of {kind.columns()} {kind.kind} bins at "
        f"{shown(recipe.resample.sample_rate)}\u00a0Hz."
    )
    unheard = ""
    if report.n_heard < a["clips"]:
        why = f" Not at hand: {'; '.join(report.problems[:3])}." if report.problems else ""
        more = "" if report.problems else " basilar report listens to all of them."
        unheard = (
            f"Levels, and what is clipped, are those of {shown(report.n_heard)} of "
            f"{shown(a['clips'])} clips, the first in content order, which is a random order."
            f"{more}{why}"
        )
    return _page(
        "report.html.j2",
        title=f"{name} {short}",
        eyebrow=f"Feature set {short}",
        heading=name,
        sections=_SECTIONS.items(),
        report=report,
        summary=summary,
        unheard=unheard,
        numbers=[
            ("clips", shown(a["clips"])),
            ("audio", _hours(report.hours)),
            ("frames × bins", f"{shown(a['frames'])} × {kind.columns()}"),
            ("features", _bytes(report.n_bytes)),
            ("quarantined", f"{shown(a['quarantined'])} of {shown(total)}"),
        ],
        what=_what(report),
        recipe_lines=_lines(recipe.to_toml().strip().split("\n")),
        commands=_lines(
            [
                f"basilar reproduce {a['key']} --root ROOT",
                f"basilar verify {a['key']} --root ROOT --sample 10",
            ]
        ),
        normalization=_NORMALIZATIONS.get(recipe.normalization.kind, "")
        + (" of each bin" if recipe.normalization.per == "bin" else " of all bins together"),
        charts={
            "durations": _durations([("", report.durations)]),
            "levels": report.levels and _levels([("", report.levels)], recipe),
            "features": [*_features(report)],
        },
        examples=[_example(example, recipe) for example in report.examples],
        examples_are=_examples_are(report),
        stages=_stages(report),
        stages_are="Seconds of work are summed over shards, each counted when it was computed, by "
        "this build or by an earlier one that it shares shards with."
        + (" What was cached is of the build that logged the set." if report.built else ""),
        build_lines=_build_lines(report),
    )


def shown(value: float, digits: int | None = None) -> str:
    """A number for people: thousands apart, `digits` after the point, or four that mean something.

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
    """How many digits after the point each column has, so that its largest number has four.

    None for columns of no fractions, and for those over which magnitudes differ too much.
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
    """Templates that escape: a text that is not known to be HTML cannot become any."""
    made = Environment(
        loader=PackageLoader("pipeline", "templates"),
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


def _page(template: str, **content: Any) -> str:
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
    """A number as JavaScript reads it."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else f"{'-' if value < 0 else ''}Infinity"
    return repr(value)


def _lines(lines: list[str]) -> Markup:
    """Lines that keep their ends, each escaped."""
    return Markup("\n").join(printable(line) for line in lines)


def _hours(hours: float) -> str:
    return f"{hours:.3g} h" if hours >= 0.1 else f"{60 * hours:.3g} min"


def _bytes(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.3g} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.3g} MB"


def _what(report: Report) -> list[tuple[str, str]]:
    a = report.attributes
    decoders = ", ".join(a["decoders"]) or "in no hash: every file is lossless"
    portable = (
        "the same on every processor" if a["portable"] else "not promised: the FFT is too long"
    )
    pairs = [
        *((name.replace("_", " "), a[name]) for name in ("key", "digest")),
        *((name.replace("_", " "), a[name]) for name in ("recipe_hash", "manifest_hash")),
        ("values", f"{report.dtype}, {report.before.unit}; bits are {portable}"),
        ("decoders", decoders),
        ("versions", ", ".join(f"{name} {number}" for name, number in a["versions"].items())),
    ]
    if machine := ", ".join(filter(None, (a.get("machine"), a.get("cpu")))):
        pairs.append(("computed on", machine))
    return pairs


def _chart(title: str, svg: str, words: str) -> Chart:
    label = Markup('<svg role="img" aria-label="{}" ').format(printable(f"{title}. {words}"))
    return Chart(title, Markup(svg.replace("<svg ", str(label), 1)), words)


def _durations(series: list[tuple[str, Cells]]) -> Chart:
    svg = _histograms(series, "seconds")
    return _chart("Duration of clips", svg, _ranges(series, "s"))


def _levels(series: list[tuple[str, Cells]], recipe: Recipe) -> Chart:
    svg = _histograms(series, "RMS, dBFS")
    rate = shown(recipe.resample.sample_rate)
    words = f"RMS of one channel at {rate} Hz; a sine of full scale has −3 dBFS."
    return _chart("Level of clips", svg, f"{_ranges(series, 'dB')} {words}")


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
    """Where the clips of histograms lie, in words."""
    said = []
    for name, (edges, counts, _) in series:
        upto = np.cumsum(counts)
        middle = int(np.searchsorted(upto, upto[-1] / 2))
        most = int(counts.argmax())
        said.append(
            f"{name + ': ' if name else ''}from {edges[0]:.3g} to {edges[-1]:.3g} {unit}, half of "
            f"the clips below {edges[middle + 1]:.3g} {unit}, most between {edges[most]:.3g} and "
            f"{edges[most + 1]:.3g} {unit}."
        )
    return " ".join(s[0].upper() + s[1:] if len(series) == 1 else s for s in said)


def _features(report: Report) -> Iterator[Chart]:
    """The charts of the bins, each before normalization and after it."""
    drawn = [("before normalization", report.before), ("normalized", report.after)]
    profiles = [(name, profile) for name, profile in drawn if profile is not None]
    if len(profiles) == 1:
        profiles = [("as stored", report.before)]
    for name, profile in profiles:
        words = (
            f"Means of the bins lie between {_span(profile.mean, profile)}, standard deviations "
            f"between {_span(profile.std, profile)}, and values between "
            f"{_span(np.stack([profile.min, profile.max]), profile)}{_unit(profile)}."
        )
        yield _chart(f"Mean ± standard deviation, {name}", charts.means([("", profile)]), words)
    for name, profile in profiles:
        low, median, high = (profile.percentiles[i] for i in (1, 3, 5))
        words = (
            f"Medians of the bins lie between {_span(median, profile)}, 5th percentiles between "
            f"{_span(low, profile)}, and 95th between {_span(high, profile)}{_unit(profile)}."
        )
        yield _chart(f"Percentiles, {name}", charts.percentiles(profile), words)
    for name, profile in profiles:
        edges, share = charts.spread(profile)
        most = edges[int(share.argmax()) :][:2]
        words = f"All bins together; values between {_span(most, profile)} are most common."
        svg = charts.bars([("", edges, share)], profile.unit, "% of values")
        yield _chart(f"Histogram, {name}", svg, words)
    words = "How often each bin has each value: brighter is more often, blank is never."
    yield _chart(f"Histogram of each bin, {profiles[0][0]}", charts.heat(report.before), words)


def _span(values: NDArray[np.float64], profile: Profile) -> str:
    """The lowest and the highest of some values, to three digits of what the profile spans."""
    widest = float(np.abs([profile.min.min(), profile.max.max()]).max()) or 1.0
    digits = max(0, 2 - math.floor(math.log10(widest))) if widest > 1e-3 else None
    low, high = float(values.min()) + 0.0, float(values.max()) + 0.0
    low, high = (round(x, digits) + 0.0 if digits is not None else x for x in (low, high))
    return f"{shown(low, digits)} and {shown(high, digits)}"


def _unit(profile: Profile) -> str:
    return " dB" if profile.unit == "dB" else ""


def _example(example: Example, recipe: Recipe) -> dict[str, Any]:
    """A clip as the page shows it: title, picture, sound if there is one, and words."""
    title = example.id if example.label is None else f"{example.label}: {example.id}"
    rate = recipe.resample.sample_rate
    length = f"{example.duration:.3g} s, {example.split}"
    seen = min(example.duration, EXCERPT_SECONDS)
    words = length if seen == example.duration else f"{length}; its first {seen:.3g} s"
    sound = None
    if example.audio is None or not example.audio.size:
        words += "; its audio was not listened to"
    elif not PLAYED[0] <= rate <= PLAYED[1]:
        words += f"; browsers do not play {shown(rate)} Hz"
    else:
        data, heard = encoded(example.audio, rate)
        sound = _data("audio/flac", data)
        if heard < seen - 0.01:
            words += f", {heard:.3g} s of them to hear"
    n_frames, n_bins = example.features.shape
    alt = f"{recipe.representation.kind} of {title}: {shown(n_frames)} frames of {n_bins} bins"
    picture = charts.picture(_seen(example.features, recipe))
    return {
        "title": title,
        "picture": _data("image/png", picture),
        "alt": alt,
        "audio": sound,
        "words": words,
    }


def _seen(features: NDArray[Any], recipe: Recipe) -> NDArray[np.float64]:
    """Features as a picture shows them: magnitudes in dB, and no more than 80 dB."""
    values = np.abs(features) if features.dtype.kind == "c" else features
    values = np.asarray(values, np.float64)
    kind = recipe.representation
    decibels = getattr(kind, "log", "") == "db"
    if kind.grid.kind == "octave" and (values >= 0).all() and kind.columns() > 1:
        values, decibels = 20 * np.log10(np.maximum(values, 1e-30)), True
    return np.maximum(values, values.max() - _DEEPEST_DB) if decibels else values


def _data(media_type: str, data: bytes) -> Markup:
    return Markup(f"data:{media_type};base64,{base64.b64encode(data).decode()}")


def _examples_are(report: Report) -> str:
    n, labels = len(report.examples), len({example.label for example in report.examples})
    of = f"of {labels} of {shown(report.n_labels)} labels, " if report.n_labels else ""
    return (
        f"{n} clips {of}the first of each in content order, which is a random order. Pictures "
        "show what is stored, time to the right and bins upwards; sounds are what it was computed "
        f"from, one channel at {shown(report.recipe.resample.sample_rate)} Hz."
    )


def _stages(report: Report) -> Table:
    """Seconds of work and shards computed or cached, by stage."""
    built, audio = report.built, report.hours * 3600
    rows: list[tuple[Any, ...]] = []
    for stage, seconds in report.attributes.get("seconds", {}).items():
        row: tuple[Any, ...] = (stage, float(seconds), audio / seconds if seconds else math.inf)
        if built:
            computed = built["pending"].get(stage, 0)
            row += (computed, built["shards"] - computed)
        rows.append(row)
    columns = ("stage", "seconds of work", "times real time")
    more = ("shards computed", "shards cached") if built else ()
    return Table((*columns, *more), rows, len(rows), "upstream first")


def _build_lines(report: Report) -> list[str]:
    lines = []
    if not report.attributes.get("seconds"):
        lines.append("How long each stage took was not recorded for this set.")
    if report.built is None:
        return [*lines, "What the build found cached, and how long it took, was not recorded."]
    began = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(report.built["started"]))
    return [
        *lines,
        f"The build that logged the set began on {began} and took {report.built['seconds']:.1f} s "
        "up to then, with planning, statistics and publishing, which are not timed apart.",
    ]
