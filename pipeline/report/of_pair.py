"""The page about two feature sets: the fields and clips that differ, and facts side by side."""

from collections.abc import Iterator
from typing import Any

from basilar.pipeline.records.explain import Why
from basilar.pipeline.report import charts
from basilar.pipeline.report.collect import Report
from basilar.pipeline.report.describe import MOST_ROWS, Table
from basilar.pipeline.report.page import (
    Chart,
    chart,
    durations,
    length,
    levels,
    shown,
    size,
    span,
    unit,
    written,
)

_SECTIONS = {
    "differences": "What differs",
    "sides": "Side by side",
    "data": "Data",
    "features": "Features",
}


def render(a: Report, b: Report, why: Why) -> str:
    """Render two reports, and the differences of their recipes and manifests, as an HTML page."""
    names = [f"{side.recipe.name or side.recipe.representation.kind}" for side in (a, b)]
    keys = [str(side.attributes["key"]) for side in (a, b)]
    short = [key[:12] for key in keys]
    changes = sum(map(len, why.clips.values()))
    fields = _fields(a, b, why, short)
    with charts.style():
        drawn = {"data": [*_data(a, b, short)], "features": [*_features(a, b, short)]}
    return written(
        "pair.html.j2",
        title=f"{names[0]} {short[0]} and {names[1]} {short[1]}",
        eyebrow=f"Feature sets {short[0]} and {short[1]}",
        heading=" and ".join(names),
        sections=_SECTIONS.items(),
        summary=f"{len(fields.rows)} fields and {shown(changes)} clips differ; the values are "
        + ("equal." if a.attributes["digest"] == b.attributes["digest"] else "not equal."),
        names=list(zip(names, keys, strict=True)),
        fields=fields,
        groups=_groups(why, short, changes),
        sides=_sides(a, b, short),
        counts=_counts(a, b, short),
        charts=drawn,
        command=f"basilar diff {short[0]} {short[1]} --root ROOT",
    )


def _fields(a: Report, b: Report, why: Why, short: list[str]) -> Table:
    """Every field that differs; those that no hash depends on come last."""
    parts = {
        "recipe": why.recipe,
        "op version": why.op_versions,
        "decoder": why.decoders,
        "in no hash": why.unhashed,
    }
    rows = [
        (field, _text(pair[0]), _text(pair[1]), part)
        for part, pairs in parts.items()
        for field, pair in pairs.items()
    ]
    one, two = a.attributes["versions"], b.attributes["versions"]
    rows += [
        (name, _text(one.get(name)), _text(two.get(name)), "version, in no hash")
        for name in dict.fromkeys([*one, *two])
        if one.get(name) != two.get(name)
    ]
    return Table(("field", *short, "part"), rows, len(rows))


def _groups(why: Why, short: list[str], changes: int) -> Table:
    """The changes of clips: the first ones of each group, and its number of clips."""
    each = max(1, MOST_ROWS // max(1, len(why.clips)))
    rows = [
        (f"{group.replace('_', ' ')} ({len(clips)})", clip.id, _text(clip.a), _text(clip.b))
        for group, clips in why.clips.items()
        for clip in clips[:each]
    ]
    return Table(("change (clips)", "clip", *short), rows, changes, "some of each change")


def _sides(a: Report, b: Report, short: list[str]) -> Table:
    rows = [(name, *pair) for name, *pair in zip(_NAMES, _values(a), _values(b), strict=True)]
    return Table(("fact", *short), rows, len(rows))


_NAMES = (
    *("key", "digest", "recipe hash", "manifest hash"),
    *("clips", "audio", "frames", "bins", "dtype", "features", "labels", "quarantined"),
    *("mean of the means", "mean of the standard deviations", "lowest value", "highest value"),
    *("silent clips", "clipped clips", "outliers"),
)


def _values(side: Report) -> Iterator[str]:
    attributes, profile = side.attributes, side.before
    yield from (str(attributes[name]) for name in ("key", "digest", "recipe_hash", "manifest_hash"))
    yield from (shown(attributes["clips"]), length(side.hours), shown(attributes["frames"]))
    yield from (shown(len(profile.mean)), side.dtype, size(side.n_bytes))
    yield from (shown(side.n_labels), shown(attributes["quarantined"]))
    numbers = (profile.mean.mean(), profile.std.mean(), profile.min.min(), profile.max.max())
    yield from (shown(float(number)) + unit(profile) for number in numbers)
    yield from (shown(found.total) for found in (side.silent, side.clipped, side.outliers))


def _counts(a: Report, b: Report, short: list[str]) -> Table:
    """The clips of each split and label that either report lists."""
    rows = []
    for what in ("splits", "labels"):
        one, two = (getattr(side, what) for side in (a, b))
        left, right = ({row[0]: row[1] for row in table.rows} for table in (one, two))
        for name in dict.fromkeys([*left, *right]):
            missing = [
                0 if table.total == len(table.rows) else "not listed" for table in (one, two)
            ]
            counts = (left.get(name, missing[0]), right.get(name, missing[1]))
            rows.append((f"{what[:-1]} {name}", *counts))
    return Table(("clips of", *short), rows, len(rows))


def _data(a: Report, b: Report, short: list[str]) -> Iterator[Chart]:
    yield durations([(short[0], a.durations), (short[1], b.durations)])
    if a.levels is not None and b.levels is not None:
        yield levels([(short[0], a.levels), (short[1], b.levels)], a.recipe)


def _features(a: Report, b: Report, short: list[str]) -> Iterator[Chart]:
    """Charts of the bins of both sets: one chart if their bins and units are equal, else two."""
    sides = [(short[0], a.before), (short[1], b.before)]
    alike = len(a.before.mean) == len(b.before.mean) and a.before.unit == b.before.unit
    for part in [sides] if alike else [[side] for side in sides]:
        words = " ".join(
            f"{name}: means of the bins between {span(profile.mean, profile)}{unit(profile)}."
            for name, profile in part
        )
        title = "Mean ± standard deviation" if alike else f"Mean ± standard deviation, {part[0][0]}"
        yield chart(title, charts.means(part, ranges=not alike), words)
    for part in [sides] if a.before.unit == b.before.unit else [[side] for side in sides]:
        series: list[tuple[str, Any, Any]] = [(name, *charts.spread(p)) for name, p in part]
        words = " ".join(
            f"{name}: values between {span(edges[share.argmax() :][:2], profile)} are most common."
            for (name, profile), (_, edges, share) in zip(part, series, strict=True)
        )
        title = "Histogram" if len(part) == 2 else f"Histogram, {part[0][0]}"
        yield chart(title, charts.bars(series, part[0][1].unit, "% of values"), words)


def _text(value: Any) -> str:
    return "none" if value is None else str(value)
