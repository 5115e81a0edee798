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
    Headers are compared with the file and never believed: nothing is allocated from one. A clip
    comes whole or not at all. A claim is ignored if it means "unknown", or if the file could not
    hold it at the codec's lowest bit rate. Not detectable: MP3 without a Xing header, AMR, AC-3,
    ADTS and ASF that were cut between two frames are valid shorter files.
Stream
    The best audio stream by FFmpeg's choice. Rate and channels must not change inside it.
"""

import functools
import io
import mmap
import os
import re
import zlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Path: TypeAlias = str | bytes | os.PathLike[str] | os.PathLike[bytes]
Samples: TypeAlias = NDArray[np.float32]
VERSION = 1  # of the decode stage; raised when its samples change

Decoder = Literal["soundfile", "ffmpeg"]
Reason = Literal[
    "not_audio", "truncated", "empty", "corrupt", "unsupported",
    "too_long", "too_loud_or_nan", "rate_changes", "timeout", "crashed",
]  # fmt: skip

_MAX_ABS = 2.0**50
_BLOCK = 65536  # samples
_FFMPEG_MAGIC = (  # offset, bytes, FFmpeg's demuxer
    (4, b"ftyp", "mov"), (4, b"moov", "mov"), (4, b"mdat", "mov"), (0, b"#!AMR", "amr"),
    (0, b"\x1aE\xdf\xa3", "matroska"), (0, b"0&\xb2u\x8ef\xcf\x11", "asf"), (0, b"MAC ", "ape"),
    (0, b"wvpk", "wv"), (0, b"TTA1", "tta"), (0, b"tBaK", "tak"), (0, b"MPCK", "mpc8"),
    (0, b"MP+", "mpc"), (0, b"DSD ", "dsf"), (0, b"FRM8", "iff"), (0, b"ADIF", "aac"),
)  # fmt: skip
_NO_LENGTH = {"aac", "ac3", "eac3", "amr", "mp3", "flac"}  # FFmpeg guesses theirs from the bit rate
_WAV_BITS = {1: (8, 16, 24, 32), 3: (32, 64)}  # what libsndfile reads of integers and of floats
_WAV_TAGS = {2, 6, 7, 0x11, 0x31, 0x55}  # and of the rest: ADPCM, A-law, mu-law, ADPCM, GSM, MP3
_CODECS = {  # libsndfile's names in FFmpeg's words, without the byte order
    "FLOAT": "pcm_f32", "DOUBLE": "pcm_f64", "ULAW": "pcm_mulaw", "ALAW": "pcm_alaw",
    "PCM_S8": "pcm_s8", "PCM_U8": "pcm_u8", "PCM_16": "pcm_s16", "PCM_24": "pcm_s24",
    "PCM_32": "pcm_s32", "MPEG_LAYER_I": "mp1", "MPEG_LAYER_II": "mp2", "MPEG_LAYER_III": "mp3",
    "GSM610": "gsm_ms", "MS_ADPCM": "adpcm_ms", "IMA_ADPCM": "adpcm_ima_wav",
}  # fmt: skip
_LOSSLESS = {"flac", "alac", "wavpack", "tta", "ape", "tak", "mp4als", "truehd", "mlp"}
_MPEG_SYNC, _FLAC_SYNC = re.compile(rb"\xff[\xe2-\xff]"), re.compile(rb"\xff[\xf8\xf9]")
_LOW_RATES = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_MPEG_KBPS = {  # (MPEG-1 or not, layer): bit rates of the indices from 1
    (True, 1): range(32, 449, 32),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): _LOW_RATES,
    (False, 3): _LOW_RATES,
}
_MIRROR = bytes(int(f"{i:08b}"[::-1], 2) for i in range(256))  # the bits of a byte, reversed


class AudioError(Exception):
    """A file whose content cannot be used: why, in a word of `Reason` and in a sentence.

    `str` names the file as well; `message` does not. Pickles, to come back from workers.
    """

    def __init__(self, reason: Reason, message: str, path: Path = "") -> None:
        super().__init__(reason, message)
        self.reason: Reason = reason
        self.message = message
        self.path = path

    def __reduce__(self) -> tuple[type["AudioError"], tuple[Reason, str, Path]]:
        return AudioError, (self.reason, self.message, self.path)

    def __str__(self) -> str:
        return f"{os.fsdecode(self.path)!r}: {self.message}" if self.path else self.message


@dataclass(frozen=True)
class Limits:
    """The most that one call decodes and hands out."""

    max_seconds: float = 12 * 3600
    max_channels: int = 64
    max_bytes: int = 16 * 2**30  # of float32, all channels


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True)
class AudioInfo:
    """What a file holds. `n_samples` is exact for PCM and FLAC, else what the header says."""

    format: str  # container: "wav", "flac", "mp3", "ogg", "mov", "matroska", ...
    codec: str  # FFmpeg's word without byte order: "pcm_s16", "flac", "vorbis", "mp3", "aac", ...
    decoder: Decoder
    sample_rate: int  # Hz
    channels: int
    n_samples: int  # per channel
    lossy: bool  # another decoder, or version of it, may give other values

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


def sniff(path: Path) -> Decoder | None:
    """The decoder for a file by its first bytes, or None where they are not those of audio.

    `probe` may still refuse the file, and takes FFmpeg for MP3 that libsndfile cannot count.
    Raises OSError only.
    """
    with io.FileIO(os.fspath(path)) as file:
        found = _identify(file)
    return found.decoder if found else None


def probe(path: Path, *, limits: Limits = DEFAULT_LIMITS) -> AudioInfo:
    """Describe a file by its header, or by decoding it within `limits` where that does not count.

    Raises AudioError: not decodable audio, or known to be cut. Raises OSError: not readable.
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

    One pass in bounded memory. Raises as `decode` does; only the end proves that the file is whole.
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

    Raises AudioError: the content cannot be used. Raises OSError: the file cannot be read.

    >>> import tempfile, soundfile
    >>> with tempfile.NamedTemporaryFile(suffix=".wav") as file:
    ...     soundfile.write(file.name, [[0.5, 0.0], [0.25, 0.75]], 8000)
    ...     decode(file.name)
    ...     decode(file.name, channels=1, offset=1 / 8000)
    (array([0.25, 0.5 ], dtype=float32), 8000)
    (array([0.75], dtype=float32), 8000)
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
        mono, n = np.empty(0, np.float32), 0
        for block in _excerpt(reader, start, count, _BLOCK, limits):
            if n + len(block) > len(mono):  # twice the room: less copying than joining blocks
                grown = np.empty(n + max(n, len(block)), np.float32)
                grown[:n] = mono[:n]
                mono = grown
            view = mono[n : n + len(block)]
            if channels == "mean" and reader.channels > 1:
                np.add(block[:, 0], block[:, 1], out=view)
                for channel in range(2, reader.channels):
                    view += block[:, channel]
                view *= np.float32(1 / reader.channels)
            else:
                view[:] = block[:, index]
            n += len(block)
        if n == 0:
            where = f"the excerpt starts at sample {start}; " if start else ""
            raise AudioError("empty", f"{where}it holds {reader.position or 'no'} samples")
        if count is not None and n < count - 1:  # one sample of slack: durations get rounded
            message = f"the excerpt ends at sample {start + count}; it holds {reader.position}"
            raise AudioError("truncated", message)
        return mono[:n], reader.rate


@contextmanager
def _open(path: Path, limits: Limits, *, whole: bool = False) -> Iterator["_Reader"]:
    """Recognise a file and open its decoder; if the `whole` counts, walk its frames or pages."""
    with io.FileIO(os.fspath(path)) as file:
        reader: _Reader | None = None
        try:
            found = _identify(file)
            if found is None:
                raise AudioError("not_audio", "no audio format is recognised in its first bytes")
            if found.problem:
                raise found.problem
            flac = found.format == "flac"  # the one walk that is short enough for probe
            if found.format in _WALKS and (whole or flac):
                data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
                _WALKS[found.format](data, found.start)
                if whole and flac and data.find(b"fLaC\0\0\0\x22", found.start + 4) >= 0:
                    raise AudioError("corrupt", "a second FLAC file follows inside it: split them")
            reader = (_SoundFile if found.decoder == "soundfile" else _FFmpeg)(file, found)
            if isinstance(reader, _SoundFile) and reader.uncounted:
                reader = _FFmpeg(file, found)
            if reader.channels > limits.max_channels:
                message = f"{reader.channels} channels; the limit is {limits.max_channels}"
                raise AudioError("unsupported", message)
            yield reader
        except AudioError as error:
            error.path = path
            raise
        finally:
            if reader:
                reader.close()


def _excerpt(
    reader: "_Reader", start: int, count: int | None, block_samples: int, limits: Limits
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
        # NaN passes through max and min and fails the comparison. Integers need none.
        if reader.floats and not (block.max() <= _MAX_ABS and block.min() >= -_MAX_ABS):
            raise AudioError("too_loud_or_nan", f"NaN, Inf or |x| > 2^50 after sample {begin}")
        if reader.position - start > most:
            message = f"longer than {most:.0f} samples: take excerpts or raise the limits"
            raise AudioError("too_long", message)
        if reader.position > start:
            yield block[max(0, start - begin) :]


class _SoundFile:
    """libsndfile on an open file."""

    decoder: Decoder = "soundfile"

    def __init__(self, file: io.FileIO, found: "_Found") -> None:
        import soundfile

        self.found, self.position, self._failure = found, 0, soundfile.SoundFileError
        size = os.fstat(file.fileno()).st_size
        counted = found.format == "mp3" and _xing(_read_at(file, found.start, 64), 0, size)
        file.seek(0)  # from here on the file's position is libsndfile's
        try:
            self._file = soundfile.SoundFile(file.fileno(), closefd=False)
        except soundfile.LibsndfileError as error:
            reason: Reason = "unsupported" if error.code in (4, 18) else "corrupt"
            raise AudioError(reason, self._explain(error)) from error
        self.rate: int = self._file.samplerate
        self.channels: int = self._file.channels
        self._frames: int = self._file.frames
        subtype = "FLAC" if found.format == "flac" else self._file.subtype
        self.codec = _CODECS.get(subtype, subtype.lower().split("_")[0])
        self.lossy = not (self.codec.startswith("pcm_") or self.codec in _LOSSLESS)
        self.floats = self.lossy or self.codec.startswith("pcm_f")
        # Without a Xing header libsndfile guesses from the file's size.
        self._guess = self.codec in ("mp1", "mp2", "mp3")
        self.claimed = None if self._guess and not counted else self._frames
        self.uncounted = found.format == "mp3" and self._frames in (0, 2**63 - 1)
        self.close = self._file.close

    @staticmethod
    def _explain(error: Any) -> str:
        # libsndfile's error 7 says that the file does not exist, and means that mpg123 gave up.
        return "its MPEG audio cannot be decoded" if error.code == 7 else str(error.error_string)

    @contextmanager
    def _going_on(self) -> Iterator[None]:
        try:
            yield
        except self._failure as error:
            where = f"libsndfile cannot go on after sample {self.position}"
            raise AudioError("corrupt", f"{where}: {self._explain(error)}") from error

    def skip_to(self, start: int) -> None:
        # Exact only where each sample has its place, and in FLAC. Others decode from the beginning.
        if start and not self.lossy:
            with self._going_on():
                self.position = self._file.seek(min(start, self._frames))

    def read(self, count: int) -> Samples:
        with self._going_on():
            block: Samples = self._file.read(count, dtype="float32", always_2d=True)
        self.position += len(block)
        return block

    def check_end(self) -> None:
        if self.position < self._frames and not self._guess:
            there = f"the header says {self._frames} samples, there are {self.position}"
            raise AudioError("truncated", f"cut short: {there}")


class _Nameless(io.FileIO):
    """An open file for FFmpeg: no name to take hints or protocols from, and no seek that raises."""

    def seek(self, offset: int, whence: int = 0) -> int:
        try:
            return super().seek(offset, whence)
        except OSError:  # a place that damaged bytes led to: theirs, not the file system's fault
            return -1


class _FFmpeg:
    """FFmpeg on an open file."""

    decoder: Decoder = "ffmpeg"
    floats = True

    def __init__(self, file: io.FileIO, found: "_Found") -> None:
        self.found, self.position, self._decoded = found, 0, 0
        self.rate, self.channels, self.codec, self.lossy = 0, 0, "", True
        self.claimed: int | None = None
        file.seek(0)
        self._frames = self._decode(file)
        self.close = self._frames.close
        self._rest = next(self._frames, np.empty((0, 0), np.float32))
        if not len(self._rest):
            raise AudioError("empty", "it holds no samples")

    def _decode(self, file: io.FileIO) -> Generator[Samples, None, None]:
        import av

        form: tuple[int, int] | None = None
        resampler: Any = None
        container: Any
        nameless = _Nameless(file.fileno(), closefd=False)
        try:
            with av.open(nameless, format=self.found.format, metadata_errors="ignore") as container:
                stream = self._choose(container)
                for packet in container.demux(stream):
                    # A WAV without a length may end inside a packet.
                    if packet.is_corrupt and self.found.format != "wav":
                        raise AudioError("truncated", f"cut short after sample {self._decoded}")
                    for frame in packet.decode():
                        if resampler is None:
                            form = (frame.sample_rate, frame.layout.nb_channels)
                            self._describe(stream, container, frame)
                            # Packed, because to_ndarray crashes on eight planes.
                            resampler = av.AudioResampler("flt", frame.layout, frame.sample_rate)
                        if (frame.sample_rate, frame.layout.nb_channels) != form:
                            message = f"rate or channels change at sample {self._decoded}"
                            raise AudioError("rate_changes", message)
                        self._check_frame(frame)
                        for packed in resampler.resample(frame):
                            size = packed.samples * self.channels
                            flat = np.frombuffer(packed.planes[0], np.float32, size)
                            yield flat.reshape(-1, self.channels)
        except av.FFmpegError as error:
            unknown = isinstance(error, av.error.PatchWelcomeError)
            reason: Reason = "unsupported" if unknown else "corrupt"
            message = f"FFmpeg cannot go on after sample {self._decoded}: {error.strerror}"
            raise AudioError(reason, message) from error

    @staticmethod
    def _choose(container: Any) -> Any:
        stream = container.streams.best("audio")
        if stream is None or stream.codec_context is None:
            reason: Reason = "unsupported" if container.streams.audio else "not_audio"
            raise AudioError(reason, "it has no audio stream that FFmpeg decodes")
        stream.codec_context.thread_count = 1  # the caller has its own processes
        return stream

    def _describe(self, stream: Any, container: Any, frame: Any) -> None:
        self.rate, self.channels = frame.sample_rate, frame.layout.nb_channels
        name = stream.codec_context.codec.canonical_name
        self.codec = re.sub("^(pcm_.*)[lb]e$", r"\1", name)
        # WavPack may hold floats or DSD, which FFmpeg filters.
        exact = self.codec in _LOSSLESS and not frame.format.name.startswith("f")
        self.lossy = not (exact or self.codec.startswith("pcm_"))
        seconds = float((stream.duration or 0) * stream.time_base)
        seconds = seconds or (container.duration or 0) / 1e6
        if self.found.format not in _NO_LENGTH and 0 < seconds < 1e6:
            self.claimed = round(seconds * self.rate)

    def _check_frame(self, frame: Any) -> None:
        # Raw FLAC frames carry their place: FFmpeg drops a damaged one without a word.
        place = (frame.pts or 0) * frame.time_base * self.rate
        if frame.is_corrupt or (self.found.format == "flac" and place != self._decoded):
            raise AudioError("corrupt", f"damaged near sample {self._decoded}")
        self._decoded += frame.samples

    def skip_to(self, start: int) -> None:
        """Seek nowhere: FFmpeg's seeks are not exact, so what precedes `start` is decoded."""

    def read(self, count: int) -> Samples:
        parts, have = [self._rest], len(self._rest)
        while have < count and (part := next(self._frames, None)) is not None:
            parts.append(part)
            have += len(part)
        joined = np.concatenate(parts)
        block, self._rest = joined[:count], joined[count:]
        self.position += len(block)
        return block

    def check_end(self) -> None:
        # Headers round to packets or milliseconds and count priming or not; ASF's mean little.
        said = self.claimed if self.found.format != "asf" else None
        if said and self.position < said - 4096:
            message = f"cut short: the header says {said} samples, there are {self.position}"
            raise AudioError("truncated", message)


_Reader: TypeAlias = _SoundFile | _FFmpeg


# Recognising a format: what decides on the decoder, and what betrays a cut file in its header.


@dataclass(frozen=True)
class _Found:
    format: str  # for FFmpeg also the name of its demuxer
    decoder: Decoder
    start: int = 0  # its first byte, behind ID3 tags
    problem: AudioError | None = None


def _identify(file: io.FileIO) -> _Found | None:
    size = os.fstat(file.fileno()).st_size
    start, head = 0, _read_at(file, 0, 4096)
    while head[:3] == b"ID3" and len(head) > 9:
        start += 10 + functools.reduce(lambda n, byte: n << 7 | byte & 127, head[6:10], 0)
        head = _read_at(file, start, 4096)
    magic = head[:4]
    if magic in (b"RIFF", b"RIFX", b"RF64") and head[8:12] == b"WAVE":
        return _wav(file, size, head)
    if magic == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        sound = [c[1:] for c in _chunks(file, size, "big") if c[0] == b"SSND"] or [(0, 0)]
        return _Found("aiff", "soundfile", 0, _cut(*sound[0], size))
    if magic == b".snd":
        begin, length = int.from_bytes(head[4:8], "big"), int.from_bytes(head[8:12], "big")
        return _Found("au", "soundfile", 0, _cut(begin, length, size))
    if head[:16] == b"riff.\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00":
        return _Found("w64", "soundfile", 0, _cut(0, int.from_bytes(head[16:24], "little"), size))
    if head[:8] == b"NIST_1A\n":
        fields = dict(re.findall(rb"(\w+) -i (\d+)", head[:1024]))
        sizes = (b"sample_count", b"channel_count", b"sample_n_bytes")
        samples, channels, width = (int(fields.get(name, 0)) for name in sizes)
        return _Found("nist", "soundfile", 0, _cut(1024, samples * channels * width, size))
    if magic == b"caff":
        known = head[28:32] in (b"lpcm", b"alac", b"ulaw", b"alaw")
        sound = [c[1:] for c in _chunks(file, size, "big", 8, 8) if c[0] == b"data"] or [(0, 0)]
        return _Found("caf", "soundfile" if known else "ffmpeg", 0, _cut(*sound[0], size))
    if magic == b"fLaC" and len(head) >= 42:
        packed = int.from_bytes(head[18:26], "big")
        usual = packed % 2**36 and (packed >> 36 & 31) + 1 in (8, 16, 24)
        return _Found("flac", "soundfile" if usual else "ffmpeg", start)
    if magic == b"OggS" and len(head) > 27:
        body = 27 + head[26]
        second = head[body + sum(head[27:body]) :][:6]
        alone = not (second[:4] == b"OggS" and second[5] & 2)
        vorbis = head[body : body + 7] == b"\x01vorbis"
        return _Found("ogg", "soundfile" if vorbis and alone else "ffmpeg", start)
    for offset, letters, demuxer in _FFMPEG_MAGIC:
        if head.startswith(letters, offset):
            return _Found(demuxer, "ffmpeg", start)
    if magic[:2] == b"\x0b\x77" and len(head) > 5:
        return _Found("ac3" if head[5] >> 3 <= 10 else "eac3", "ffmpeg", start)
    if len(head) > 6 and magic[0] == 0xFF and magic[1] & 0xF6 == 0xF0:  # ADTS, if a frame follows
        length = int.from_bytes(head[3:6], "big") >> 5 & 0x1FFF
        if length > 6 and (head[length : length + 2] == head[:2] or length == size - start):
            return _Found("aac", "ffmpeg", start)
    if start:  # only MP3 is left to carry ID3 tags, and padding may follow them
        runs = (m.start() for m in _MPEG_SYNC.finditer(head) if _mpeg_run(head, m.start()))
        return _Found("mp3", "soundfile", start + next(runs, 0))
    return _Found("mp3", "soundfile") if _mpeg_run(head, 0) else None


def _read_at(file: io.FileIO, position: int, count: int) -> bytes:
    file.seek(position)
    return file.read(count) or b""


def _cut(begin: int, length: int, size: int) -> AudioError | None:
    """The error for `length` bytes of sound at `begin` of a file of `size`, unless it streams."""
    streams = 0x7FFFF000 <= length <= 0x80000000 or 0xFFFFF000 <= length <= 0xFFFFFFFF
    if begin + length <= size or streams or length >= 2**63 - 1:
        return None
    there = max(0, size - begin)
    return AudioError("truncated", f"cut short: the header says {length} bytes, there are {there}")


def _chunks(
    file: io.FileIO, size: int, order: Literal["little", "big"], position: int = 12, width: int = 4
) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, first byte and claimed length of the chunks of RIFF, IFF or CAF, 100 at most."""
    for _ in range(100):
        head = _read_at(file, position, 4 + width) if position < size else b""
        if len(head) < 4 + width:
            return
        length = int.from_bytes(head[4:], order)
        position += 4 + width
        yield head[:4], position, length
        position += length + (length & 1 if width == 4 else 0)


def _wav(file: io.FileIO, size: int, head: bytes) -> _Found:
    order: Literal["little", "big"] = "big" if head[:4] == b"RIFX" else "little"
    tag, channels, align, bits, spare, long_length = 1, 1, 2, 16, 0, 0
    unclosed, problem = False, None
    for name, begin, length in _chunks(file, size, order):
        if name == b"ds64":
            long_length = int.from_bytes(_read_at(file, begin + 8, 8), "little")
        elif name == b"fmt ":
            fmt = _read_at(file, begin, 26)
            tag, channels, align, bits, valid, kind = (
                int.from_bytes(fmt[i : i + 2], order) for i in (0, 2, 12, 14, 18, 24)
            )
            if tag == 0xFFFE:
                tag, spare = kind, bits - valid
        elif name == b"data":
            length = long_length if length == 0xFFFFFFFF and long_length else length
            problem = _cut(begin, length, size)
            end = 8 + int.from_bytes(head[4:8], order)
            unclosed = length == 0 and begin < size and not begin < end <= size
            break
    width = -(-bits // 8)
    if tag in (1, 3) and (not bits or align != channels * width or spare >= 8):
        # Where 24 bits lie in 32 differs between writers, and so do the decoders' answers.
        message = f"{bits} bits ({spare} unused) of {channels} channels in {align} bytes: pack them"
        problem = problem or AudioError("unsupported", message)
    known = tag in _WAV_TAGS or 8 * width in _WAV_BITS.get(tag, ())
    plain = order == "big" or (known and not unclosed)  # FFmpeg misreads RIFX
    return _Found("wav", "soundfile" if plain else "ffmpeg", 0, problem)


# Walking a file: what decoders pass over in silence.


@functools.cache
def _mpeg_frame(word: int) -> tuple[int, int] | None:
    """The length of an MPEG audio frame by its header, and the bits that all frames must share."""
    version, layer, index = word >> 19 & 3, 4 - (word >> 17 & 3), word >> 12 & 15
    if word >> 21 != 0x7FF or version == 1 or layer == 4 or index in (0, 15) or word >> 10 & 3 == 3:
        return None
    rate = (44100, 48000, 32000)[word >> 10 & 3] >> {3: 0, 2: 1, 0: 2}[version]
    per_second = _MPEG_KBPS[version == 3, layer][index - 1] * 1000
    slots = (12 if layer == 1 else 72 if layer == 3 and version != 3 else 144) * per_second // rate
    length = (slots + (word >> 9 & 1)) * (4 if layer == 1 else 1)
    return length, word & 0xFFFE0C00 | (word & 0xC0 == 0xC0)


def _mpeg_word(data: bytes | mmap.mmap, position: int = 0) -> int:
    """A frame header without the bits that do not matter here, so that few differ."""
    return int.from_bytes(data[position : position + 4], "big") & 0xFFFEFEC0


def _mpeg_run(data: bytes | mmap.mmap, position: int, form: int | None = None) -> bool:
    """Whether three MPEG frames of one form, or all until the end, follow each other from here."""
    for i in range(3):
        frame = _mpeg_frame(_mpeg_word(data, position))
        if frame is None or form not in (None, frame[1]):
            return i > 0 and position + 4 > len(data)
        position, form = position + frame[0], frame[1]
    return True


def _xing(data: bytes | mmap.mmap, start: int, size: int) -> int | None:
    """The frame count of a Xing header; None if there is none or the file could not hold it."""
    frame = data[start : start + 64]
    tag = re.search(rb"(?:Xing|Info)\0{3}[\x01\x03\x05\x07\x09\x0b\x0d\x0f](.{4})", frame, re.S)
    smallest = _mpeg_frame(_mpeg_word(frame) & ~0xF200 | 0x1000)  # of the lowest bit rate
    count = int.from_bytes(tag[1], "big") if tag else 2**64
    return count if smallest and count * smallest[0] <= size else None


def _walk_mp3(data: mmap.mmap, start: int) -> None:
    """Raise unless frames of one form follow each other to the end, as many as a header says."""
    position, frames, form = start, 0, None
    while (frame := _mpeg_frame(_mpeg_word(data, position))) and form in (None, frame[1]):
        position, frames, form = position + frame[0], frames + 1, frame[1]
    runs = (m.start() for m in _MPEG_SYNC.finditer(data, position) if _mpeg_run(data, m.start()))
    if (more := next(runs, None)) is not None:
        if frames and not _mpeg_run(data, more, form):
            raise AudioError("rate_changes", f"rate, channels or layer change at byte {more}")
        raise AudioError("corrupt", f"no MPEG frame at byte {position}, but more from {more} on")
    said = _xing(data, start, len(data))
    if said is not None and not said <= frames <= said + 2:  # its own frame may count or not
        reason: Reason = "truncated" if frames < said else "corrupt"
        raise AudioError(reason, f"the header says {said} MPEG frames, there are {frames}")


def _walk_ogg(data: mmap.mmap, start: int) -> None:
    """Raise unless every page is there and intact, and no second stream follows the first."""
    position, flags, opening, numbers = start, 0, True, dict[bytes, int]()
    while data[position : position + 4] == b"OggS" and position + 27 <= len(data):
        body = position + 27 + data[position + 26]
        end = body + sum(data[position + 27 : body])
        if end > len(data):
            raise AudioError("truncated", f"cut short in the Ogg page at byte {position}")
        page, flags = data[position:end], data[position + 5]
        # Ogg's CRC-32 is zlib's with the bits of every byte the other way round, and no inversion.
        mirrored = (page[:22] + bytes(4) + page[26:]).translate(_MIRROR)
        crc = int.from_bytes(page[22:26].translate(_MIRROR), "big")
        if zlib.crc32(mirrored, 0xFFFFFFFF) ^ 0xFFFFFFFF != crc:
            raise AudioError("corrupt", f"the checksum of the Ogg page at byte {position} is wrong")
        if flags & 2 and not opening:
            same = page[28:] == data[start + 28 : start + len(page)]
            message = f"a second Ogg stream begins at byte {position}: split the file there"
            raise AudioError("unsupported" if same else "rate_changes", message)
        serial, number = page[14:18], int.from_bytes(page[18:22], "little")
        if numbers.get(serial, number - 1) != number - 1:
            raise AudioError("corrupt", f"Ogg pages are missing before byte {position}")
        position, opening, numbers[serial] = end, bool(flags & 2), number
    if data.find(b"OggS", position) >= 0:
        raise AudioError("corrupt", f"no Ogg page at byte {position}, but more after it")
    if not flags & 4:
        raise AudioError("truncated", "cut short: the last Ogg page is not marked as the last")


def _walk_flac(data: mmap.mmap, start: int) -> None:
    """Raise unless a frame ends where the header says the file does, with samples of its size."""
    info = data[start + 8 : start + 42]
    packed = int.from_bytes(info[10:18], "big")
    block, longest = int.from_bytes(info[2:4], "big"), int.from_bytes(info[7:10], "big")
    total = packed % 2**36
    width = {8: 1, 12: 2, 16: 4, 20: 5, 24: 6, 32: 7}.get((packed >> 36 & 31) + 1, 0)
    # The last frame is near the end, unless tags hide it. A match by chance in the coded sound is
    # harmless: it had to hit the one right number.
    for window in (longest + 4096, len(data)):
        for sync in _FLAC_SYNC.finditer(data, max(0, len(data) - window)):
            frame = data[sync.start() : sync.start() + 16].ljust(16, b"\0")
            ones = 8 - (frame[4] ^ 255).bit_length()  # the frame's number is coded like UTF-8
            number, after = frame[4] & 0x7F >> ones, 4 + max(1, ones)
            for byte in frame[5:after]:
                number = number << 6 | byte & 63
            code = frame[2] >> 4
            samples = (0, 192, 576, 1152, 2304, 4608)[code] if code < 6 else 1 << code
            if code in (6, 7):
                samples = int.from_bytes(frame[after : after + code - 5], "big") + 1
            begin = number if frame[1] & 1 else number * block
            if frame[3] >> 1 & 7 in (0, width) and total in (0, begin + samples):
                return
    message = f"no frame ends at the {total} samples that the header says"
    raise AudioError("corrupt", message)


_WALKS = {"mp3": _walk_mp3, "ogg": _walk_ogg, "flac": _walk_flac}
