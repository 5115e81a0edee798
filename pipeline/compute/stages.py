"""The work of each stage on one shard: (parameters, clips) in, clips out. No Luigi here.

A clip that cannot be used is quarantined, with stage, reason and message; only what its content
determines may do so. A file that is missing, unreadable or changed since the scan is an error: it
says nothing about the content, and nothing is cached.

Files are hashed and decoded in a child process: a clip that kills it or takes too long, twice, is
quarantined as `crashed` or `timeout`, for this feature set alone. What a disk or a network failed
to read for a moment is read again.

A clip or a shard may be longer than memory: long samples and features are in temporary files in
`folder` (`storage.scratch`).
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from basilar.dsp.buffers import batches
from basilar.dsp.moments import moments
from basilar.dsp.resample import in_blocks
from basilar.pipeline import storage
from basilar.pipeline.audio.isolation import Lost, isolated
from basilar.pipeline.compute.clip import (
    Blocks,
    as_json,
    changed,
    decode_clip,
    from_json,
    resample_clip,
)
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
from basilar.pipeline.storage.scratch import Spool, release_pages, scratch_allocator

LOST = ("crashed", "timeout")  # reasons that the machine has a part in


class ClipFeatures(NamedTuple):
    """What is known of the features of one clip, as they are stored.

    `values_sha256` is the hash of its values. In its audio file the clip had `source_samples`
    samples at `source_rate` Hz; the CRC-32 are those of its samples after each stage.
    """

    content: str
    values_sha256: str
    source_rate: int
    source_samples: int
    decoded_crc32: int
    resampled_crc32: int


@dataclass
class Represented:
    """The features of one shard: its clips in content order.

    `moments` are float64 (clips, 4, bins); `seconds` is the time that each stage took.
    """

    clips: list[ClipFeatures]
    moments: NDArray[np.float64]
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

    With `resampled`, each block is resampled at once, and the decoded samples are not kept.
    Signals go to `spool`, or to a temporary file. `tell` hears after each clip how many are done,
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
    with _opened(spool) as signals:
        for here, some in storage.read_ahead(root, sources, lambda source: source.path):

            def work(left: Iterable[Source], here: Path = here) -> Iterator[Any]:
                real = Path(os.path.realpath(here))
                with FileCache() as cache:  # the child's: SQLite's connections are not to be forked
                    for source in left:
                        refuse_escape(here, source.path, here, follow=real)
                        file = here / source.path
                        made = retrying(
                            partial(decode_clip, source, transform, file, cache, signals, resampled)
                        )
                        yield as_json(made)

            known = (ChangedAudioError, ManifestError)
            for i, said in isolated(work, some, timeout=timeout, known=known):
                result = _lost(some[i], said, here) if isinstance(said, Lost) else from_json(said)
                if isinstance(result, Quarantined):
                    out.quarantined.append(result)
                else:
                    out.clips.append(result.clip)
                    decoding += result.seconds
                    signals.settle(result.clip.span)
                tell(len(out.clips) + len(out.quarantined), len(out.quarantined))
        out.samples = signals.mapped()
    seconds = time.perf_counter() - started
    out.seconds = {"decode": seconds}
    if resampled:
        out.seconds = {"decode": decoding, "resample": seconds - decoding}
    return out


def _opened(spool: Spool | None) -> AbstractContextManager[Spool]:
    """A spool as a context: the caller's, which stays open, or a temporary one."""
    return Spool(None) if spool is None else nullcontext(spool)


def _lost(source: Source, lost: Lost, root: Path) -> Quarantined:
    """The entry of a clip that killed its decoder, unless the file, not its content, is at fault.

    A file that shrinks or cannot be read kills the process that has mapped it. Another machine may
    come to another outcome: no other feature set takes over what was made without the clip.
    """
    message = f"{lost.message}; to try again, delete the feature set and build again"
    if lost.reason == "timeout":
        message += " with a longer --clip-timeout"
    elif retrying(partial(hash_file, root / source.path)) != source.sha256:
        raise changed(root / source.path)
    return Quarantined(source.content, "decode", lost.reason, message)


def resample(
    waveforms: Waveforms, transform: Transform, *, spool: Spool | None = None
) -> Waveforms:
    """Bring all clips to one sample rate. Signals go to `spool`, or to a temporary file."""
    started = time.perf_counter()
    out = Waveforms(quarantined=list(waveforms.quarantined))
    with _opened(spool) as signals:
        for clip, y in zip(waveforms.clips, waveforms.signals, strict=True):
            blocks = Blocks((block, clip.sample_rate) for block in in_blocks(y))
            made = resample_clip(clip.content, blocks, transform, signals)
            if isinstance(made, Quarantined):
                out.quarantined.append(made)
                continue
            checksums = (*clip.checksums, made.crc32)
            out.clips.append(
                clip._replace(span=made, sample_rate=transform.sample_rate, checksums=checksums)
            )
            signals.settle(made)
        out.samples = signals.mapped()
    out.seconds = {**waveforms.seconds, "resample": time.perf_counter() - started}
    return out


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
    for clip, y in zip(waveforms.clips, waveforms.signals, strict=True):
        if kind.n_frames(y.size):
            usable.append((clip, y))
        else:
            message = f"{y.size} samples are {kind.too_short_message} of the {kind.kind}"
            quarantined.append(Quarantined(clip.content, "representation", "empty", message))
    made = np.empty((len(usable), 4, kind.columns()))
    out = Represented([], made, quarantined, {})
    for some in batches([y for _, y in usable]):
        clips, signals = zip(*usable[some], strict=True)
        features = transform.represent(signals, empty=scratch_allocator(folder))
        release_pages(signals)
        for clip, stored in zip(clips, features, strict=True):
            with np.errstate(over="ignore", invalid="ignore"):  # looked at in the next line
                described = moments(stored, pivot=kind.pivot)
            if not np.isfinite(described).all():
                message = f"the {kind.kind} has values that {stored.dtype} cannot hold"
                quarantined.append(
                    Quarantined(clip.content, "representation", "too_loud_or_nan", message)
                )
                continue
            put(stored)
            made[len(out.clips)] = described
            decoded_crc32, resampled_crc32 = clip.checksums
            out.clips.append(
                ClipFeatures(
                    content=clip.content,
                    values_sha256=values_hash(stored),
                    source_rate=clip.source_rate,
                    source_samples=clip.source_samples,
                    decoded_crc32=decoded_crc32,
                    resampled_crc32=resampled_crc32,
                )
            )
        del features, stored  # before there are more
    out.moments = made[: len(out.clips)]
    out.seconds = {**waveforms.seconds, "representation": time.perf_counter() - started}
    return out
