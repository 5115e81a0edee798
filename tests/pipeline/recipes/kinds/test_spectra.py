import numpy as np
import pytest

from tests.pipeline.recipes.kinds.test_registry import kind_of


def compute(kind, y, **values):
    return kind_of(kind, **values).compute([y], sample_rate=8000)[0]


def test_a_waveform_is_its_samples(noise):
    y = noise(500)
    np.testing.assert_array_equal(compute("waveform", y), y[:, None])


def test_magnitude_power_and_their_logarithms_are_of_one_transform(noise):
    y = noise(2000)
    x = compute("stft", y)
    np.testing.assert_allclose(compute("magnitude", y), np.abs(x), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(compute("power", y), np.abs(x) ** 2, rtol=1e-5, atol=1e-6)
    floor = 1e-3
    logarithm = compute("log_magnitude", y, floor=floor)
    expected = np.log(np.abs(x) + floor)
    np.testing.assert_allclose(logarithm, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("frequency", [1000.0, 2500.0])
def test_statistics_of_spectra_find_a_tone(frequency):
    y = np.sin(2 * np.pi * frequency * np.arange(4000) / 8000).astype(np.float32)
    rms, _, centroid = compute("spectral", y)[10, :3]
    assert abs(rms - 0.5**0.5) < 1e-3  # of a sine
    assert abs(centroid - frequency) < 8000 / 64  # a bin
