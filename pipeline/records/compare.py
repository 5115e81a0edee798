"""Differences between two feature sets of the same clips, by bin, to judge a change of recipe."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from basilar.dsp.moments import ordered_sum
from basilar.pipeline.errors import IncomparableError
from basilar.pipeline.progress import Progress
from basilar.pipeline.training.feature_set import FeatureSet

_ROWS = 8192  # of a clip, compared at one time


@dataclass(frozen=True)
class Differences:
    """Absolute differences of two feature sets, float64 (bins,), over the clips in both.

    `span` is the range of the first set's values (of magnitudes if they are complex), `only` the
    numbers of contents that are in one set alone, `worst` the clip with the largest difference.
    """

    clips: int
    frames: int
    only: tuple[int, int]
    mean: NDArray[np.float64]
    largest: NDArray[np.float64]
    span: float
    worst: str

    @property
    def equal(self) -> bool:
        """Whether all values are equal, and all clips are in both sets."""
        return not self.largest.any() and self.only == (0, 0)


def compare(
    a: FeatureSet, b: FeatureSet, progress: Progress = lambda items, total: items
) -> Differences:
    """Compare two sets clip by clip, matched by content; memory does not grow with the sets.

    Raises IncomparableError for sets of different bins or frames, or without a clip in common.
    """
    if a.n_bins != b.n_bins:
        raise IncomparableError(
            f"{a.key[:12]} and {b.key[:12]}: they have {a.n_bins} and {b.n_bins} bins, and only "
            "equal bins can be compared; basilar why says how the recipes differ"
        )
    row_in_a, row_in_b = ({c: i for i, c in enumerate(fs.clips["content"])} for fs in (a, b))
    both = [content for content in row_in_a if content in row_in_b]
    if not both:
        raise IncomparableError(
            f"{a.key[:12]} and {b.key[:12]}: they have no clip in common; compare sets of the same "
            "audio"
        )
    ids = a.clips["id"]
    total, largest = np.zeros(a.n_bins), np.zeros(a.n_bins)
    frames, most, worst = 0, -1.0, ""
    for content in progress(both, len(both)):
        row = row_in_a[content]
        x, y = a.read(row), b.read(row_in_b[content])
        if len(x) != len(y):
            raise IncomparableError(
                f"{ids[row]}: {len(x)} frames in {a.key[:12]} and {len(y)} in {b.key[:12]}, but "
                "only equal frames can be compared; basilar why says how the recipes differ"
            )
        high = np.zeros(a.n_bins)
        for difference in absolute_differences(x, y):
            total += ordered_sum(difference)
            np.maximum(high, difference.max(axis=0), out=high)
        np.maximum(largest, high, out=largest)
        frames += len(x)
        if high.max() > most:
            most, worst = float(high.max()), str(ids[row])
    only = (len(row_in_a) - len(both), len(row_in_b) - len(both))
    return Differences(len(both), frames, only, total / frames, largest, span(a), worst)


def absolute_differences(x: NDArray[Any], y: NDArray[Any]) -> Iterator[NDArray[np.float64]]:
    """Yield |x - y| in float64, a block of rows at a time."""
    wide = np.complex128 if np.result_type(x, y).kind == "c" else np.float64
    for start in range(0, len(x), _ROWS):
        rows = slice(start, start + _ROWS)
        yield np.abs(x[rows].astype(wide) - y[rows].astype(wide))


def span(fs: FeatureSet) -> float:
    """The range of a feature set's values, over the split that statistics are fitted on."""
    return float(fs.stats["max"].max() - fs.stats["min"].min())


def first_stage(a: dict[str, Any], b: dict[str, Any]) -> str | None:
    """The first stage whose output differs between two rows of tables of clips, or None."""
    for stage, column in (
        ("decode", "decoded_crc32"),
        ("resample", "resampled_crc32"),
        ("representation", "values_sha256"),
    ):
        if a[column] != b[column]:
            return stage
    return None
