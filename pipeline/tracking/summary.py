"""The summary of a feature set in its run: parameters, metrics, a description."""

import re
from typing import Any

import pandas as pd
from mlflow.entities import (
    Metric,
)

from basilar.pipeline.recipes.recipe import Recipe
from basilar.pipeline.storage import checksums
from basilar.pipeline.training.feature_set import FeatureSet


def metric_name(name: str) -> str:
    """A metric's name as MLflow allows it: other characters become `_`."""
    return re.sub("[^A-Za-z0-9_.-]", "_", name)


def parameters(recipe: Recipe) -> dict[str, str]:
    """The resolved recipe as flat names and values: `representation.n_fft`, …"""
    return {
        f"{section}.{name}": str(value)
        for section, values in recipe.resolved().items()
        if isinstance(values, dict)
        for name, value in values.items()
    }


def metrics(fs: FeatureSet) -> dict[str, float]:
    """The statistics of a feature set as flat names and numbers."""
    clips, stats = fs.clips, fs.stats
    files = checksums.read_checksums(fs.path)
    values: dict[str, Any] = {
        "clips": len(fs),
        "hours": clips["duration"].sum() / 3600,
        "frames": fs.attributes["frames"],
        "quarantined": fs.attributes["quarantined"],
        "bytes": sum(size for name, (size, _) in files.items() if name.startswith("features/")),
        "mean": stats["mean"].mean(),
        "std": (stats["std"] ** 2 + (stats["mean"] - stats["mean"].mean()) ** 2).mean() ** 0.5,
        "min": stats["min"].min(),
        "max": stats["max"].max(),
        **{
            metric_name(f"clips_{name}"): count
            for name, count in clips["split"].value_counts().items()
        },
        **{f"seconds_{stage}": spent for stage, spent in fs.attributes["seconds"].items()},
    }
    return {name: float(value) for name, value in values.items()}


def description(fs: FeatureSet) -> str:
    """The description of a feature set for its run's page, in Markdown."""
    kind, rate = fs.recipe["representation"]["kind"], fs.recipe["resample"]["sample_rate"]
    hours, lost = fs.clips["duration"].sum() / 3600, fs.attributes["quarantined"]
    return (
        f"{len(fs)} clips, {hours:.2f} h, as {fs.attributes['frames']} frames of {fs.n_bins} bins "
        f"of `{kind}` at {rate} Hz; {lost} quarantined.\n\n"
        "* Charts over bins: *Model metrics*, `per_bin`; the step is the bin.\n"
        "* The report, with pictures and audio: *Artifacts*, `report.html`."
    )


def per_bin_table(fs: FeatureSet) -> pd.DataFrame:
    """Mean, standard deviation, minimum and maximum of each bin over the fit split."""
    columns = {name: fs.stats[name] for name in ("mean", "std", "min", "max")}
    return pd.DataFrame({"bin": range(len(columns["mean"])), **columns})


def per_bin_metrics(fs: FeatureSet) -> list[Metric]:
    """The table as metrics whose step is the bin, so that MLflow draws lines over the bins."""
    return [
        Metric(f"per_bin/{name}", float(value), 0, step)
        for name, column in per_bin_table(fs).drop(columns="bin").items()
        for step, value in enumerate(column)
    ]
