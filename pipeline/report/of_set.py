"""The page about one feature set: what it is, its data, features, examples, hashes and build."""

import math
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from basilar.pipeline.recipes.recipe import Recipe
from basilar.pipeline.report import charts
from basilar.pipeline.report.collect import Report
from basilar.pipeline.report.describe import Table
from basilar.pipeline.report.examples import Example, picture, sound
from basilar.pipeline.report.listening import EXCERPT_SECONDS
from basilar.pipeline.report.page import (
    Chart,
    block,
    chart,
    durations,
    inline,
    length,
    levels,
    shown,
    size,
    span,
    unit,
    written,
)
from basilar.pipeline.report.plots.axes import columns

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


def render(report: Report) -> str:
    """Render a report as an HTML page."""
    with charts.style():
        return _render(report)


def _render(report: Report) -> str:
    a, recipe = report.attributes, report.recipe
    name, short = recipe.name or recipe.representation.kind, a["key"][:12]
    kind = recipe.representation
    total = a["clips"] + a["quarantined"]
    of_labels = f" of {shown(report.n_labels)} labels" if report.n_labels else ""
    summary = (
        f"{shown(a['clips'])} clips{of_labels}, {length(report.hours)} of audio, as "
        f"{shown(a['frames'])} frames of {kind.columns()} {kind.kind} bins at "
        f"{shown(recipe.resample.sample_rate)} Hz."
    )
    unheard = ""
    if report.n_heard < a["clips"]:
        why = f" Not available: {'; '.join(report.problems[:3])}." if report.problems else ""
        more = "" if report.problems else " basilar report measures all of them."
        unheard = (
            f"Levels and clipping were measured for {shown(report.n_heard)} of "
            f"{shown(a['clips'])} clips, the first in content order, which is a random order."
            f"{more}{why}"
        )
    return written(
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
            ("audio", length(report.hours)),
            ("frames × bins", f"{shown(a['frames'])} × {kind.columns()}"),
            ("features", size(report.n_bytes)),
            ("quarantined", f"{shown(a['quarantined'])} of {shown(total)}"),
        ],
        what=_what(report),
        recipe_lines=block(recipe.to_toml().strip().split("\n")),
        commands=block(
            [
                f"basilar reproduce {a['key']} --root ROOT",
                f"basilar verify {a['key']} --root ROOT --sample 10",
            ]
        ),
        normalization=_NORMALIZATIONS.get(recipe.normalization.kind, "")
        + (" of each bin" if recipe.normalization.per == "bin" else " of all bins together"),
        charts={
            "durations": durations([("", report.durations)]),
            "levels": report.levels and levels([("", report.levels)], recipe),
            "features": [*_features(report)],
        },
        examples=[_example(example, recipe) for example in report.examples],
        examples_are=_examples_are(report),
        stages=_stages(report),
        stages_are="Seconds of work are summed over shards, each timed when it was computed, by "
        "this build or by an earlier one that it shares shards with."
        + (" Cached shards are those of the build that logged the set." if report.built else ""),
        build_lines=_build_lines(report),
    )


def _what(report: Report) -> list[tuple[str, str]]:
    a = report.attributes
    decoders = ", ".join(a["decoders"]) or "none in the key: every file is lossless"
    pairs = [
        *((name.replace("_", " "), a[name]) for name in ("key", "digest")),
        *((name.replace("_", " "), a[name]) for name in ("recipe_hash", "manifest_hash")),
        ("values", f"{report.dtype}, {report.before.unit}"),
        ("decoders", decoders),
        ("versions", ", ".join(f"{name} {number}" for name, number in a["versions"].items())),
    ]
    if machine := ", ".join(filter(None, (a.get("machine"), a.get("cpu")))):
        pairs.append(("computed on", machine))
    return pairs


def _features(report: Report) -> Iterator[Chart]:
    """Charts of the bins, each before and after normalization."""
    drawn = [("before normalization", report.before), ("normalized", report.after)]
    profiles = [(name, profile) for name, profile in drawn if profile is not None]
    if len(profiles) == 1:
        profiles = [("as stored", report.before)]
    for name, profile in profiles:
        words = (
            f"Means of the bins lie between {span(profile.mean, profile)}, standard deviations "
            f"between {span(profile.std, profile)}, and values between "
            f"{span(np.stack([profile.min, profile.max]), profile)}{unit(profile)}."
        )
        yield chart(f"Mean ± standard deviation, {name}", charts.means([("", profile)]), words)
    for name, profile in profiles:
        low, median, high = (profile.percentiles[i] for i in (1, 3, 5))
        words = (
            f"Medians of the bins lie between {span(median, profile)}, 5th percentiles between "
            f"{span(low, profile)}, and 95th between {span(high, profile)}{unit(profile)}."
        )
        yield chart(f"Percentiles, {name}", charts.percentiles(profile), words)
    for name, profile in profiles:
        edges, share = charts.spread(profile)
        most = edges[int(share.argmax()) :][:2]
        words = f"All bins together; values between {span(most, profile)} are most common."
        svg = charts.bars([("", edges, share)], profile.unit, "% of values")
        yield chart(f"Histogram, {name}", svg, words)
    words = "The values of each bin: brighter ones are more frequent, blank ones never occur."
    yield chart(f"Histogram of each bin, {profiles[0][0]}", charts.heat(report.before), words)


def _example(example: Example, recipe: Recipe) -> dict[str, Any]:
    """A clip for the page: title, picture, sound if there is one, and caption."""
    title = example.id if example.label is None else f"{example.label}: {example.id}"
    rate = recipe.resample.sample_rate
    seen = min(example.duration, EXCERPT_SECONDS)
    words = f"{example.duration:.3g} s, {example.split}"
    if seen < example.duration:
        words += f"; its first {seen:.3g} s"
    found = sound(example, rate)
    if found is None:
        at_hand = example.audio is not None
        words += f"; browsers do not play {shown(rate)} Hz" if at_hand else "; audio not available"
    elif found[1] < seen - 0.01:
        words += f", of which {found[1]:.3g} s can be played"
    across = columns(recipe)
    if across.scale is not None:
        words += f"; {across.edges[0]:,.0f} to {across.edges[-1]:,.0f} Hz"
    n_frames, n_bins = example.features.shape
    return {
        "title": title,
        "picture": inline("image/png", picture(example, recipe)),
        "alt": f"{recipe.representation.kind}, {shown(n_frames)} frames of {n_bins} bins: {title}",
        "audio": found and inline("audio/wav", found[0]),
        "words": words,
    }


def _examples_are(report: Report) -> str:
    n, labels = len(report.examples), len({example.label for example in report.examples})
    of = f"of {labels} of {shown(report.n_labels)} labels, " if report.n_labels else ""
    of = f"of all {labels} labels, " if labels == report.n_labels > 1 else of
    return (
        f"{n} clips {of}the first of each in content order, which is a random order. Pictures "
        "show the stored features: time runs to the right, bins run up. Sounds are the audio that "
        f"they were computed from, one channel at {shown(report.recipe.resample.sample_rate)} Hz."
    )


def _stages(report: Report) -> Table:
    """Seconds of work, and shards computed or cached, by stage."""
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
        return [*lines, "It was not recorded what the build found cached, nor how long it took."]
    began = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(report.built["started"]))
    return [
        *lines,
        f"The build that logged the set began on {began} and took {report.built['seconds']:.1f} s "
        "until then, including planning, statistics and publishing, which are not timed apart.",
    ]
