import numpy as np
import pytest
import soxr

from dsp.resample import resample


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


def test_equal_rates_change_nothing(noise):
    y = noise(100)
    assert resample(y, source_rate=8000, sample_rate=8000) is y


def test_impossible_arguments_are_refused(noise):
    with pytest.raises(ValueError, match="'best' is not one of very_high, high"):
        resample(noise(10), source_rate=8000, sample_rate=16000, quality="best")
    with pytest.raises(ValueError, match="0 Hz to 16000 Hz is not possible"):
        resample(noise(10), source_rate=0, sample_rate=16000)
