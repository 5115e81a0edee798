"""The levels of a feature set's clips, and excerpts of some of them.

Levels are those of the samples that features are computed from: one channel at the recipe's rate.
They come from the kept artifacts of the stage `resample`, or else from the audio itself.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import soundfile as sf
from numpy.typing import NDArray

from basilar.pipeline import storage
from basilar.pipeline.compute import stages
from basilar.pipeline.compute.transform import Transform
from basilar.pipeline.compute.waveforms import Waveforms, read_waveforms
from basilar.pipeline.errors import DamagedArtifactError
from basilar.pipeline.plan import Plan, Shard
from basilar.pipeline.progress import Progress

FULL_SCALE = 0.999  # samples at it or beyond may have been clipped
EXCERPT_SECONDS = 4.0
EXCERPT_BYTES = 180_000
_ROWS = 65536  # of clips.parquet, read at one time
_SAMPLES = 1 << 20  # measured at one time


@dataclass
class Heard:
    """Measurements of each clip: float64 (clips,), NaN for clips that were not measured.

    `rms` and `peak` are relative to full scale (1.0), `full` is the share of samples at full scale.
    `excerpts` are the first seconds of some clips by row, `seconds` the length of the audio that
    was measured, `problems` why the audio of some shards is not available.
    """

    rms: NDArray[np.float64]
    peak: NDArray[np.float64]
    full: NDArray[np.float64]
    excerpts: dict[int, NDArray[np.float32]] = field(default_factory=dict)
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)


def listen(
    store: Path,
    plan: Plan,
    *,
    n_clips: int,
    seconds: float = float("inf"),
    excerpts: Collection[int] = (),
    progress: Progress = lambda items, total: items,
) -> Heard:
    """Measure the clips of a published store, shard by shard, up to about `seconds` of audio.

    Content order is a random order, so the first shards are a sample of all. `excerpts` are rows
    whose first seconds are kept. Audio that cannot be read or has changed is listed as a problem;
    it raises no error.
    """
    rms, peak, full = np.full((3, n_clips), np.nan)
    heard = Heard(rms, peak, full)
    rate = plan.recipe.resample.sample_rate
    wanted = set(excerpts)
    for shard, rows in progress(_rows_of_shards(store, plan), len(plan.shards)):
        if heard.seconds >= seconds:
            break
        try:
            waveforms = _waveforms(store.parents[1], plan, shard)
        except (OSError, RuntimeError, ValueError) as error:
            heard.problems.append(str(error))
            continue
        signal_of = dict(zip(waveforms.contents, waveforms.signals, strict=True))
        for row, content in rows:
            if content in signal_of:  # otherwise it can no longer be used
                y = signal_of[content]
                heard.rms[row], heard.peak[row], heard.full[row] = _measured(y)
                heard.seconds += y.size / rate
                if row in wanted:
                    heard.excerpts[row] = np.array(y[: round(EXCERPT_SECONDS * rate)])
        storage.drop(_artifact(store.parents[1], shard))
    return heard


def encoded(y: NDArray[np.float32], sample_rate: int) -> tuple[bytes, float]:
    """A signal as a 16-bit WAV file of at most 180,000 bytes, and the seconds that it holds.

    It is not FLAC, since browsers cannot seek in FLAC files of one block, as short clips have.

    >>> data, seconds = encoded(np.zeros(8000, np.float32), 8000)
    >>> len(data), seconds
    (16044, 1.0)
    """
    y, file = y[: EXCERPT_BYTES // 2], BytesIO()
    sf.write(file, np.clip(y, -1.0, 1.0), sample_rate, "PCM_16", format="WAV")
    return file.getvalue(), y.size / sample_rate


def _rows_of_shards(store: Path, plan: Plan) -> Iterator[tuple[Shard, list[tuple[int, str]]]]:
    """Yield each shard of a plan, with row and content of the store's clips in it."""
    following = _contents(store)
    row, content = next(following, (0, ""))
    for shard in plan.shards:
        here = set(plan.manifest.contents_of(shard.rows))
        rows = []
        while content in here:
            rows.append((row, content))
            row, content = next(following, (0, ""))
        yield shard, rows


def _contents(store: Path) -> Iterator[tuple[int, str]]:
    with pq.ParquetFile(store / "clips.parquet") as file:
        row = 0
        for batch in file.iter_batches(_ROWS, columns=["content"]):
            for content in batch.column(0).to_pylist():
                yield row, content
                row += 1


def _artifact(root: Path, shard: Shard) -> Path:
    return root / "artifacts" / "resample" / shard.keys["resample"]


def _waveforms(root: Path, plan: Plan, shard: Shard) -> Waveforms:
    """The resampled clips of a shard: the kept artifact, or made from the audio again."""
    try:
        return read_waveforms(_artifact(root, shard))
    except (FileNotFoundError, DamagedArtifactError):
        transform = Transform(plan.recipe)
        return stages.decode(shard.sources, transform, root=plan.manifest.root, resampled=True)


def _measured(y: NDArray[np.float32]) -> tuple[float, float, float]:
    """RMS, peak, and share of samples at full scale; the samples may be memory-mapped."""
    squares = peak = 0.0
    full = 0
    for start in range(0, y.size, _SAMPLES):
        magnitude = np.abs(y[start : start + _SAMPLES])
        squares += float(np.square(magnitude, dtype=np.float64).sum())
        peak = max(peak, float(magnitude.max()))
        full += int(np.count_nonzero(magnitude >= FULL_SCALE))
    return (squares / y.size) ** 0.5, peak, full / y.size


def decibels(level: NDArray[np.float64]) -> NDArray[np.float64]:
    """Levels relative to full scale, in dB; -inf for silence.

    >>> decibels(np.array([1.0, 0.1])).tolist()
    [0.0, -20.0]
    """
    with np.errstate(divide="ignore"):
        found: NDArray[np.float64] = 20.0 * np.log10(level)
    return found
