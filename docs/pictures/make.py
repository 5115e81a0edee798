"""Make the pictures of docs/representations.md with the commands that the page shows.

    make pictures

Their clip is made once and kept, since sines differ in the last bit between machines.
"""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import soundfile as sf

DOCS = Path(__file__).parents[1]
CLIP = DOCS / "pictures" / "clip.flac"
SAMPLE_RATE = 22050  # Hz


def clip() -> np.ndarray:
    """Three seconds: three plucked notes, a chord, a glide, two clicks, and a burst of noise."""
    y = np.zeros(3 * SAMPLE_RATE)
    t = np.arange(y.size) / SAMPLE_RATE
    for begin, notes in (
        (0.0, [220.0]),
        (0.3, [261.63]),
        (0.6, [329.63]),
        (0.9, [220, 261.63, 329.63]),
    ):
        since = t - begin
        decay = np.where(since >= 0, np.exp(-6 * since), 0) * np.minimum(since.clip(0) / 0.005, 1)
        for f0 in notes:
            for harmonic in range(1, 9):
                y += 0.25 / harmonic * decay * np.sin(2 * np.pi * f0 * harmonic * since)
    octaves = np.log2(7040 / 110)
    glide = (t - 1.4).clip(0, 0.8)
    phase = 110 * 0.8 / (octaves * np.log(2)) * (2 ** (octaves * glide / 0.8) - 1)
    y += 0.3 * np.sin(2 * np.pi * phase) * ((t >= 1.4) & (t < 2.2))
    y[[round(2.3 * SAMPLE_RATE), round(2.4 * SAMPLE_RATE)]] += 0.9
    burst = np.where(t >= 2.5, np.exp(-12 * (t - 2.5)), 0)
    y += 0.2 * burst * np.random.default_rng(0).standard_normal(y.size)
    return y / np.abs(y).max() * 0.9


def commands() -> list[str]:
    """Every `basilar plot` of the page, in order."""
    page = (DOCS / "representations.md").read_text("utf-8")
    return re.findall(r"^\$ (basilar plot .*)$", page, re.MULTILINE)


if __name__ == "__main__":
    if not CLIP.exists():
        sf.write(CLIP, clip(), SAMPLE_RATE, subtype="PCM_16")
    for command in commands():
        arguments = [sys.executable, "-c", "from basilar.pipeline.cli import main; main()"]
        subprocess.run([*arguments, *shlex.split(command)[1:]], cwd=DOCS.parent, check=True)
