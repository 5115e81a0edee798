"""The work of the stages decode and resample on one clip: what a child process does.

A clip becomes samples in a spool, or a `Quarantined`; child and parent hand both over as plain
values. A file that is not the one that was scanned is an error.
"""

import time
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from basilar.pipeline import audio, storage
from basilar.pipeline.compute.quarantine import Quarantined
from basilar.pipeline.compute.transform import Transform
from basilar.pipeline.compute.waveforms import ClipSamples
from basilar.pipeline.errors import ChangedAudioError
from basilar.pipeline.manifests.file_cache import FileCache
from basilar.pipeline.manifests.source import Source
from basilar.pipeline.storage.scratch import SignalSpan, Spool


class DecodedClip(NamedTuple):
    """A clip that a child has decoded, and how long that took without what came after it, s."""

    clip: ClipSamples
    seconds: float


def as_json(made: DecodedClip | Quarantined) -> dict[str, Any]:
    """What a child says to its parent, in plain values."""
    if isinstance(made, Quarantined):
        return {"quarantined": made._asdict()}
    return {"clip": {**made.clip._asdict(), "span": [*made.clip.span]}, "seconds": made.seconds}


def from_json(said: dict[str, Any]) -> DecodedClip | Quarantined:
    """What `as_json` was told."""
    if "quarantined" in said:
        return Quarantined(**said["quarantined"])
    clip = ClipSamples(**said["clip"])
    clip = clip._replace(span=SignalSpan(*clip.span), checksums=tuple(clip.checksums))
    return DecodedClip(clip, said["seconds"])


class Blocks:
    """The blocks of one clip: an iterable for one use, which counts what it has given.

    `samples` and `crc32` are those of the blocks so far, `seconds` is the time it took to make
    them. `sample_rate` is known from the start.
    """

    def __init__(self, blocks: Iterable[tuple[NDArray[np.float32], int]]) -> None:
        self.samples, self.crc32, self.seconds, self.sample_rate = 0, 0, 0.0, 0
        self._blocks = iter(blocks)
        self._next = self._count_next()

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        while self._next is not None:
            yield self._next
            self._next = self._count_next()

    def _count_next(self) -> NDArray[np.float32] | None:
        started = time.perf_counter()
        block, rate = next(self._blocks, (None, 0))
        if block is not None:
            self.sample_rate = rate
            self.samples += block.size
            self.crc32 = zlib.crc32(np.ascontiguousarray(block).data.cast("B"), self.crc32)
        self.seconds += time.perf_counter() - started
        return block


def decode_clip(
    source: Source,
    transform: Transform,
    file: Path,
    cache: FileCache,
    spool: Spool,
    resampled: bool,
) -> DecodedClip | Quarantined:
    """Decode one clip in the child; what comes back is the clip, or why it cannot be used."""
    before = _version(file)
    if cache.sha256(file) != source.sha256:
        raise changed(file)
    result: DecodedClip | Quarantined
    try:
        result = _decode_blocks(source, transform, file, spool, resampled)
    except audio.AudioError as error:
        result = Quarantined(source.content, "decode", error.reason, error.message)
    if _version(file) != before:  # while it was decoded
        raise changed(file)
    return result


def _version(file: Path) -> tuple[int, ...]:
    """What distinguishes this version of a file from all others under the same name."""
    status = file.stat()
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _decode_blocks(
    source: Source, transform: Transform, file: Path, spool: Spool, resampled: bool
) -> DecodedClip | Quarantined:
    """As `decode_clip`, of a file whose content is right; an AudioError is raised."""
    blocks = Blocks(transform.decode_blocks(file, offset=source.offset, duration=source.duration))
    span: SignalSpan | Quarantined
    if resampled:
        span, sample_rate = (
            resample_clip(source.content, blocks, transform, spool),
            transform.sample_rate,
        )
    else:
        span, sample_rate = spool.put(blocks), blocks.sample_rate
    if isinstance(span, Quarantined):
        return span
    clip = ClipSamples(
        content=source.content,
        span=span,
        sample_rate=sample_rate,
        source_rate=blocks.sample_rate,
        source_samples=blocks.samples,
        checksums=(blocks.crc32, span.crc32) if resampled else (span.crc32,),
    )
    return DecodedClip(clip, blocks.seconds)


def changed(file: Path) -> ChangedAudioError:
    """The error that a file is not the one that was scanned."""
    return ChangedAudioError(
        f"{storage.name(file)}: it has changed since it was scanned; scan again"
    )


def resample_clip(
    content: str, blocks: Blocks, transform: Transform, spool: Spool
) -> SignalSpan | Quarantined:
    """Resample one clip; what comes back is where its samples are, or why it cannot be used."""
    left = iter(blocks)
    try:
        span = spool.put(transform.resample_blocks(left, source_rate=blocks.sample_rate))
    except ValueError as error:  # between rates that the method does not know how to
        for _ in left:  # it may yet be one that cannot be decoded
            pass
        return Quarantined(content, "resample", "unsupported", str(error))
    if span.samples == 0:
        message = (
            f"{blocks.samples} samples at {blocks.sample_rate} Hz leave none at "
            f"{transform.sample_rate} Hz"
        )
        return Quarantined(content, "resample", "empty", message)
    return span
