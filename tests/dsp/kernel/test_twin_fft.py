"""The twin's transforms against NumPy's in float64."""

import numpy as np
import pytest

from basilar.dsp.kernel import Program, twin
from basilar.dsp.kernel.tables import fft
from basilar.dsp.kernel.twin_fft import Complex, complex_fft

LENGTHS = [*range(1, 129), 200, 256, 300, 400, 441, 512, 551, 640, 768, 800, 1000, 1024, 1102]
LENGTHS += [257, 1323, 2 * 251, 2048, 4096, 8192]


@pytest.mark.parametrize("n_fft", LENGTHS)
def test_spectra_are_those_of_float64(n_fft, noise):
    rng = np.random.default_rng(n_fft)
    window = rng.random(n_fft).astype(np.float32)
    y = noise(5 * n_fft, n_fft)
    program = Program(window, n_fft, n_fft, output="complex")
    got = np.empty((5, n_fft // 2 + 1), np.complex64)
    twin.Plan(program).run((y,), got.view(np.float32))
    expected = np.fft.rfft(y.reshape(5, n_fft).astype(np.float64) * window)
    # In float32, a few roundings for each factor of n; a large prime is a plain sum of as many.
    scale = np.sqrt((np.abs(expected) ** 2).mean())
    assert np.abs(got - expected).max() < (6e-6 if n_fft in (257, 2 * 251) else 3e-6) * scale
    assert (got.imag[:, 0] == 0).all()
    if n_fft % 2 == 0:
        assert (got.imag[:, -1] == 0).all()


@pytest.mark.parametrize("points", [1, 2, 3, 12, 16, 49, 128, 360, 2048])
def test_complex_transforms_are_those_of_float64(points):
    z = np.random.default_rng(points).standard_normal((2, 3, points, 4)).astype(np.float32)
    got = complex_fft(Complex(*z), fft(points))
    expected = np.fft.fft(z[0].astype(np.float64) + 1j * z[1], axis=1)
    difference = np.abs(got.re + 1j * got.im.astype(np.float64) - expected)
    assert difference.max() < 3e-6 * np.sqrt((np.abs(expected) ** 2).mean())
