"""Read audio files. Nothing else in the project opens one.

Decoder
    Chosen by the file's first bytes, never by its name: libsndfile for WAV, AIFF, AU, CAF, W64,
    NIST, FLAC, Ogg Vorbis and MP3; FFmpeg for every other format, for Opus, Ogg FLAC and Speex, and
    for what libsndfile lacks: FLAC without a sample count or of 12, 20 or 32 bits, WAV of other
    codecs or never closed (data size 0), and MP3 whose samples it cannot count.
Values
    float32. Integers are divided by 2^(bits - 1): full scale is [-1, 1). Float files and lossy
    codecs may exceed it. NaN, Inf and |x| > 2^50 (a float32 power spectrum overflows) are refused.
Start and end
    MP3: both decoders drop the delay and padding that a LAME tag states; libsndfile also drops 529
    samples after a Xing header without one. AAC: what the MP4 edit list states is dropped; raw ADTS
    keeps its priming. Opus: the pre-skip is dropped; the rate is 48 kHz whatever the header says.
Length
    Headers are checked against the file and never trusted: nothing is allocated from one. A clip
    is decoded whole or refused. A claim is ignored if it means "unknown", or if the file could not
    hold it at the codec's lowest bit rate. Not detectable: MP3 without a Xing header, AMR, AC-3,
    ADTS and ASF that were cut between two frames are valid shorter files.
Reading
    A read error of the system is an OSError, whatever the decoder made of it: it says nothing about
    the content. Damaged bytes may kill or hang a decoder: builds and scans run it in a child
    process (`audio.isolation`); deployment does not.
Stream
    The best audio stream by FFmpeg's choice. Rate and channels must not change inside it.
"""

import io
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from basilar.pipeline.audio.containers import WALKS, AudioError, Decoder, Path, Reason, identify
from basilar.pipeline.audio.decoders import FFmpeg, Reader, Samples, SoundFile, read_through

__all__ = ["VERSIONS", "AudioError", "AudioInfo", "Decoder", "Limits", "Reason", "blocks", "decode"]
__all__ += ["decode_blocks", "identity", "path_of", "probe", "sniff"]

# Of each way to decode: a decoder, and a family of codecs if it has a canary of its own. A version
# is raised when samples change, and enters the keys of those files alone.
VERSIONS: dict[str, int] = {
    "soundfile pcm": 1, "soundfile flac": 1, "soundfile mp3": 1, "soundfile vorbis": 1,
    "soundfile": 1, "ffmpeg aac": 1, "ffmpeg opus": 1, "ffmpeg": 1,
}  # fmt: skip

_MAX_ABS = 2.0**50
_BLOCK = 65536  # samples


@dataclass(frozen=True)
class Limits:
    """The most that one call decodes."""

    max_seconds: float = 12 * 3600
    max_channels: int = 64
    max_bytes: int = 16 * 2**30  # of float32, all channels

    def within(self, other: "Limits") -> "Limits":
        """The lower of each limit."""
        pairs = zip(astuple(self), astuple(other), strict=True)
        return Limits(*(min(pair) for pair in pairs))


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True)
class AudioInfo:
    """A description of a file. `n_samples` is exact for PCM and FLAC, else the header's claim."""

    format: str  # container: "wav", "flac", "mp3", "ogg", "mov", "matroska", ...
    codec: str  # FFmpeg's name without byte order: "pcm_s16", "flac", "vorbis", "mp3", "aac", ...
    decoder: Decoder
    sample_rate: int  # Hz
    channels: int
    n_samples: int  # per channel
    lossy: bool  # other decoders, or versions, may give other values

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return self.n_samples / self.sample_rate


def identity(decoder: Decoder) -> str:
    """Name and version of the decoding library as loaded, such as "libsndfile 1.2.2"."""
    if decoder == "soundfile":
        import soundfile

        return f"libsndfile {soundfile.__libsndfile_version__}"
    import av

    return "libavcodec " + ".".join(map(str, av.library_versions["libavcodec"]))


def path_of(decoder: Decoder, codec: str) -> str:
    """The way that a codec is decoded, a key of `VERSIONS`.

    >>> path_of("soundfile", "pcm_s16"), path_of("soundfile", "mp2"), path_of("ffmpeg", "wmav2")
    ('soundfile pcm', 'soundfile mp3', 'ffmpeg')
    """
    family = "pcm" if codec.startswith("pcm_") else "mp3" if codec in ("mp1", "mp2") else codec
    own = f"{decoder} {family}"
    return own if own in VERSIONS else decoder


def sniff(path: Path) -> Decoder | None:
    """The decoder for a file, by its first bytes; None if they are not those of audio.

    `probe` may still refuse the file, and uses FFmpeg for MP3 that libsndfile cannot count.
    Raises OSError only.
    """
    with io.FileIO(os.fspath(path)) as file:
        found = identify(file)
    return found.decoder if found else None


def probe(path: Path, *, limits: Limits = DEFAULT_LIMITS) -> AudioInfo:
    """Describe a file from its header, or by decoding it if the header has no sample count.

    Raises AudioError if the file is not decodable audio, is known to be cut, or exceeds `limits`
    while it is decoded; OSError if it cannot be read.
    """
    with _open(path, limits) as reader:
        n_samples = reader.claimed
        if n_samples is None:
            n_samples = sum(map(len, _excerpt(reader, 0, None, _BLOCK, limits)))
        if n_samples == 0:
            raise AudioError("empty", "it holds no samples")
        kind, rate, channels = reader.found.format, reader.rate, reader.channels
        return AudioInfo(
            kind, reader.codec, reader.decoder, rate, channels, n_samples, reader.lossy
        )


def blocks(
    path: Path, *, block_samples: int = _BLOCK, limits: Limits = DEFAULT_LIMITS
) -> Iterator[Samples]:
    """Yield a whole file as (block_samples, channels) float32, the last block shorter.

    One pass in bounded memory. Raises as `decode` does; only the end of the iteration
    proves that the file is whole.
    """
    with _open(path, limits, whole=True) as reader:
        yield from _excerpt(reader, 0, None, block_samples, limits)
        if reader.position == 0:
            raise AudioError("empty", "it holds no samples")


def decode(
    path: Path,
    *,
    channels: Literal["mean", "first"] | int = "mean",
    offset: float = 0.0,
    duration: float | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> tuple[Samples, int]:
    """Decode a file, or `duration` seconds of it from `offset`, to one channel.

    Returns the samples, (n,) float32 and contiguous, and the sample rate in Hz. An excerpt is, to
    the bit and in every codec, round(duration * rate) samples of the whole from round(offset *
    rate) on, halves to even. `channels` is a left-to-right index, "first", or "mean": the float32
    channels added one after the other, then times float32(1 / channels).

    Raises AudioError if the content cannot be used, OSError if the file cannot be read.

    >>> import tempfile, soundfile
    >>> with tempfile.NamedTemporaryFile(suffix=".wav") as file:
    ...     soundfile.write(file.name, [[0.5, 0.0], [0.25, 0.75]], 8000)
    ...     decode(file.name)
    ...     decode(file.name, channels=1, offset=1 / 8000)
    (array([0.25, 0.5 ], dtype=float32), 8000)
    (array([0.75], dtype=float32), 8000)
    """
    parts = list(
        decode_blocks(path, channels=channels, offset=offset, duration=duration, limits=limits)
    )
    return np.concatenate([block for block, _ in parts]), parts[0][1]


def decode_blocks(
    path: Path,
    *,
    channels: Literal["mean", "first"] | int = "mean",
    offset: float = 0.0,
    duration: float | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Iterator[tuple[Samples, int]]:
    """Yield the samples of `decode` in blocks, each with the sample rate, in bounded memory.

    Raises as `decode` does; only the end of the iteration proves that all of it can be used.
    """
    if not (offset >= 0 and (duration is None or duration > 0)):
        raise ValueError(f"offset {offset} s must be 0 or more, duration {duration} s above 0")
    with _open(path, limits, whole=True) as reader:
        index = 0 if channels in ("mean", "first") else int(channels)
        if not 0 <= index < reader.channels:
            message = f"channel {index} is asked for; it has {reader.channels}, counted from 0"
            raise AudioError("unsupported", message)
        start = round(offset * reader.rate)
        count = None if duration is None else round(duration * reader.rate)
        if count == 0:
            raise AudioError("empty", f"{duration} s at {reader.rate} Hz is less than one sample")
        n = 0
        for block in _excerpt(reader, start, count, _BLOCK, limits):
            mono = np.empty(len(block), np.float32)
            _mix(block, "mean" if channels == "mean" else index, out=mono)
            n += len(mono)
            yield mono, reader.rate
        if n == 0:
            where = f"the excerpt starts at sample {start}; " if start else ""
            raise AudioError("empty", f"{where}it holds {reader.position or 'no'} samples")
        if count is not None and n < count - 1:  # one sample of slack: durations get rounded
            message = f"the excerpt ends at sample {start + count}; it holds {reader.position}"
            raise AudioError("truncated", message)


def mix(y: NDArray[Any], channels: Literal["mean", "first"] | int) -> Samples:
    """Mix floats (samples,) or (samples, channels) to one channel (samples,), as `decode` does.

    A mono signal is not copied. Raises ValueError for a channel that does not exist, an array of
    another shape, and samples that `usable` refuses.

    >>> mix(np.array([[1, 3], [2, 4]], np.float32), "mean").tolist()
    [2.0, 3.0]
    """
    most = DEFAULT_LIMITS.max_channels
    if y.ndim not in (1, 2) or (y.ndim == 2 and y.shape[1] > most):
        raise ValueError(
            f"a signal of shape {y.shape} is neither (samples,) nor (samples, channels) of at most "
            f"{most} channels; of (channels, samples) pass y.T"
        )
    block = usable(y if y.ndim == 2 else y[:, None])
    index = 0 if channels in ("mean", "first") else int(channels)
    if not 0 <= index < block.shape[1]:
        raise ValueError(f"channel {index} is asked for; the signal has {block.shape[1]}")
    if channels != "mean" or block.shape[1] == 1:
        return np.ascontiguousarray(block[:, index])
    mono = np.empty(len(block), np.float32)
    _mix(block, "mean", out=mono)
    return mono


def usable(y: NDArray[Any]) -> Samples:
    """Samples as float32, if `decode` could have returned them.

    Raises ValueError for integers, whose full scale is not 1, and for NaN, Inf and |x| > 2^50.

    >>> usable(np.array([0.5, np.nan]))
    Traceback (most recent call last):
    ...
    ValueError: sample 1 is nan; samples must be numbers of at most 2^50, full scale is 1
    """
    if y.dtype.kind != "f":
        raise ValueError(
            f"samples are {y.dtype}; pass floats of full scale 1, such as (y / 32768) of int16"
        )
    block = np.asarray(y, np.float32)
    # NaN passes through max and min and fails the comparison.
    if block.size and not (block.max() <= _MAX_ABS and block.min() >= -_MAX_ABS):
        first = int(np.argmin(np.abs(block.reshape(len(block), -1)).max(axis=1) <= _MAX_ABS))
        value = float(block[first].flat[np.argmin(np.abs(block[first]) <= _MAX_ABS)])
        raise ValueError(
            f"sample {first} is {value}; samples must be numbers of at most 2^50, full scale is 1"
        )
    return block


def _mix(block: Samples, channels: Literal["mean"] | int, *, out: Samples) -> None:
    if channels != "mean" or block.shape[1] == 1:
        out[:] = block[:, 0 if channels == "mean" else channels]
        return
    np.add(block[:, 0], block[:, 1], out=out)
    for channel in range(2, block.shape[1]):
        out += block[:, channel]
    out *= np.float32(1 / block.shape[1])


@contextmanager
def _open(path: Path, limits: Limits, *, whole: bool = False) -> Iterator[Reader]:
    """Recognise a file and open its decoder; with `whole`, also walk its frames or pages."""
    with io.FileIO(os.fspath(path)) as file:
        reader: Reader | None = None
        try:
            found = identify(file)
            if found is None:
                raise AudioError("not_audio", "no audio format is recognised in its first bytes")
            if found.problem:
                raise found.problem
            flac = found.format == "flac"  # the only walk that is short enough for probe
            if found.format in WALKS and (whole or flac):
                if whole:  # a read error in mapped memory would kill the process
                    read_through(file)
                data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
                WALKS[found.format](data, found.start)
                if whole and flac and data.find(b"fLaC\0\0\0\x22", found.start + 4) >= 0:
                    raise AudioError("corrupt", "a second FLAC file follows inside it: split them")
            reader = (SoundFile if found.decoder == "soundfile" else FFmpeg)(file, found)
            if isinstance(reader, SoundFile) and reader.uncounted:
                reader = FFmpeg(file, found)
            if reader.channels > limits.max_channels:
                message = f"{reader.channels} channels; the limit is {limits.max_channels}"
                raise AudioError("unsupported", message)
            yield reader
        except AudioError as error:
            error.path = path
            raise
        except OSError as error:
            if error.filename is not None or error.errno is None:
                raise
            raise OSError(error.errno, error.strerror, os.fspath(path)) from error
        finally:
            if reader:
                reader.close()


def _excerpt(
    reader: Reader, start: int, count: int | None, block_samples: int, limits: Limits
) -> Iterator[Samples]:
    """Yield the samples [start, start + count) in blocks, within limits and free of NaN."""
    most = min(limits.max_seconds * reader.rate, limits.max_bytes / 4 / reader.channels)
    stop = None if count is None else start + count
    reader.skip_to(start)
    while stop is None or reader.position < stop:
        begin = reader.position
        block = reader.read(block_samples if stop is None else min(block_samples, stop - begin))
        if not len(block):
            reader.check_end()
            return
        # NaN passes through max and min and fails the comparison. Integers need no check.
        if reader.floats and not (block.max() <= _MAX_ABS and block.min() >= -_MAX_ABS):
            raise AudioError("too_loud_or_nan", f"NaN, Inf or |x| > 2^50 after sample {begin}")
        if reader.position - start > most:
            message = f"longer than {most:.0f} samples: take excerpts or raise the limits"
            raise AudioError("too_long", message)
        if reader.position > start:
            yield block[max(0, start - begin) :]
