"""Audio to build from: long MP3s or FLACs of music and speech, and any number of short WAVs."""

import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

CORPORA = Path(__file__).resolve().parents[2] / "shared" / "corpora"
RATE = 44100  # Hz, of the long files
CLIP_RATE = 8000  # Hz, of the WAVs
_A_FOLDER = 1000  # WAVs


def recordings(folder: Path, hours: float, kind: str) -> list[Path]:
    """Stereo files of 10 to 300 s, `hours` in all, as "mp3" or "flac"; earlier ones are taken."""
    lengths: list[float] = []
    rng = np.random.default_rng(0)
    while (left := hours * 3600 - sum(lengths)) > 0:
        lengths.append(max(10.0, min(left, float(rng.uniform(10, 300)))))
    folder = folder / f"{kind}-{hours:g}"
    files = [folder / f"{i:04}.{kind}" for i in range(len(lengths))]
    folder.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(2, initializer=_load) as pool:
        list(pool.map(_encode, files, range(len(files)), lengths))
    return files


_pieces: list[NDArray[np.float32]] = []  # (samples, 2) at 44.1 kHz: in the encoders alone


def _load() -> None:
    sources = (CORPORA / "music", CORPORA / "speech" / "fsdd")
    for file in sorted(file for source in sources for file in source.iterdir()):
        try:
            y, rate = soundfile.read(file, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError:
            continue  # what libsndfile does not know is no loss here
        pair = y[:, [0, -1]]
        _pieces.append(soxr.resample(pair, rate, RATE))


def _encode(file: Path, seed: int, seconds: float) -> None:
    if file.exists():
        return
    rng = np.random.default_rng(seed)
    part = file.with_suffix(".part")
    with soundfile.SoundFile(part, "w", RATE, 2, format=file.suffix[1:].upper()) as out:
        for y in _excerpts(rng, round(seconds * RATE)):
            out.write(y)
    part.rename(file)


def _excerpts(rng: np.random.Generator, left: int) -> Iterator[Any]:
    """Excerpts of up to 30 s, as long pieces give more of them, at a level that varies."""
    weights = np.array([len(y) for y in _pieces], float)
    while left > 0:
        y = _pieces[rng.choice(len(_pieces), p=weights / weights.sum())]
        count = min(left, len(y), round(rng.uniform(5, 30) * RATE))
        start = int(rng.integers(len(y) - count + 1))
        yield y[start : start + count] * np.float32(rng.uniform(0.5, 1))
        left -= count


def wavs(folder: Path, count: int) -> Path:
    """A folder of `count` WAVs of noise, 0.2 to 0.5 s, 16 bits, 1,000 a folder."""
    if not (folder := folder / f"wav-{count}").exists():
        part = folder.with_suffix(".part")
        for i in range(count):
            if i % _A_FOLDER == 0:
                (part / f"{i // _A_FOLDER:04}").mkdir(parents=True, exist_ok=True)
            wav(part / f"{i // _A_FOLDER:04}" / f"{i:06}.wav", seed=i)
        part.rename(folder)
        os.sync()
    return folder


def wav(file: Path, *, seed: int) -> None:
    rng = np.random.default_rng(seed)
    y = rng.integers(-9000, 9000, rng.integers(CLIP_RATE // 5, CLIP_RATE // 2), np.int16)
    data, rate = y.astype("<i2").tobytes(), CLIP_RATE
    form = np.array([16, 0x00010001, rate, 2 * rate, 0x00100002], "<u4").tobytes()
    sizes = [np.array(size, "<u4").tobytes() for size in (36 + len(data), len(data))]
    file.write_bytes(b"RIFF" + sizes[0] + b"WAVEfmt " + form + b"data" + sizes[1] + data)
