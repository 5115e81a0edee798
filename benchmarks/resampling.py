"""What resamplers do to tones: ripple, aliases, images, in dB. Part of `make bench-dsp`.

Ripple is the largest deviation of a tone's gain from 1, up to 0.9 of the lower Nyquist frequency.
Aliases are what is left, relative to the tone, of tones between 1.1 times the lower Nyquist rate
and the source's. Images are what a tone within the band leaves outside of it, after going up.
"""

import math
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from basilar.dsp.resample import resample

METHODS: dict[str, dict[str, Any]] = {
    "sinc_kaiser": {"method": "sinc_kaiser"},
    "soxr, very_high": {"method": "soxr", "quality": "very_high"},
    "soxr, high": {"method": "soxr", "quality": "high"},
    "polyphase": {"method": "polyphase"},
    "sinc_hann": {"method": "sinc_hann"},
}
TONES = 40


def tone(frequency: float, rate: int) -> NDArray[np.float32]:
    return np.sin(2 * np.pi * frequency * np.arange(rate) / rate).astype(np.float32)


def inner(y: NDArray[np.float32], rate: int) -> NDArray[np.float64]:
    """The middle half second, where no filter sees an end."""
    return y[rate // 4 : 3 * rate // 4].astype(np.float64)


def decibel(ratio: float) -> float:
    return 20 * math.log10(max(ratio, 1e-10))


def gain(y: NDArray[np.float64], frequency: float, rate: int) -> tuple[float, float]:
    """Amplitude of a tone in `y`, by least squares, and the RMS of the rest times root two."""
    t = 2 * np.pi * frequency * (np.arange(y.size) + rate // 4) / rate
    basis = np.stack([np.sin(t), np.cos(t)], axis=1)
    weights, *_ = np.linalg.lstsq(basis, y, rcond=None)
    rest = y - basis @ weights
    return float(np.hypot(*weights)), float(np.sqrt(2 * (rest**2).mean()))


def measure(source_rate: int, sample_rate: int, options: dict[str, Any]) -> tuple[float, ...]:
    lower = min(source_rate, sample_rate) / 2
    gains, images, aliases = [], [], [1e-10]
    for frequency in np.geomspace(50, 0.9 * lower, TONES):
        y = resample(
            tone(frequency, source_rate),
            source_rate=source_rate,
            sample_rate=sample_rate,
            **options,
        )
        amplitude, rest = gain(inner(y, sample_rate), frequency, sample_rate)
        gains.append(abs(decibel(amplitude)))
        images.append(rest)
    if sample_rate < source_rate:
        for frequency in np.linspace(1.1 * lower, 0.98 * source_rate / 2, TONES):
            y = resample(
                tone(frequency, source_rate),
                source_rate=source_rate,
                sample_rate=sample_rate,
                **options,
            )
            aliases.append(math.sqrt(2 * (inner(y, sample_rate) ** 2).mean()))
    return max(gains), decibel(max(aliases)), decibel(max(images))


def main() -> None:
    noise = np.random.default_rng(0).standard_normal(60 * 44100).astype(np.float32)
    for source_rate, sample_rate in ((44100, 22050), (44100, 16000), (16000, 22050)):
        print(f"\n{source_rate} Hz to {sample_rate} Hz")
        for name, options in METHODS.items():
            ripple, alias, image = measure(source_rate, sample_rate, options)
            started = time.perf_counter()
            resample(noise, source_rate=source_rate, sample_rate=sample_rate, **options)
            speed = noise.size / source_rate / (time.perf_counter() - started)
            aliases = f"{alias:7.1f}" if sample_rate < source_rate else "      -"
            print(
                f"  {name:18} ripple {ripple:9.6f} dB  aliases {aliases} dB  "
                f"images {image:7.1f} dB  {speed:8.0f}x real time"
            )


if __name__ == "__main__":
    main()
