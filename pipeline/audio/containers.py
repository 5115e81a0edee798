"""Recognise audio files by their bytes, and detect damaged ones.

`identify` reads the head of a file and finds its format, the decoder for it, and whether its header
claims more data than there is. The walks go through a whole file, page by page or frame by frame,
since both decoders silently shorten a damaged MP3, Ogg or FLAC file.
"""

import functools
import io
import mmap
import os
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from basilar.pipeline.errors import BasilarError

Path: TypeAlias = str | bytes | os.PathLike[str] | os.PathLike[bytes]

Decoder = Literal["soundfile", "ffmpeg"]
Reason = Literal[
    "not_audio", "truncated", "empty", "corrupt", "unsupported",
    "too_long", "too_loud_or_nan", "rate_changes", "timeout", "crashed",
]  # fmt: skip

_FFMPEG_MAGIC = (  # offset, bytes, FFmpeg's demuxer
    (4, b"ftyp", "mov"), (4, b"moov", "mov"), (4, b"mdat", "mov"), (0, b"#!AMR", "amr"),
    (0, b"\x1aE\xdf\xa3", "matroska"), (0, b"0&\xb2u\x8ef\xcf\x11", "asf"), (0, b"MAC ", "ape"),
    (0, b"wvpk", "wv"), (0, b"TTA1", "tta"), (0, b"tBaK", "tak"), (0, b"MPCK", "mpc8"),
    (0, b"MP+", "mpc"), (0, b"DSD ", "dsf"), (0, b"FRM8", "iff"), (0, b"ADIF", "aac"),
)  # fmt: skip
_WAV_BITS = {1: (8, 16, 24, 32), 3: (32, 64)}  # widths that libsndfile reads: integers, floats
_WAV_TAGS = {2, 6, 7, 0x11, 0x31, 0x55}  # others it reads: ADPCM, A-law, mu-law, ADPCM, GSM, MP3
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


class AudioError(BasilarError):
    """A file whose content cannot be used: the `reason`, and a message that explains it.

    `str` also names the file; `message` does not. It can be pickled, for errors from workers.
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
class Container:
    """A recognised file: its format, its decoder, and the problem its header reveals, if any."""

    format: str  # for FFmpeg, the name of its demuxer
    decoder: Decoder
    start: int = 0  # the first byte after ID3 tags
    problem: AudioError | None = None


def identify(file: io.FileIO) -> Container | None:
    """Recognise an open file by its first bytes; None if it is not audio."""
    size = os.fstat(file.fileno()).st_size
    start, head = 0, read_at(file, 0, 4096)
    while head[:3] == b"ID3" and len(head) > 9:
        start += 10 + functools.reduce(lambda n, byte: n << 7 | byte & 127, head[6:10], 0)
        head = read_at(file, start, 4096)
    magic = head[:4]
    if magic in (b"RIFF", b"RIFX", b"RF64") and head[8:12] == b"WAVE":
        return _wav(file, size, head)
    if magic == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        sound = [c[1:] for c in _chunks(file, size, "big") if c[0] == b"SSND"] or [(0, 0)]
        return Container("aiff", "soundfile", 0, _cut(*sound[0], size))
    if magic == b".snd":
        begin, length = int.from_bytes(head[4:8], "big"), int.from_bytes(head[8:12], "big")
        problem = _cut(begin, length, size)
        if begin < 24:  # libsndfile would start after the header, but seek from this offset
            problem = AudioError("corrupt", f"its sound begins in its header, at {begin}")
        return Container("au", "soundfile", 0, problem)
    if head[:16] == b"riff.\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00":
        return Container(
            "w64", "soundfile", 0, _cut(0, int.from_bytes(head[16:24], "little"), size)
        )
    if head[:8] == b"NIST_1A\n":
        fields = dict(re.findall(rb"(\w+) -i (\d+)", head[:1024]))
        sizes = (b"sample_count", b"channel_count", b"sample_n_bytes")
        samples, channels, width = (int(fields.get(name, 0)) for name in sizes)
        return Container("nist", "soundfile", 0, _cut(1024, samples * channels * width, size))
    if magic == b"caff":
        known = head[28:32] in (b"lpcm", b"alac", b"ulaw", b"alaw")
        sound = [c[1:] for c in _chunks(file, size, "big", 8, 8) if c[0] == b"data"] or [(0, 0)]
        return Container("caf", "soundfile" if known else "ffmpeg", 0, _cut(*sound[0], size))
    if magic == b"fLaC" and len(head) >= 42:
        packed = int.from_bytes(head[18:26], "big")
        usual = packed % 2**36 and (packed >> 36 & 31) + 1 in (8, 16, 24)
        return Container("flac", "soundfile" if usual else "ffmpeg", start)
    if magic == b"OggS" and len(head) > 27:
        body = 27 + head[26]
        second = head[body + sum(head[27:body]) :][:6]
        alone = not (len(second) > 5 and second[:4] == b"OggS" and second[5] & 2)
        vorbis = head[body : body + 7] == b"\x01vorbis"
        return Container("ogg", "soundfile" if vorbis and alone else "ffmpeg", start)
    for offset, letters, demuxer in _FFMPEG_MAGIC:
        if head.startswith(letters, offset):
            return Container(demuxer, "ffmpeg", start)
    if magic[:2] == b"\x0b\x77" and len(head) > 5:
        return Container("ac3" if head[5] >> 3 <= 10 else "eac3", "ffmpeg", start)
    if len(head) > 6 and magic[0] == 0xFF and magic[1] & 0xF6 == 0xF0:  # ADTS, if a frame follows
        length = int.from_bytes(head[3:6], "big") >> 5 & 0x1FFF
        if length > 6 and (head[length : length + 2] == head[:2] or length == size - start):
            return Container("aac", "ffmpeg", start)
    if start:  # only MP3 is left to carry ID3 tags, and padding may follow them
        runs = (m.start() for m in _MPEG_SYNC.finditer(head) if _mpeg_run(head, m.start()))
        return Container("mp3", "soundfile", start + next(runs, 0))
    return Container("mp3", "soundfile") if _mpeg_run(head, 0) else None


def read_at(file: io.FileIO, position: int, count: int) -> bytes:
    """Up to `count` bytes from `position`."""
    file.seek(position)
    return file.read(count) or b""


def _cut(begin: int, length: int, size: int) -> AudioError | None:
    """The error if `length` bytes of sound at `begin` exceed a file of `size`; None if they fit.

    Lengths that writers of streams use for "unknown" are not errors.
    """
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
        head = read_at(file, position, 4 + width) if position < size else b""
        if len(head) < 4 + width:
            return
        length = int.from_bytes(head[4:], order)
        position += 4 + width
        yield head[:4], position, length
        position += length + (length & 1 if width == 4 else 0)


def _wav(file: io.FileIO, size: int, head: bytes) -> Container:
    order: Literal["little", "big"] = "big" if head[:4] == b"RIFX" else "little"
    tag, channels, align, bits, spare, long_length = 1, 1, 2, 16, 0, 0
    unclosed, problem = False, None
    for name, begin, length in _chunks(file, size, order):
        if name == b"ds64":
            long_length = int.from_bytes(read_at(file, begin + 8, 8), "little")
        elif name == b"fmt ":
            fmt = read_at(file, begin, 26)
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
        # Writers place 24 bits in 32 differently, and the decoders disagree about them.
        message = f"{bits} bits ({spare} unused) of {channels} channels in {align} bytes: pack them"
        problem = problem or AudioError("unsupported", message)
    known = tag in _WAV_TAGS or 8 * width in _WAV_BITS.get(tag, ())
    plain = order == "big" or (known and not unclosed)  # FFmpeg misreads RIFX
    return Container("wav", "soundfile" if plain else "ffmpeg", 0, problem)


# Walking a file finds the damage that decoders skip silently.


@functools.cache
def _mpeg_frame(word: int) -> tuple[int, int] | None:
    """The length of an MPEG audio frame, and the header bits that all frames must share."""
    version, layer, index = word >> 19 & 3, 4 - (word >> 17 & 3), word >> 12 & 15
    if word >> 21 != 0x7FF or version == 1 or layer == 4 or index in (0, 15) or word >> 10 & 3 == 3:
        return None
    rate = (44100, 48000, 32000)[word >> 10 & 3] >> {3: 0, 2: 1, 0: 2}[version]
    per_second = _MPEG_KBPS[version == 3, layer][index - 1] * 1000
    slots = (12 if layer == 1 else 72 if layer == 3 and version != 3 else 144) * per_second // rate
    length = (slots + (word >> 9 & 1)) * (4 if layer == 1 else 1)
    return length, word & 0xFFFE0C00 | (word & 0xC0 == 0xC0)


def _mpeg_word(data: bytes | mmap.mmap, position: int = 0) -> int:
    """A frame header without the bits that do not matter here, so that the cache stays small."""
    return int.from_bytes(data[position : position + 4], "big") & 0xFFFEFEC0


def _mpeg_run(data: bytes | mmap.mmap, position: int, form: int | None = None) -> bool:
    """Whether three MPEG frames of one form, or all up to the end, start at this position."""
    for i in range(3):
        frame = _mpeg_frame(_mpeg_word(data, position))
        if frame is None or form not in (None, frame[1]):
            return i > 0 and position + 4 > len(data)
        position, form = position + frame[0], frame[1]
    return True


def xing(data: bytes | mmap.mmap, start: int, size: int) -> int | None:
    """The frame count of a Xing header; None if there is none or the file could not hold it."""
    frame = data[start : start + 64]
    tag = re.search(rb"(?:Xing|Info)\0{3}[\x01\x03\x05\x07\x09\x0b\x0d\x0f](.{4})", frame, re.S)
    smallest = _mpeg_frame(_mpeg_word(frame) & ~0xF200 | 0x1000)  # at the lowest bit rate
    count = int.from_bytes(tag[1], "big") if tag else 2**64
    return count if smallest and count * smallest[0] <= size else None


def _walk_mp3(data: mmap.mmap, start: int) -> None:
    """Raise unless frames of one form reach to the end, as many as a Xing header says."""
    position, frames, form = start, 0, None
    while (frame := _mpeg_frame(_mpeg_word(data, position))) and form in (None, frame[1]):
        position, frames, form = position + frame[0], frames + 1, frame[1]
    runs = (m.start() for m in _MPEG_SYNC.finditer(data, position) if _mpeg_run(data, m.start()))
    if (more := next(runs, None)) is not None:
        if frames and not _mpeg_run(data, more, form):
            raise AudioError("rate_changes", f"rate, channels or layer change at byte {more}")
        raise AudioError("corrupt", f"no MPEG frame at byte {position}, but more from {more} on")
    said = xing(data, start, len(data))
    if said is not None and not said <= frames <= said + 2:  # its own frame may count or not
        reason: Reason = "truncated" if frames < said else "corrupt"
        raise AudioError(reason, f"the header says {said} MPEG frames, there are {frames}")


def _walk_ogg(data: mmap.mmap, start: int) -> None:
    """Raise if a page is missing or damaged, or if a second stream follows the first."""
    position, flags, opening, numbers = start, 0, True, dict[bytes, int]()
    while data[position : position + 4] == b"OggS" and position + 27 <= len(data):
        body = position + 27 + data[position + 26]
        end = body + sum(data[position + 27 : body])
        if end > len(data):
            raise AudioError("truncated", f"cut short in the Ogg page at byte {position}")
        page, flags = data[position:end], data[position + 5]
        # Ogg's CRC-32 is zlib's with the bits of every byte reversed, and without inversion.
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
    """Raise unless a frame of the stated sample width ends at the stated number of samples."""
    info = data[start + 8 : start + 42]
    packed = int.from_bytes(info[10:18], "big")
    block, longest = int.from_bytes(info[2:4], "big"), int.from_bytes(info[7:10], "big")
    total = packed % 2**36
    width = {8: 1, 12: 2, 16: 4, 20: 5, 24: 6, 32: 7}.get((packed >> 36 & 31) + 1, 0)
    # The last frame is near the end, unless tags follow it. A chance match in the coded sound is
    # harmless, since it would have to give the one right number.
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


WALKS = {"mp3": _walk_mp3, "ogg": _walk_ogg, "flac": _walk_flac}
