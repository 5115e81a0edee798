"""The work of each stage on one shard: (parameters, clips) in, clips out. No Luigi here.

A clip that cannot be used is quarantined, with stage, reason and message; only what its content
determines may do so. A file that is missing, unreadable or changed since the scan is an error: it
says nothing about the content, and nothing is cached.

Files are hashed and decoded in a child process: a clip that kills it or takes too long, twice, is
quarantined as `crashed` or `timeout`. What a disk or a network failed to read for a moment is read
again.

A clip or a shard may be longer than memory: samples and features lie in nameless files in `folder`
(`pipeline.scratch`) wherever they are long.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsp.moments import moments
from pipeline import audio, storage
from pipeline.artifacts import Quarantined, Waveforms
from pipeline.isolation import CLIP_TIMEOUT, Lost, isolated
from pipeline.keys import values_hash
from pipeline.manifest import ManifestError, refuse_escape
from pipeline.retry import retrying
from pipeline.scan import FileCache, hash_file
from pipeline.scratch import Place, Spool, room
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


def decode(
    sources: Sequence[Source],
    transform: Transform,
    *,
    root: Path,
    folder: Path | None = None,
    timeout: float = CLIP_TIMEOUT,
    tell: Callable[[int, int], None] = lambda done, quarantined: None,
) -> Waveforms:
    """Decode clips below `root` to one channel at their own rate, each within `timeout` seconds.

    `tell` hears after each clip how many are done, and how many of them are quarantined.
    Raises OSError for a file that cannot be read, ChangedAudioError for one whose content changed.
    """
    if not storage.is_remote(root) and not root.is_dir():
        raise FileNotFoundError(
            f"{root}: the audio root is not there; mount it, or name where the audio is now with "
            "--audio-root"
        )
    started = time.perf_counter()
    out = Waveforms()
    places = []
    with Spool(folder) as spool:
        for here, some in storage.read_ahead(root, sources, lambda source: source.path):

            def work(left: Iterable[Source], here: Path = here) -> Iterator[Any]:
                with FileCache() as cache:  # the child's: SQLite's connections are not to be forked
                    for source in left:
                        yield retrying(partial(_decode, source, transform, here, cache, spool))

            known = (ChangedAudioError, ManifestError)
            for i, result in isolated(work, some, timeout=timeout, known=known):
                source = some[i]
                if isinstance(result, Lost):
                    out.quarantined.append(_lost(source, result, here))
                elif "reason" in result:
                    reason, message = result["reason"], result["message"]
                    out.quarantined.append(Quarantined(source.content, "decode", reason, message))
                else:
                    rate, place = result["sample_rate"], Place(*result["place"])
                    places.append(place)
                    out.contents.append(source.content)
                    out.sample_rates.append(rate)
                    out.sources.append((rate, place.samples))
                    out.checksums.append((place.crc32,))
                tell(len(places) + len(out.quarantined), len(out.quarantined))
        out.signals = spool.signals(places)
    out.seconds = {"decode": time.perf_counter() - started}
    return out


def _decode(
    source: Source, transform: Transform, root: Path, cache: FileCache, spool: Spool
) -> dict[str, Any]:
    """Decode one clip in the child: where its samples are, or why it cannot be used."""
    refuse_escape(root, source.path, root, follow=True)
    file = root / source.path
    if cache.sha256(file) != source.sha256:
        raise _changed(file)
    sample_rate = 0

    def decoded() -> Iterator[NDArray[np.float32]]:
        nonlocal sample_rate
        blocks = transform.decode_blocks(file, offset=source.offset, duration=source.duration)
        for block, rate in blocks:
            sample_rate = rate
            yield block

    try:
        place = spool.put(decoded())
    except audio.AudioError as error:
        return {"reason": error.reason, "message": error.message}
    return {"sample_rate": sample_rate, "place": place}


def _lost(source: Source, lost: Lost, root: Path) -> Quarantined:
    """The entry of a clip that killed its decoder, unless the file, not its content, is at fault.

    A file that shrinks or cannot be read kills the process that has mapped it. The entry is kept
    like every other outcome, though another machine may come to another one.
    """
    message = f"{lost.message}; to try again, delete the feature set, run basilar gc --delete and "
    if lost.reason == "timeout":
        message += "build with a longer --clip-timeout"
    elif retrying(partial(hash_file, root / source.path)) != source.sha256:
        raise _changed(root / source.path)
    else:
        message += "build again"
    return Quarantined(source.content, "decode", lost.reason, message)


def _changed(file: Path) -> ChangedAudioError:
    return ChangedAudioError(
        f"{storage.name(file)}: it has changed since it was scanned; scan again"
    )


def resample(
    waveforms: Waveforms, transform: Transform, *, folder: Path | None = None
) -> Waveforms:
    """Bring all clips to one sample rate."""
    started = time.perf_counter()
    out = Waveforms(quarantined=list(waveforms.quarantined))
    places = []
    with Spool(folder) as spool:
        for content, y, rate, source, checksums in zip(
            waveforms.contents,
            waveforms.signals,
            waveforms.sample_rates,
            waveforms.sources,
            waveforms.checksums,
            strict=True,
        ):
            try:
                place = spool.put(transform.resample_blocks(y, source_rate=rate))
            except ValueError as error:  # between rates that the method does not know how to
                out.quarantined.append(Quarantined(content, "resample", "unsupported", str(error)))
                continue
            if place.samples == 0:
                message = f"{y.size} samples at {rate} Hz leave none at {transform.sample_rate} Hz"
                out.quarantined.append(Quarantined(content, "resample", "empty", message))
                continue
            places.append(place)
            out.contents.append(content)
            out.sample_rates.append(transform.sample_rate)
            out.sources.append(source)
            out.checksums.append((*checksums, place.crc32))
        out.signals = spool.signals(places)
    out.seconds = {**waveforms.seconds, "resample": time.perf_counter() - started}
    return out


def represent(
    waveforms: Waveforms, transform: Transform, *, folder: Path | None = None
) -> Represented:
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
    features = transform.represent([waveforms.signals[i] for i in usable], empty=room(folder))
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
