import numpy as np
import pytest
import scipy

from basilar.dsp.dither import dither, normal


def test_values_are_normal():
    x = normal(200_000, seed=7).astype(np.float64)
    # Standard errors of 200,000 draws: 2e-3 of the mean, 2e-3 of the variance; four of them.
    assert abs(x.mean()) < 0.009
    assert abs(x.var() - 1) < 0.013
    # A sum of twelve has an excess kurtosis of -0.1, and no skew.
    assert abs(scipy.stats.skew(x)) < 0.03
    assert abs(scipy.stats.kurtosis(x) + 0.1) < 0.05
    assert np.abs(np.corrcoef(x[:-1], x[1:])[0, 1]) < 0.01
    assert np.abs(x).max() <= 6


def test_generator_is_splitmix64():
    """The published first outputs for seed 1234567, cut into 16-bit values and summed."""
    words = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    parts = [(word >> shift) & 0xFFFF for word in words for shift in (0, 16, 32, 48)]
    assert normal(1, seed=1234567)[0] == np.float32((sum(parts) - 393_210) / 65536)


def test_noise_is_a_function_of_the_signal(noise):
    y = noise(1000)
    before = y.copy()
    once, twice = dither(y, amplitude=1e-3), dither(y, amplitude=1e-3)
    assert once.tobytes() == twice.tobytes()
    assert y.tobytes() == before.tobytes()
    other = y.copy()
    other[0] += np.float32(1e-6)
    difference = (dither(other, amplitude=1e-3) - other) - (once - y)
    assert difference.std() > 1e-3
    assert dither(y, amplitude=0).tobytes() == y.tobytes()


def test_useless_amplitudes_are_refused():
    for amplitude in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="must be 0 or more and finite"):
            dither(np.zeros(1, np.float32), amplitude=amplitude)
