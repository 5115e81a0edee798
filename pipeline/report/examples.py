"""Example clips of a feature set: their choice, their pictures and their sounds."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from basilar.pipeline.manifests.table import take_rows
from basilar.pipeline.recipes.recipe import Recipe
from basilar.pipeline.report import charts, describe
from basilar.pipeline.report.listening import EXCERPT_SECONDS, Heard, encoded
from basilar.pipeline.report.plots import drawing
from basilar.pipeline.training.feature_set import FeatureSet

MOST = 12
MOST_OF_A_LABEL = 3
PLAYED = (3000, 384_000)  # Hz: rates that browsers play


class Example(NamedTuple):
    """An example clip: features (frames, bins) and audio of its first seconds.

    `audio` are its samples at the recipe's rate, or None if they are not available.
    """

    id: str
    label: str | None
    split: str
    duration: float
    features: NDArray[Any]
    audio: NDArray[np.float32] | None


def chosen(clips: pa.Table, most: int = MOST) -> tuple[list[int], int]:
    """The rows of the examples, label by label, and the number of labels.

    Examples are the first clips of each label in content order, which is a random order. If there
    are many labels, those with most clips are chosen.
    """
    names, codes = describe.coded(clips["label"])
    counts = np.bincount(codes, minlength=len(names))
    common = sorted(np.argsort(-counts, kind="stable")[:most].tolist())
    each = max(1, min(MOST_OF_A_LABEL, most // max(1, len(common))))
    if names == [None]:
        each = most // 2
    rows = [row for code in common for row in np.flatnonzero(codes == code)[:each].tolist()]
    return rows, sum(name is not None for name in names)


def examples(fs: FeatureSet, clips: pa.Table, shown: list[int], heard: Heard) -> Iterator[Example]:
    """Yield the examples in some rows: names from the table of clips, features from the store."""
    columns = ["id", "label", "split", "duration"]
    named = take_rows(clips, columns, np.array(shown, np.int64)).to_pylist()
    most = round(EXCERPT_SECONDS * fs.recipe["resample"]["sample_rate"])  # one frame a sample
    for row, clip in zip(shown, named, strict=True):
        times = fs.seconds(np.arange(min(fs.n_frames[row], most)))
        frames = max(1, int(np.searchsorted(times, EXCERPT_SECONDS)))
        yield Example(**clip, features=fs.read(row, 0, frames), audio=heard.excerpts.get(row))


def picture(example: Example, recipe: Recipe) -> bytes:
    """The features of an example as a PNG file without axes: a waveform, or bins that run up."""
    kind, features = recipe.representation, example.features
    if kind.kind == "waveform":
        return charts.picture(_envelope(features[:, 0].astype(np.float64)), 0.0, 1.0)
    values, unit = drawing.seen(features, kind, decibels=True)
    lowest, highest, _ = drawing.limits(values, kind, unit)
    return charts.picture(values, lowest, highest)


def sound(example: Example, sample_rate: int) -> tuple[bytes, float] | None:
    """The audio of an example as a WAV file, and its seconds; None if there is none to play.

    There is none if the audio is not available, or has a rate that browsers do not play.
    """
    audio = example.audio
    if audio is None or not audio.size or not PLAYED[0] <= sample_rate <= PLAYED[1]:
        return None
    return encoded(audio, sample_rate)


def _envelope(y: NDArray[np.float64], shape: tuple[int, int] = (480, 128)) -> NDArray[np.float64]:
    """The envelope of samples (n,) as a picture: the shade of pixels that are inside it, else 0."""
    begins = np.unique(np.linspace(0, y.size, shape[0], endpoint=False, dtype=np.int64))
    low, high = np.minimum.reduceat(y, begins), np.maximum.reduceat(y, begins)
    peak = max(float(np.abs(y).max()), 1e-9)
    edges = np.linspace(-1.02 * peak, 1.02 * peak, shape[1] + 1)
    inside = (edges[1:] >= low[:, None]) & (edges[:-1] <= high[:, None])
    return np.where(inside, 0.8, 0.0)
