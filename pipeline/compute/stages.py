"""The work of each stage on one shard: (parameters, clips) in, clips out. No Luigi here.

A clip that cannot be used is quarantined, with stage, reason and message; only what its content
determines may do so. A file that is missing, unreadable or changed since the scan is an error: it
says nothing about the content, and nothing is cached.

Files are hashed and decoded in a child process: a clip that kills it or takes too long, twice, is
quarantined as `crashed` or `timeout`, for this feature set alone. What a disk or a network failed
to read for a moment is read again.

A clip or a shard may be longer than memory: samples and features lie in nameless files in `folder`
(`storage.scratch`) wherever they are long.
"""

import os
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from basilar.dsp.buffers import batches
from basilar.dsp.moments import moments
from basilar.dsp.resample import in_blocks
from basilar.pipeline import audio, storage
from basilar.pipeline.audio.isolation import Lost, isolated
from basilar.pipeline.compute.quarantine import Quarantined
from basilar.pipeline.compute.transform import Transform
from basilar.pipeline.compute.waveforms import Waveforms
from basilar.pipeline.defaults import CLIP_TIMEOUT
from basilar.pipeline.errors import ChangedAudioError, ManifestError
from basilar.pipeline.hashing import values_hash
from basilar.pipeline.manifests.file_cache import FileCache, hash_file
from basilar.pipeline.manifests.manifest import refuse_escape
from basilar.pipeline.manifests.source import Source
from basilar.pipeline.storage.retry import retrying
from basilar.pipeline.storage.scratch import SignalSpan, Spool, release_pages, scratch_allocator

LOST = ("crashed", "timeout")  # reasons that the machine has a part in


@dataclass
class Represented:
    """What is known of the features of one shard, in content order, as they are stored.

    `moments` are float64 (clips, 4, bins); `values` the SHA-256 of each clip's values; `sources`
    the (sample rate in Hz, samples) that each had in its file, `checksums` the CRC-32 of its
    samples when they were decoded and when they were resampled.
    """

    contents: list[str]
    moments: NDArray[np.float64]
    values: list[str]
    sources: list[tuple[int, int]]
    checksums: list[tuple[int, ...]]
    quarantined: list[Quarantined]
    seconds: dict[str, float]


def decode(
    sources: Sequence[Source],
    transform: Transform,
    *,
    root: Path,
    spool: Spool | None = None,
    timeout: float = CLIP_TIMEOUT,
    tell: Callable[[int, int], None] = lambda done, quarantined: None,
    resampled: bool = False,
) -> Waveforms:
    """Decode clips below `root` to one channel at their own rate, each within `timeout` seconds.

    With `resampled`, what `resample` makes of them, block by block: what is decoded lies nowhere.
    Signals go to `spool`, or to a nameless file. `tell` hears after each clip how many are done,
    and how many of them are quarantined. Raises OSError for a file that cannot be read,
    ChangedAudioError for one whose content changed.
    """
    if not storage.is_remote(root) and not root.is_dir():
        raise FileNotFoundError(
            f"{root}: the audio root is not there; mount it, or name where the audio is now with "
            "--audio-root"
        )
    started, decoding = time.perf_counter(), 0.0
    out = Waveforms()
    places = []
    with _opened(spool) as signals:
        for here, some in storage.read_ahead(root, sources, lambda source: source.path):

            def work(left: Iterable[Source], here: Path = here) -> Iterator[Any]:
                real = Path(os.path.realpath(here))
                with FileCache() as cache:  # the child's: SQLite's connections are not to be forked
                    for source in left:
                        refuse_escape(here, source.path, here, follow=real)
                        file = here / source.path
                        yield retrying(
                            partial(_decode, source, transform, file, cache, signals, resampled)
                        )

            known = (ChangedAudioError, ManifestError)
            for i, result in isolated(work, some, timeout=timeout, known=known):
                source = some[i]
                if isinstance(result, Lost):
                    out.quarantined.append(_lost(source, result, here))
                elif "reason" in result:
                    out.quarantined.append(Quarantined(source.content, **result))
                else:
                    place = SignalSpan(*result["place"])
                    places.append(place)
                    out.contents.append(source.content)
                    out.sample_rates.append(result["sample_rate"])
                    out.sources.append((result["source_rate"], result["n_samples"]))
                    out.checksums.append(tuple(result["checksums"]))
                    decoding += result["seconds"]
                    signals.settle(place)
                tell(len(places) + len(out.quarantined), len(out.quarantined))
        out.lie_at(places, signals)
    seconds = time.perf_counter() - started
    out.seconds = {"decode": seconds}
    if resampled:
        out.seconds = {"decode": decoding, "resample": seconds - decoding}
    return out


def _opened(spool: Spool | None) -> AbstractContextManager[Spool]:
    """A spool as a context: the caller's, which stays open, or a nameless one."""
    return Spool(None) if spool is None else nullcontext(spool)


class _Decoded:
    """The blocks of one clip as they come, and what they were: rate, samples, CRC-32, seconds."""

    def __init__(self, blocks: Iterable[tuple[NDArray[np.float32], int]]) -> None:
        self.samples, self.crc32, self.seconds = 0, 0, -time.perf_counter()
        following = iter(blocks)
        self._block, self.sample_rate = next(following)
        self._following = (block for block, _ in following)

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        block: NDArray[np.float32] | None = self._block
        while block is not None:
            self.samples += block.size
            self.crc32 = zlib.crc32(np.ascontiguousarray(block).data.cast("B"), self.crc32)
            self.seconds += time.perf_counter()
            yield block
            self.seconds -= time.perf_counter()
            block = next(self._following, None)
        self.seconds += time.perf_counter()


def _decode(
    source: Source,
    transform: Transform,
    file: Path,
    cache: FileCache,
    spool: Spool,
    resampled: bool,
) -> dict[str, Any]:
    """Decode one clip in the child: where its samples are, or why it cannot be used."""
    before = _version(file)
    if cache.sha256(file) != source.sha256:
        raise _changed(file)
    try:
        result = _decode_blocks(source, transform, file, spool, resampled)
    except audio.AudioError as error:
        result = {"stage": "decode", "reason": error.reason, "message": error.message}
    if _version(file) != before:  # while it was decoded
        raise _changed(file)
    return result


def _version(file: Path) -> tuple[int, ...]:
    """What tells this version of a file from others that are ever under its name."""
    status = file.stat()
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _decode_blocks(
    source: Source, transform: Transform, file: Path, spool: Spool, resampled: bool
) -> dict[str, Any]:
    """As `_decode`, of a file whose content is right. Raises AudioError if it cannot be decoded."""
    blocks = transform.decode_blocks(file, offset=source.offset, duration=source.duration)
    decoded = _Decoded(blocks)
    if resampled:
        made, sample_rate = _resample(decoded, transform, spool), transform.sample_rate
    else:
        made, sample_rate = spool.put(decoded), decoded.sample_rate
    if isinstance(made, dict):
        return made
    checksums = [decoded.crc32, made.crc32] if resampled else [made.crc32]
    return {
        "place": made,
        "sample_rate": sample_rate,
        "source_rate": decoded.sample_rate,
        "n_samples": decoded.samples,
        "checksums": checksums,
        "seconds": decoded.seconds,
    }


def _lost(source: Source, lost: Lost, root: Path) -> Quarantined:
    """The entry of a clip that killed its decoder, unless the file, not its content, is at fault.

    A file that shrinks or cannot be read kills the process that has mapped it. Another machine may
    come to another outcome: no other feature set takes over what was made without the clip.
    """
    message = f"{lost.message}; to try again, delete the feature set and build again"
    if lost.reason == "timeout":
        message += " with a longer --clip-timeout"
    elif retrying(partial(hash_file, root / source.path)) != source.sha256:
        raise _changed(root / source.path)
    return Quarantined(source.content, "decode", lost.reason, message)


def _changed(file: Path) -> ChangedAudioError:
    return ChangedAudioError(
        f"{storage.name(file)}: it has changed since it was scanned; scan again"
    )


def resample(
    waveforms: Waveforms, transform: Transform, *, spool: Spool | None = None
) -> Waveforms:
    """Bring all clips to one sample rate. Signals go to `spool`, or to a nameless file."""
    started = time.perf_counter()
    out = Waveforms(quarantined=list(waveforms.quarantined))
    places = []
    with _opened(spool) as signals:
        for content, y, rate, source, checksums in zip(
            waveforms.contents,
            waveforms.signals,
            waveforms.sample_rates,
            waveforms.sources,
            waveforms.checksums,
            strict=True,
        ):
            made = _resample(_Decoded((block, rate) for block in in_blocks(y)), transform, signals)
            if isinstance(made, dict):
                out.quarantined.append(Quarantined(content, **made))
                continue
            places.append(made)
            out.contents.append(content)
            out.sample_rates.append(transform.sample_rate)
            out.sources.append(source)
            out.checksums.append((*checksums, made.crc32))
            signals.settle(made)
        out.lie_at(places, signals)
    out.seconds = {**waveforms.seconds, "resample": time.perf_counter() - started}
    return out


def _resample(decoded: _Decoded, transform: Transform, spool: Spool) -> SignalSpan | dict[str, Any]:
    """Resample one clip: where its samples are, or why it cannot be used."""
    blocks = iter(decoded)
    try:
        place = spool.put(transform.resample_blocks(blocks, source_rate=decoded.sample_rate))
    except ValueError as error:  # between rates that the method does not know how to
        for _ in blocks:  # it may yet be one that cannot be decoded
            pass
        return {"stage": "resample", "reason": "unsupported", "message": str(error)}
    if place.samples == 0:
        left = f"{decoded.samples} samples at {decoded.sample_rate} Hz leave none at"
        message = f"{left} {transform.sample_rate} Hz"
        return {"stage": "resample", "reason": "empty", "message": message}
    return place


def represent(
    waveforms: Waveforms,
    transform: Transform,
    put: Callable[[NDArray[Any]], None] = lambda features: None,
    *,
    folder: Path | None = None,
) -> Represented:
    """Compute the representation of all clips, cast to the stored dtype, with its moments.

    `put` gets the features of each clip, (frames, bins), which may be gone when it returns.
    """
    started = time.perf_counter()
    kind = transform.recipe.representation
    quarantined = list(waveforms.quarantined)
    usable = []
    for i, (content, y) in enumerate(zip(waveforms.contents, waveforms.signals, strict=True)):
        if kind.n_frames(y.size):
            usable.append(i)
        else:
            message = f"{y.size} samples are {kind.too_short_message} of the {kind.kind}"
            quarantined.append(Quarantined(content, "representation", "empty", message))
    made = np.empty((len(usable), 4, kind.columns()))
    out = Represented([], made, [], [], [], quarantined, {})
    for some in batches([waveforms.signals[i] for i in usable]):
        signals = [waveforms.signals[i] for i in usable[some]]
        features = transform.represent(signals, empty=scratch_allocator(folder))
        release_pages(signals)
        for i, stored in zip(usable[some], features, strict=True):
            with np.errstate(over="ignore", invalid="ignore"):  # looked at in the next line
                described = moments(stored, pivot=kind.pivot)
            if not np.isfinite(described).all():
                message = f"the {kind.kind} has values that {stored.dtype} cannot hold"
                quarantined.append(
                    Quarantined(waveforms.contents[i], "representation", "too_loud_or_nan", message)
                )
                continue
            put(stored)
            made[len(out.contents)] = described
            out.contents.append(waveforms.contents[i])
            out.values.append(values_hash(stored))
            out.sources.append(waveforms.sources[i])
            out.checksums.append(waveforms.checksums[i])
        del features, stored  # before there are more
    out.moments = made[: len(out.contents)]
    out.seconds = {**waveforms.seconds, "representation": time.perf_counter() - started}
    return out
