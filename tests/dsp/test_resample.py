import math
from typing import get_args

import numpy as np
import pytest
import scipy
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from basilar.dsp import resample as resampling
from basilar.dsp.resample import Method, in_blocks, resample, resample_blocks


@pytest.mark.parametrize("method", ["sinc_kaiser", "soxr"])
@pytest.mark.parametrize(("source_rate", "sample_rate"), [(44100, 22050), (8000, 22050)])
def test_a_tone_stays_where_it_is(source_rate, sample_rate, method):
    seconds = 2
    t = np.arange(seconds * source_rate) / source_rate
    y = resample(
        np.sin(2 * np.pi * 440 * t).astype(np.float32),
        source_rate=source_rate,
        sample_rate=sample_rate,
        method=method,
    )
    assert y.shape == (seconds * sample_rate,)
    expected = np.sin(2 * np.pi * 440 * np.arange(y.size) / sample_rate)
    # Away from the ends, where the filter sees the signal stop: pass-band ripple of soxr VHQ and
    # float32 are below 1e-6; no delay, since a hundredth of a sample would be 1e-3 off.
    inner = slice(sample_rate // 10, -sample_rate // 10)
    np.testing.assert_allclose(y[inner], expected[inner], atol=2e-6)


@pytest.mark.parametrize("method", ["sinc_kaiser", "soxr"])
def test_what_lies_above_the_new_nyquist_frequency_is_gone(method):
    t = np.arange(44100) / 44100
    x = np.sin(2 * np.pi * 15000 * t).astype(np.float32)
    y = resample(x, source_rate=44100, sample_rate=22050, method=method)
    assert np.abs(y[2000:-2000]).max() < 1e-6  # -120 dB, the noise of float32


def amplitude(y, frequency, rate):
    """Of the tone of a frequency in Hz, by a window whose side lobes are below -200 dB."""
    inner = y[y.size // 4 : -(y.size // 4)].astype(np.float64)
    window = np.kaiser(inner.size, 25)
    tone = np.exp(-2j * np.pi * frequency / rate * np.arange(inner.size))
    return 2 * abs((inner * window * tone).sum()) / window.sum()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source_rate", "sample_rate"),
    [(44100, 22050), (44100, 16000), (48000, 44100), (8000, 48000), (16000, 44100), (7000, 6999)],
)
def test_sinc_kaiser_holds_what_it_promises(source_rate, sample_rate):
    """Ripple at most 0.01 dB, aliases and images below -140 dB, to 0.9 of the lower half rate."""
    nyquist = min(source_rate, sample_rate) / 2
    t = np.arange(2 * source_rate) / source_rate

    def resampled(frequency):
        y = np.sin(2 * np.pi * frequency * t).astype(np.float32)
        return resample(y, source_rate=source_rate, sample_rate=sample_rate, method="sinc_kaiser")

    gains, unwanted = [], []
    for frequency in np.array([0.011, 0.13, 0.37, 0.61, 0.8, 0.9]) * nyquist:
        y = resampled(frequency)
        gains.append(20 * np.log10(amplitude(y, frequency, sample_rate)))
        images = (source_rate - frequency, source_rate + frequency)
        unwanted += [amplitude(y, f, sample_rate) for f in images if f < sample_rate / 2]
    for frequency in np.array([1.1, 1.2, 1.37, 1.7, 1.99]) * nyquist:
        if frequency < source_rate / 2:
            alias = abs(frequency - sample_rate * round(frequency / sample_rate))
            unwanted.append(amplitude(resampled(frequency), alias, sample_rate))
    assert np.abs(gains).max() < 0.01
    assert np.max(unwanted, initial=0.0) < 1e-7
    assert unwanted or 0.9 < source_rate / sample_rate < 1.1


@pytest.mark.parametrize(("source_rate", "sample_rate"), [(3, 2), (2, 3), (147, 160), (5, 1)])
def test_sinc_kaiser_is_the_interpolation_it_says(noise, source_rate, sample_rate):
    """Its definition, one output at a time in float64."""
    y = noise(2003)
    ours = resample(y, source_rate=source_rate, sample_rate=sample_rate)
    assert ours.size == math.ceil(y.size * sample_rate / source_rate)
    cutoff = min(source_rate, sample_rate)
    for n in [0, 1, 7, ours.size // 2, ours.size - 1]:
        t = (np.arange(y.size) / source_rate - n / sample_rate) * cutoff
        inside = np.sqrt(np.clip(1 - (t / 48) ** 2, 0, 1))
        window = np.where(np.abs(t) <= 48, np.i0(14.9 * inside) / np.i0(14.9), 0)
        expected = (y * np.sinc(t) * window).sum() * cutoff / source_rate
        # Up to 480 float32 products of at most about 1, in four sums.
        np.testing.assert_allclose(ours[n], expected, rtol=0, atol=1e-6)


def test_qualities_are_soxrs(noise):
    y = noise(10_000)
    for quality, name in (("very_high", "VHQ"), ("high", "HQ")):
        ours = resample(y, source_rate=44100, sample_rate=16000, method="soxr", quality=quality)
        assert ours.tobytes() == soxr.resample(y, 44100, 16000, quality=name).tobytes()


RATES = [(44100, 22050), (8000, 22050), (48000, 16000), (44100, 16000), (22050, 44100)]


@pytest.mark.parametrize(("source_rate", "sample_rate"), RATES)
def test_polyphase_is_scipys(noise, source_rate, sample_rate):
    y = noise(20_011)
    divisor = math.gcd(source_rate, sample_rate)
    theirs = scipy.signal.resample_poly(
        y.astype(np.float64), sample_rate // divisor, source_rate // divisor
    )
    ours = resample(y, source_rate=source_rate, sample_rate=sample_rate, method="polyphase")
    # Up to 60 float32 products of about 0.1.
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=3e-7)


@pytest.mark.parametrize(("source_rate", "sample_rate"), RATES)
def test_sinc_hann_is_the_interpolation_it_says(noise, source_rate, sample_rate):
    """torchaudio's definition, one output at a time in float64."""
    y = noise(5003)
    ours = resample(y, source_rate=source_rate, sample_rate=sample_rate, method="sinc_hann")
    assert ours.size == math.ceil(y.size * sample_rate / source_rate)
    cutoff = 0.99 * min(source_rate, sample_rate)
    for n in [0, 1, 2, 777, 1501, ours.size - 2, ours.size - 1]:
        t = (np.arange(y.size) / source_rate - n / sample_rate) * cutoff
        window = np.where(np.abs(t) < 6, np.cos(np.pi * t / 12) ** 2, 0)
        expected = (y * np.sinc(t) * window).sum() * cutoff / source_rate
        np.testing.assert_allclose(ours[n], expected, rtol=0, atol=3e-7)


@pytest.mark.parametrize("method", ["sinc_kaiser", "polyphase", "sinc_hann"])
@given(
    n_samples=st.integers(1, 3000),
    rates=st.sampled_from([(3, 2), (2, 3), (1, 7), (7, 1), (147, 160)]),
)
def test_pieces_of_the_table_leave_nothing_out(method, n_samples, rates):
    y = np.random.default_rng(0).standard_normal(n_samples).astype(np.float32)
    source_rate, sample_rate = rates
    whole = resample(y, source_rate=source_rate, sample_rate=sample_rate, method=method)
    assert whole.size == math.ceil(n_samples * sample_rate / source_rate)
    # What is heard later changes nothing that lies far enough before it.
    longer = np.concatenate([y, np.zeros(500, np.float32)])
    extended = resample(longer, source_rate=source_rate, sample_rate=sample_rate, method=method)
    assert extended[: whole.size].tobytes() == whole.tobytes()


def test_equal_rates_change_nothing(noise):
    y = noise(100)
    assert resample(y, source_rate=8000, sample_rate=8000) is y


def test_impossible_arguments_are_refused(noise):
    with pytest.raises(ValueError, match="'best' is not one of very_high, high"):
        resample(noise(10), source_rate=8000, sample_rate=16000, quality="best")
    with pytest.raises(ValueError, match="'linear' is not one of sinc_kaiser, soxr, polyphase"):
        resample(noise(10), source_rate=8000, sample_rate=16000, method="linear")
    with pytest.raises(ValueError, match="0 Hz to 16000 Hz is not possible"):
        resample(noise(10), source_rate=0, sample_rate=16000)
    with pytest.raises(ValueError, match="from 1 to 192000 Hz is a ratio above 32768"):
        resample(noise(10), source_rate=1, sample_rate=192_000)
    # Rates without a common divisor: a filter for each of 767,951 phases.
    for method in ("sinc_kaiser", "polyphase", "sinc_hann"):
        with pytest.raises(ValueError, match=f'"{method}" from 767957 to 767951 Hz needs a filter'):
            resample(noise(10), source_rate=767_957, sample_rate=767_951, method=method)


@pytest.mark.parametrize("method", get_args(Method))
@settings(max_examples=25)
@given(
    n_samples=st.integers(1, 3000),
    block=st.integers(1, 1500),
    rates=st.sampled_from([(44100, 22050), (16000, 22050), (8000, 8000), (11025, 16000)]),
)
def test_blocks_are_the_whole(method, n_samples, block, rates):
    y = np.random.default_rng(n_samples).standard_normal(n_samples).astype(np.float32)
    options = {"source_rate": rates[0], "sample_rate": rates[1], "method": method}
    whole = resample(y, **options)
    mapped = np.ndarray.__new__(np.memmap, y.shape, y.dtype, y.tobytes())  # as artifacts are
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(resampling, "_BLOCK", block)
        blocks = list(resample_blocks(in_blocks(mapped), **options))
    assert len(blocks) >= min(n_samples // block, 2)
    assert np.concatenate(blocks).tobytes() == whole.tobytes()
