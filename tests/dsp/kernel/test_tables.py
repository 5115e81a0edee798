import numpy as np
import pytest

from basilar.dsp.kernel.tables import Bands, Bank, Logarithm, Program, roots, sine, transform


def test_sines_are_those_of_the_library():
    turns = np.linspace(-3, 3, 10_001)
    np.testing.assert_allclose(sine(turns), np.sin(2 * np.pi * turns), rtol=0, atol=3e-15)


def test_roots_of_unity_are_exact_where_they_can_be():
    assert roots(np.arange(4), 4).tolist() == [[1, 0], [0, -1], [-1, 0], [0, 1]]
    eighth = roots(np.array([1, 3]), 8)
    assert (np.abs(eighth) == np.float32(np.sqrt(0.5))).all()


@pytest.mark.parametrize("n_fft", [1, 2, 3, 12, 400, 441, 512, 1102, 2039, 2048, 3 * 2**14])
def test_the_passes_multiply_to_the_length(n_fft):
    t = transform(n_fft)
    assert t.a * t.second.points == n_fft
    assert int(np.prod(t.second.radices, dtype=np.int64)) == t.second.points
    assert len(t.second.turns) == len(t.second.radices)
    kept = {min(k, t.a - k) if k else 0 for k in t.column.tolist()}
    assert kept == set(range(t.a // 2 + 1))  # one of each pair


def test_a_bank_is_its_matrix():
    rng = np.random.default_rng(0)
    matrix = rng.random((7, 20)).astype(np.float32)
    matrix[rng.random(matrix.shape) < 0.6] = 0
    matrix[3] = 0
    bank = Bank.of(matrix)
    assert bank.shape == (7, 20)
    np.testing.assert_array_equal(bank.toarray(), matrix)
    assert all(len(w) == 0 or (w[0] != 0 and w[-1] != 0) for w in bank.weights)


def test_a_program_of_another_size_is_refused():
    window = np.ones(8, np.float32)
    bank = Bank.of(np.ones((2, 4), np.float32))
    with pytest.raises(ValueError, match="4 bins must be 5"):
        Program(window, 4, 8, bank=bank)
    log = Logarithm(1e-10, False, (2.0, 0.7, 0.4, 0.3), 1e-7)
    with pytest.raises(ValueError, match="no filters and no logarithm"):
        Program(window, 4, 8, output="complex", log=log)
    bands = Bands(1, 0, 1, np.zeros(0, np.int32), (), np.ones((5, 2)), np.ones((0, 2)))
    with pytest.raises(ValueError, match="bands: they are of spectra, without filters"):
        Program(window, 4, 8, log=log, bands=bands)
