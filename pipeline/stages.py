"""The work of each stage on one shard: (parameters, clips) in, clips out. No Luigi here.

A clip that cannot be used is quarantined, with stage, reason and message; only what its content
determines may do so. A file that is missing, unreadable or changed since the scan is an error: it
says nothing about the content, and nothing is cached.
"""

import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsp.moments import moments
from pipeline import audio
from pipeline.artifacts import Quarantined, Waveforms
from pipeline.keys import values_hash
from pipeline.manifest import refuse_escape
from pipeline.scan import FileCache
from pipeline.transform import Transform


class ChangedAudioError(RuntimeError):
    """A file whose content is not what the manifest says."""


@dataclass(frozen=True)
class Source:
    """Where a clip's content is found: a file below the root, or an excerpt of one, in seconds."""

    content: str
    path: str
    sha256: str
    offset: float | None = None
    duration: float | None = None


@dataclass
class Represented:
    """The features of one shard, in content order, as they are stored.

    `features` are (frames, bins) each; `moments` float64 (4, bins); `values` the SHA-256 of each
    clip's values; `sources` the (sample rate in Hz, samples) that each had in its file, `checksums`
    the CRC-32 of its samples when they were decoded and when they were resampled.
    """

    contents: list[str]
    features: list[NDArray[Any]]
    moments: list[NDArray[np.float64]]
    values: list[str]
    sources: list[tuple[int, int]]
    checksums: list[tuple[int, ...]]
    quarantined: list[Quarantined]
    seconds: dict[str, float]


def decode(sources: Sequence[Source], transform: Transform, *, root: Path) -> Waveforms:
    """Decode clips to one channel at their own rate.

    Raises OSError for a file that cannot be read, ChangedAudioError for one whose content changed.
    """
    started = time.perf_counter()
    out = Waveforms()
    with FileCache() as cache:
        for source in sources:
            refuse_escape(root, source.path, root, follow=True)
            file = root / source.path
            if cache.sha256(file) != source.sha256:
                raise ChangedAudioError(f"{file} has changed since it was scanned; scan again")
            try:
                y, sample_rate = transform.decode(
                    file, offset=source.offset, duration=source.duration
                )
            except audio.AudioError as error:
                out.quarantined.append(
                    Quarantined(source.content, "decode", error.reason, error.message)
                )
                continue
            out.contents.append(source.content)
            out.signals.append(y)
            out.sample_rates.append(sample_rate)
            out.sources.append((sample_rate, y.size))
            out.checksums.append((zlib.crc32(np.ascontiguousarray(y).data),))
    out.seconds = {"decode": time.perf_counter() - started}
    return out


def resample(waveforms: Waveforms, transform: Transform) -> Waveforms:
    """Bring all clips to one sample rate."""
    started = time.perf_counter()
    out = Waveforms(quarantined=list(waveforms.quarantined))
    for content, y, rate, source, checksums in zip(
        waveforms.contents,
        waveforms.signals,
        waveforms.sample_rates,
        waveforms.sources,
        waveforms.checksums,
        strict=True,
    ):
        resampled = transform.resample(y, source_rate=rate)
        if resampled.size == 0:
            message = f"{y.size} samples at {rate} Hz leave none at {transform.sample_rate} Hz"
            out.quarantined.append(Quarantined(content, "resample", "empty", message))
            continue
        out.contents.append(content)
        out.signals.append(resampled)
        out.sample_rates.append(transform.sample_rate)
        out.sources.append(source)
        out.checksums.append((*checksums, zlib.crc32(np.ascontiguousarray(resampled).data)))
    out.seconds = {**waveforms.seconds, "resample": time.perf_counter() - started}
    return out


def represent(waveforms: Waveforms, transform: Transform) -> Represented:
    """Compute the representation of all clips, cast to the stored dtype, with its moments."""
    started = time.perf_counter()
    kind = transform.recipe.representation
    out = Represented([], [], [], [], [], [], list(waveforms.quarantined), {})
    usable = []
    for i, (content, y) in enumerate(zip(waveforms.contents, waveforms.signals, strict=True)):
        if kind.n_frames(y.size):
            usable.append(i)
        else:
            message = f"{y.size} samples are less than one frame of the {kind.kind}"
            out.quarantined.append(Quarantined(content, "representation", "empty", message))
    features = transform.represent([waveforms.signals[i] for i in usable])
    for i, stored in zip(usable, features, strict=True):
        with np.errstate(over="ignore", invalid="ignore"):  # looked at in the next line
            described = moments(stored, pivot=kind.pivot)
        if not np.isfinite(described).all():
            message = f"the {kind.kind} has values that {stored.dtype} cannot hold"
            out.quarantined.append(
                Quarantined(waveforms.contents[i], "representation", "too_loud_or_nan", message)
            )
            continue
        out.contents.append(waveforms.contents[i])
        out.features.append(stored)
        out.moments.append(described)
        out.values.append(values_hash(stored))
        out.sources.append(waveforms.sources[i])
        out.checksums.append(waveforms.checksums[i])
    out.seconds = {**waveforms.seconds, "representation": time.perf_counter() - started}
    return out
