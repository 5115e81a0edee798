"""Damaged audio files, and the process that decodes them: `python -m tests.fuzz.decoding`.

A damaged file is a function of the seed files, a seed and its number, so that a process that dies
takes nothing with it: who watches it knows the number, and makes the file again.
"""

import io
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, get_args

import av
import numpy as np
import soundfile as sf

from basilar.pipeline import audio
from basilar.pipeline.audio import AudioError, Limits

HANGS = 10.0  # seconds
_RATE = 16000
_LIMITS = Limits(max_seconds=3600, max_bytes=2**28)
_MEMORY = 8 * 2**30  # bytes of address space
_EXTREMES = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1)
_SOUNDFILE = {
    "WAV": ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW", "IMA_ADPCM",
        "MS_ADPCM", "GSM610"),
    "WAVEX": ("PCM_16", "FLOAT"),
    "RF64": ("PCM_16",),
    "W64": ("PCM_16",),
    "AIFF": ("PCM_S8", "PCM_24", "FLOAT", "ULAW"),
    "AU": ("PCM_16", "FLOAT", "ALAW"),
    "CAF": ("PCM_16", "ALAC_16", "ULAW"),
    "NIST": ("PCM_16",),
    "FLAC": ("PCM_S8", "PCM_16", "PCM_24"),
    "OGG": ("VORBIS", "OPUS"),
    "MP3": ("MPEG_LAYER_III",),
}  # fmt: skip
_FFMPEG = (  # container, codec, sample format
    ("adts", "aac", "fltp"), ("ipod", "aac", "fltp"), ("ipod", "alac", "s16p"),
    ("ogg", "flac", "s16"), ("ogg", "libopus", "flt"), ("webm", "libopus", "flt"),
    ("matroska", "pcm_s16le", "s16"), ("matroska", "flac", "s16"), ("matroska", "aac", "fltp"),
    ("asf", "wmav2", "fltp"), ("mp2", "mp2", "s16"), ("mp4", "libmp3lame", "fltp"),
    ("ac3", "ac3", "fltp"), ("eac3", "eac3", "fltp"), ("tta", "tta", "s16"),
    ("wv", "wavpack", "fltp"), ("caf", "pcm_s16be", "s16"), ("wav", "pcm_s16le", "s16"),
)  # fmt: skip


def write_seeds(folder: Path, corpora: Path | None = None) -> None:
    """Write a small file of every container and codec, and copy small ones of the corpora."""
    folder.mkdir()
    y = 0.3 * np.random.default_rng(0).standard_normal((2400, 2)).clip(-3, 3)
    for container, subtypes in _SOUNDFILE.items():
        for subtype in subtypes:
            mono = subtype in ("GSM610", "MS_ADPCM", "MPEG_LAYER_III")
            file = io.BytesIO()
            sound = y[:, 0] if mono else y[:1200]
            sf.write(file, sound, _RATE, format=container, subtype=subtype)
            (folder / f"{container}-{subtype}").write_bytes(file.getvalue())
    for container, codec, form in _FFMPEG:
        (folder / f"{container}-{codec}").write_bytes(_encoded(y[:, 0], container, codec, form))
    for file in sorted((corpora / "awkward").rglob("*")) if corpora else ():
        if file.is_file() and 8 < file.stat().st_size < 20_000:
            (folder / file.name).write_bytes(file.read_bytes())


def _encoded(y: Any, container: str, codec: str, form: str) -> bytes:
    out = io.BytesIO()
    rate = 48000 if codec in ("libopus", "ac3", "eac3") else _RATE
    with av.open(out, "w", format=container) as file:
        stream = file.add_stream(codec, rate=rate, layout="mono", format=form, bit_rate=64000)
        samples = y[None].astype(np.float32)
        frame = av.AudioFrame.from_ndarray(samples, format="flt", layout="mono")
        frame.sample_rate = _RATE
        encoder = stream.codec_context
        resampler = av.AudioResampler(form, "mono", rate, encoder.frame_size or 1024)
        for part in (frame, None):
            for piece in resampler.resample(part):
                file.mux(stream.encode(piece))
        file.mux([packet for packet in stream.encode(None) if packet.size])
    return out.getvalue()


def seeds_in(folder: Path) -> list[bytes]:
    """The content of the seed files."""
    return [file.read_bytes() for file in sorted(folder.iterdir())]


def mutant(seeds: list[bytes], seed: int, number: int) -> bytes:
    """One damaged file: a seed after one to four accidents."""
    chance = random.Random(f"{seed}:{number}")
    data = bytearray(chance.choice(seeds))
    for _ in range(chance.choice((1, 1, 2, 4))):
        # Headers are short and decide most: half of all accidents happen there.
        at = chance.randrange(min(len(data), 128) if chance.random() < 0.5 else len(data))
        length = min(chance.choice((1, 4, 16, 128, 1024)), len(data) - at)
        match chance.randrange(8):
            case 0:
                data[at] ^= 1 << chance.randrange(8)
            case 1:
                for _ in range(chance.randrange(1, 32)):
                    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
            case 2:
                del data[at + 1 :]
            case 3:
                data[at:at] = data[at : at + length]
            case 4:
                del data[at : at + length]
            case 5:
                width, order = chance.choice((2, 4, 4, 8)), chance.choice(("little", "big"))
                value = chance.choice(_EXTREMES) % 2 ** (8 * width)
                data[at : at + width] = value.to_bytes(width, order)
            case 6:
                other = chance.choice(seeds)
                data[at:] = other[chance.randrange(len(other)) :]
            case 7:
                data[at : at + length] = chance.randbytes(length)
        data = data or bytearray(1)
    return bytes(data)


def outcome(path: Path) -> str:
    """What a file comes to: "ok", or the reason that it is refused for. Asserts what is promised.

    Any other exception is a failure of ours.
    """
    audio.sniff(path)
    info: audio.AudioInfo | None = None
    try:
        info = audio.probe(path, limits=_LIMITS)
    except AudioError as error:
        _assert_explained(error, path)
    else:
        assert info.sample_rate > 0, info
        assert 1 <= info.channels <= _LIMITS.max_channels, info
        assert info.n_samples > 0, info
    try:
        y, rate = audio.decode(path, limits=_LIMITS)
    except AudioError as error:
        _assert_explained(error, path)
        return error.reason
    assert info is not None, "decoded, but not described"
    assert y.dtype == np.float32, y.dtype
    assert y.ndim == 1, y.shape
    assert 0 < y.size <= rate * _LIMITS.max_seconds, y.shape
    assert np.abs(y).max() <= 2.0**50, "NaN, Inf or too loud"  # NaN fails it
    assert rate == info.sample_rate, (rate, info)
    if info.decoder == "soundfile" and not info.lossy:
        assert y.size == info.n_samples, (y.size, info)
    start, stop = y.size // 3, y.size // 3 + (y.size + 1) // 2
    part, _ = audio.decode(
        path, offset=start / rate, duration=(stop - start) / rate, limits=_LIMITS
    )
    assert part.tobytes() == y[start:stop].tobytes(), "an excerpt is not a slice of the whole"
    return "ok"


def _assert_explained(error: AudioError, path: Path) -> None:
    assert error.reason in get_args(audio.Reason), error.reason
    assert error.message, error
    assert repr(str(path)) in str(error), error


def watch(jobs: list[str], seed_folder: Path, seed: int) -> Iterator[tuple[str, str]]:
    """Yield (job, outcome) of each job, by a process that is replaced when it dies or hangs."""
    while jobs:
        program = [sys.executable, "-W", "error", "-m", "tests.fuzz.decoding"]
        with subprocess.Popen(
            [*program, str(seed_folder), str(seed)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # what decoders print
            text=True,
        ) as child:
            feeder = threading.Thread(target=_feed, args=(child.stdin, jobs))
            feeder.start()
            waiting = list(jobs)
            for job in jobs:
                alarm = threading.Timer(HANGS, child.kill)
                alarm.start()
                line = child.stdout.readline() if child.stdout else ""
                alarm.cancel()
                waiting.pop(0)
                if not line:
                    yield job, f"died: {child.wait()}"
                    break
                yield job, json.loads(line)
            feeder.join()
        jobs = waiting


def _feed(stream: Any, jobs: list[str]) -> None:
    with suppress(BrokenPipeError):
        try:
            stream.write("".join(f"{job}\n" for job in jobs))
        finally:
            stream.close()


def main(seed_folder: str, seed: str) -> None:
    """Decode what lines on standard input name: a file, or the number of a damaged one."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    reports = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # libsndfile prints there about damaged ALAC
    seeds = seeds_in(Path(seed_folder))
    with tempfile.TemporaryDirectory() as folder:
        for line in sys.stdin:
            path = Path(line.strip())
            if line.strip().isdecimal():
                path = Path(folder) / "mutant"
                path.write_bytes(mutant(seeds, int(seed), int(line)))
            try:
                found = outcome(path)
            except Exception:  # whatever it is, it is to be reported
                found = "failed: " + traceback.format_exc()
            print(json.dumps(found), file=reports, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
