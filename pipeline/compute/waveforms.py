"""The clips of a shard as signals, and the artifact that decode and resample make of them.

    samples.f32  float32, little-endian: one clip after the other, each from a multiple of 64 bytes
    index.json   which clips these are, where each begins and how long it is, their CRC-32, what was
                 quarantined, and the CRC-32 of all that

Samples are written once: `write_waveforms` gives the stage the file to write them to, as they come.
"""

import json
import mmap
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from basilar.pipeline import storage
from basilar.pipeline.compute.quarantine import Quarantined
from basilar.pipeline.errors import DamagedArtifactError
from basilar.pipeline.storage.atomic import replacing
from basilar.pipeline.storage.files import read_json
from basilar.pipeline.storage.scratch import SignalSpan, Spool, release_pages

SAMPLES, INDEX = "samples.f32", "index.json"
_RELEASED_AT_ONCE = 64  # signals


class ClipSamples(NamedTuple):
    """What is known of one clip that was decoded, or resampled, too.

    Its samples are at `sample_rate` Hz, in `span` of the shard's file. In its audio file it
    had `source_samples` samples at `source_rate` Hz. `checksums` are the CRC-32 of its samples
    after each stage so far, the last one that of `span`.
    """

    content: str
    span: SignalSpan
    sample_rate: int
    source_rate: int
    source_samples: int
    checksums: tuple[int, ...]


@dataclass
class Waveforms:
    """The decoded or resampled clips of one shard, in content order.

    `samples` are the bytes of the file that holds the samples of all `clips`, memory-mapped and
    read-only; `seconds` is the time that each stage took.
    """

    clips: list[ClipSamples] = field(default_factory=list)
    samples: NDArray[np.uint8] = field(default_factory=lambda: np.empty(0, np.uint8))
    quarantined: list[Quarantined] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def contents(self) -> list[str]:
        """The content of each clip."""
        return [clip.content for clip in self.clips]

    @property
    def signals(self) -> list[NDArray[np.float32]]:
        """The samples of each clip, float32 (samples,)."""
        return [clip.span.of(self.samples) for clip in self.clips]


def write_waveforms(folder: Path, make: Callable[[Spool], Waveforms]) -> None:
    """Commit as a folder what `make` returns, whose signals it puts into the spool it is given."""
    with replacing(folder) as temporary:
        temporary.mkdir()
        with Spool.at(temporary / SAMPLES) as spool:
            made = make(spool)
        index: dict[str, Any] = {
            "contents": made.contents,
            "begins": [clip.span.begin for clip in made.clips],
            "n_samples": [clip.span.samples for clip in made.clips],
            "sample_rates": [clip.sample_rate for clip in made.clips],
            "sources": [(clip.source_rate, clip.source_samples) for clip in made.clips],
            "checksums": [clip.checksums for clip in made.clips],
            "quarantined": made.quarantined,
            "seconds": made.seconds,
            "bytes": (temporary / SAMPLES).stat().st_size,
        }
        index["crc32"] = zlib.crc32(json.dumps(index).encode())
        (temporary / INDEX).write_text(json.dumps(index))


def read_waveforms(folder: Path) -> Waveforms:
    """Read waveforms back, memory-mapped.

    Raises FileNotFoundError, or DamagedArtifactError if anything is not as it was written.
    """
    if not storage.exists(folder):
        raise FileNotFoundError(f"{folder}: it is not there; build again")
    if not folder.is_dir():
        storage.fetch(folder)
    try:
        index = read_json(folder / INDEX)
        expected = index.pop("crc32")
        if zlib.crc32(json.dumps(index).encode()) != expected:
            raise ValueError("the checksum of its index does not match")
        waveforms = Waveforms(
            clips=_clips(index),
            samples=_mapped(folder / SAMPLES, index["bytes"]),
            quarantined=[Quarantined(*entry) for entry in index["quarantined"]],
            seconds=index["seconds"],
        )
        signals = waveforms.signals
        for i, (clip, y) in enumerate(zip(waveforms.clips, signals, strict=True)):
            if zlib.crc32(y.data.cast("B")) != clip.span.crc32:
                raise ValueError("a checksum of its samples does not match")
            if i % _RELEASED_AT_ONCE == 0:
                release_pages([y])
        release_pages(signals)
        return waveforms
    except (OSError, ValueError, KeyError, TypeError, DamagedArtifactError) as error:
        raise DamagedArtifactError(
            f"{folder}: damaged ({error}); delete it and build again"
        ) from error


def _clips(index: dict[str, Any]) -> list[ClipSamples]:
    """The clips that an index lists, column by column."""
    names = ("contents", "begins", "n_samples", "sample_rates", "sources", "checksums")
    return [
        ClipSamples(
            content=content,
            span=SignalSpan(begin, n_samples, checksums[-1]),
            sample_rate=sample_rate,
            source_rate=source[0],
            source_samples=source[1],
            checksums=tuple(checksums),
        )
        for content, begin, n_samples, sample_rate, source, checksums in zip(
            *(index[name] for name in names), strict=True
        )
    ]


def _mapped(file: Path, expected_size: int) -> NDArray[np.uint8]:
    """The bytes of `samples.f32`."""
    with file.open("rb") as samples:
        if (size := samples.seek(0, 2)) != expected_size:
            raise ValueError(f"{SAMPLES} has {size} bytes, not {expected_size}")
        if not size:
            return np.empty(0, np.uint8)
        return np.frombuffer(mmap.mmap(samples.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
