import math

import numpy as np
import pytest
import scipy
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from basilar.dsp import resample as resampling
from basilar.dsp.resample import in_blocks, resample, resample_blocks


@pytest.mark.parametrize(("source_rate", "sample_rate"), [(44100, 22050), (8000, 22050)])
def test_a_tone_stays_where_it_is(source_rate, sample_rate):
    seconds = 2
    t = np.arange(seconds * source_rate) / source_rate
    y = resample(
        np.sin(2 * np.pi * 440 * t).astype(np.float32),
        source_rate=source_rate,
        sample_rate=sample_rate,
    )
    assert y.shape == (seconds * sample_rate,)
    expected = np.sin(2 * np.pi * 440 * np.arange(y.size) / sample_rate)
    # Away from the ends, where the filter sees the signal stop: pass-band ripple of soxr VHQ and
    # float32 are below 1e-6; no delay, since a hundredth of a sample would be 1e-3 off.
    inner = slice(sample_rate // 10, -sample_rate // 10)
    np.testing.assert_allclose(y[inner], expected[inner], atol=2e-6)


def test_what_lies_above_the_new_nyquist_frequency_is_gone():
    t = np.arange(44100) / 44100
    y = resample(
        np.sin(2 * np.pi * 15000 * t).astype(np.float32), source_rate=44100, sample_rate=22050
    )
    assert np.abs(y[2000:-2000]).max() < 1e-6  # -120 dB, the noise of float32


def test_qualities_are_soxrs(noise):
    y = noise(10_000)
    for quality, name in (("very_high", "VHQ"), ("high", "HQ")):
        ours = resample(y, source_rate=44100, sample_rate=16000, quality=quality)
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


@pytest.mark.parametrize("method", ["polyphase", "sinc_hann"])
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
    with pytest.raises(ValueError, match="'linear' is not one of soxr, polyphase, sinc_hann"):
        resample(noise(10), source_rate=8000, sample_rate=16000, method="linear")
    with pytest.raises(ValueError, match="0 Hz to 16000 Hz is not possible"):
        resample(noise(10), source_rate=0, sample_rate=16000)
    with pytest.raises(ValueError, match="from 1 to 192000 Hz is a ratio above 32768"):
        resample(noise(10), source_rate=1, sample_rate=192_000)
    # Rates without a common divisor: a filter for each of 95,989 phases.
    for method in ("polyphase", "sinc_hann"):
        with pytest.raises(ValueError, match=f'"{method}" from 95987 to 95989 Hz needs a filter'):
            resample(noise(10), source_rate=95_987, sample_rate=95_989, method=method)


@pytest.mark.parametrize("method", ["soxr", "polyphase", "sinc_hann"])
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
        patched.setattr(resampling, "_PIECES", block // 100 + 1)
        blocks = list(resample_blocks(in_blocks(mapped), **options))
    assert len(blocks) >= min(n_samples // block, 2) or method != "soxr"
    assert np.concatenate(blocks).tobytes() == whole.tobytes()
