"""One interface to libsndfile and FFmpeg on an open file, with workarounds for their faults.

A reader has `rate` (Hz), `channels`, `codec`, `lossy`, `floats`, the number of samples that the
header `claimed`, and its current `position`. At the end `read` returns no samples, and `check_end`
raises if some are missing.
"""

import errno
import io
import os
import re
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from basilar.pipeline.audio.containers import AudioError, Container, Decoder, Reason, read_at, xing

Samples: TypeAlias = NDArray[np.float32]

_READ_AT_ONCE = 1 << 20  # bytes
_SYSTEM_ERROR = 2  # libsndfile's code for a system call that failed
_NO_LENGTH = {"aac", "ac3", "eac3", "amr", "mp3", "flac"}  # FFmpeg guesses from the bit rate
_CODECS = {  # libsndfile's names in FFmpeg's words, without the byte order
    "FLOAT": "pcm_f32", "DOUBLE": "pcm_f64", "ULAW": "pcm_mulaw", "ALAW": "pcm_alaw",
    "PCM_S8": "pcm_s8", "PCM_U8": "pcm_u8", "PCM_16": "pcm_s16", "PCM_24": "pcm_s24",
    "PCM_32": "pcm_s32", "MPEG_LAYER_I": "mp1", "MPEG_LAYER_II": "mp2", "MPEG_LAYER_III": "mp3",
    "GSM610": "gsm_ms", "MS_ADPCM": "adpcm_ms", "IMA_ADPCM": "adpcm_ima_wav",
}  # fmt: skip
_LOSSLESS = {"flac", "alac", "wavpack", "tta", "ape", "tak", "mp4als", "truehd", "mlp"}


def read_through(file: io.FileIO) -> None:
    """Raise OSError if any byte of a file cannot be read."""
    position = file.tell()
    file.seek(0)
    while os.read(file.fileno(), _READ_AT_ONCE):
        pass
    file.seek(position)


class SoundFile:
    """libsndfile on an open file."""

    decoder: Decoder = "soundfile"

    def __init__(self, file: io.FileIO, found: Container) -> None:
        import soundfile

        self.found, self.position, self._failure = found, 0, soundfile.SoundFileError
        size = os.fstat(file.fileno()).st_size
        counted = found.format == "mp3" and xing(read_at(file, found.start, 64), 0, size)
        file.seek(0)  # from here on the file's position is libsndfile's
        try:
            self._file = soundfile.SoundFile(file.fileno(), closefd=False)
        except soundfile.LibsndfileError as error:
            self._refuse_system_error(error)
            read_through(file)  # a read error may look like a damaged header
            reason: Reason = "unsupported" if error.code in (4, 18) else "corrupt"
            raise AudioError(reason, self._explain(error)) from error
        self.rate: int = self._file.samplerate
        self.channels: int = self._file.channels
        self._frames: int = self._file.frames
        subtype = "FLAC" if found.format == "flac" else self._file.subtype
        self.codec = _CODECS.get(subtype, subtype.lower().split("_")[0])
        self._sixteen = self._file.subtype == "PCM_16"
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

    @staticmethod
    def _refuse_system_error(error: Any) -> None:
        # libsndfile does not say which call failed; damaged content never causes this code.
        if error.code == _SYSTEM_ERROR:
            raise OSError(errno.EIO, os.strerror(errno.EIO)) from error

    @contextmanager
    def _going_on(self) -> Iterator[None]:
        try:
            yield
        except self._failure as error:
            self._refuse_system_error(error)
            where = f"libsndfile cannot go on after sample {self.position}"
            raise AudioError("corrupt", f"{where}: {self._explain(error)}") from error

    def skip_to(self, start: int) -> None:
        """Seek to the sample `start`, or to a place before it."""
        # Seeking is exact only in FLAC and where samples have fixed positions. Other codecs decode
        # from the beginning. So do FLAC after an ID3 tag and ALAC: in damaged ALAC, as in the
        # former, libsndfile seeks wrongly.
        astray = self.codec == "alac" or (self.found.format == "flac" and self.found.start)
        if start and not self.lossy and not astray:
            with self._going_on():
                self.position = self._file.seek(min(start, self._frames))

    def read(self, count: int) -> Samples:
        """The next samples: float32 (at most `count`, channels)."""
        with self._going_on():
            if self._sixteen:  # the same values, several times as fast as libsndfile's own
                integers = self._file.read(count, dtype="int16", always_2d=True)
                block: Samples = integers * np.float32(2.0**-15)
            else:
                block = self._file.read(count, dtype="float32", always_2d=True)
        self.position += len(block)
        return block

    def check_end(self) -> None:
        """Raise AudioError for a file that ended too early."""
        if self.position < self._frames and not self._guess:
            there = f"the header says {self._frames} samples, there are {self.position}"
            raise AudioError("truncated", f"cut short: {there}")


class _OpenFile(io.FileIO):
    """An open file whose name FFmpeg does not see, since it could take hints or protocols from it.

    PyAV raises the errors of reads, even where FFmpeg takes them for the end of the file.
    """

    def seek(self, offset: int, whence: int = 0) -> int:
        try:
            return super().seek(offset, whence)
        except OSError as error:
            if error.errno == errno.EINVAL:  # an offset from damaged bytes: FFmpeg's error
                return -1
            raise


class FFmpeg:
    """FFmpeg on an open file."""

    decoder: Decoder = "ffmpeg"
    floats = True

    def __init__(self, file: io.FileIO, found: Container) -> None:
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
        opened = _OpenFile(file.fileno(), closefd=False)
        # Texts in a file need not be UTF-8: PyAV 19 takes any, an older one only where it is told.
        new = int(av.__version__.split(".")[0]) >= 19
        told: dict[str, Any] = {} if new else {"metadata_errors": "ignore"}
        try:
            with av.open(opened, format=self.found.format, **told) as container:
                stream = self._choose(container)
                for packet in container.demux(stream):
                    # A WAV without a length may end inside a packet.
                    if packet.is_corrupt and self.found.format != "wav":
                        raise AudioError("truncated", f"cut short after sample {self._decoded}")
                    if new and self.found.format == "mov":
                        self._keep_padding(packet)
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
    def _keep_padding(packet: Any) -> None:
        # The last packet of MP4 is padded behind the sound. FFmpeg 9, which PyAV has since 19, cuts
        # the padding off, and older ones do not: all are to give the same samples of a file.
        if packet.has_sidedata("skip_samples"):
            skip = packet.get_sidedata("skip_samples")  # two integers of 4 bytes: before, behind
            skip.update(bytes(skip)[:4] + bytes(skip.buffer_size - 4))
            packet.set_sidedata(skip)

    @staticmethod
    def _choose(container: Any) -> Any:
        stream = container.streams.best("audio")
        if stream is None or stream.codec_context is None:
            reason: Reason = "unsupported" if container.streams.audio else "not_audio"
            raise AudioError(reason, "it has no audio stream that FFmpeg decodes")
        stream.codec_context.thread_count = 1  # the caller runs processes in parallel
        return stream

    def _describe(self, stream: Any, container: Any, frame: Any) -> None:
        self.rate, self.channels = frame.sample_rate, frame.layout.nb_channels
        name = stream.codec_context.codec.canonical_name
        self.codec = re.sub("^(pcm_.*)[lb]e$", r"\1", name)
        # WavPack may hold floats, or DSD, which FFmpeg converts with a filter.
        exact = self.codec in _LOSSLESS and not frame.format.name.startswith("f")
        self.lossy = not (exact or self.codec.startswith("pcm_"))
        seconds = float((stream.duration or 0) * stream.time_base)
        if not seconds and len(container.streams) == 1:  # otherwise it may be that of a picture
            seconds = (container.duration or 0) / 1e6
        if self.found.format not in _NO_LENGTH and 0 < seconds < 1e6:
            self.claimed = round(seconds * self.rate) or None

    def _check_frame(self, frame: Any) -> None:
        # Raw FLAC frames carry their position: it shows where FFmpeg silently dropped one.
        place = (frame.pts or 0) * frame.time_base * self.rate
        if frame.is_corrupt or (self.found.format == "flac" and place != self._decoded):
            raise AudioError("corrupt", f"damaged near sample {self._decoded}")
        self._decoded += frame.samples

    def skip_to(self, start: int) -> None:
        """Do nothing: FFmpeg's seeks are not exact, so samples before `start` are decoded."""

    def read(self, count: int) -> Samples:
        """The next samples: float32 (at most `count`, channels)."""
        parts, have = [self._rest], len(self._rest)
        while have < count and (part := next(self._frames, None)) is not None:
            parts.append(part)
            have += len(part)
        joined = np.concatenate(parts)
        block, self._rest = joined[:count], joined[count:]
        self.position += len(block)
        return block

    def check_end(self) -> None:
        """Raise AudioError for a file that ended too early."""
        # Headers round to packets or milliseconds, and may count priming; ASF's are unreliable.
        said = self.claimed if self.found.format != "asf" else None
        if said and self.position < said - 4096:
            message = f"cut short: the header says {said} samples, there are {self.position}"
            raise AudioError("truncated", message)


Reader: TypeAlias = SoundFile | FFmpeg
