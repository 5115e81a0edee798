import librosa
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from basilar.dsp.pcen import exp2, log2, pcen

HALF_ULP = 2.0**-24
# librosa's defaults, but for eps, whose default is the same.
SETTINGS = {
    "sample_rate": 22050,
    "hop_length": 512,
    "gain": 0.98,
    "bias": 2.0,
    "power": 0.5,
    "time_constant": 0.4,
    "eps": 1e-6,
}
VARIANTS = [
    {},
    {"power": 0.25, "bias": 10.0, "gain": 0.8, "time_constant": 0.06},
    {"power": 0.98, "bias": 1e-3},
    {"power": 1.0},
    {"power": 0.0},
    {"bias": 0.0},
    {"bias": 0.0, "power": 0.01},
    {"bias": 0.0, "power": 0.0},
    {"gain": 0.0},
    {"gain": 1.0, "eps": 1e-30},
    {"time_constant": 1e-3, "hop_length": 441, "sample_rate": 44100},
]


def energies(scale=1.0, shape=(300, 7), seed=0):
    """Gamma noise, with two seconds' silence and a sudden burst in it."""
    x = np.random.default_rng(seed).gamma(0.5, scale, shape)
    x[40:130] = 0
    x[200:210] *= 1e6
    return x.astype(np.float32)


def theirs(x_tm, settings):
    """librosa's, in float64."""
    names = {"sample_rate": "sr"}
    with np.errstate(divide="ignore"):  # it takes log(0) where bias is 0
        arguments = {names.get(name, name): value for name, value in settings.items()}
        return librosa.pcen(x_tm.astype(np.float64), axis=0, **arguments)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 2.0**31])
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_equals_librosa(variant, scale):
    x_tm = energies(scale)
    ours, _ = pcen(x_tm, **SETTINGS | variant)
    assert ours.dtype == np.float32
    # Half an ulp for the rounding to float32; the rest, of polynomials and of librosa's own float64
    # logarithms of sums, is below a thousandth of that.
    expected = theirs(x_tm, SETTINGS | variant)
    np.testing.assert_allclose(ours, expected, rtol=1.001 * HALF_ULP, atol=1e-40)


def test_log2_is_accurate_over_all_magnitudes():
    x = 2.0 ** np.arange(-1020, 1020)[:, None] * np.linspace(1, 2, 1001)[:-1]
    exact = np.log2(x.astype(np.longdouble))
    # Relative near 1 as well, where the logarithm crosses 0: x - 1 is exact there.
    assert (np.abs(log2(x) - exact) <= 3e-14 * np.abs(exact)).all()


def test_exp2_is_accurate_over_its_range():
    y = np.linspace(-1022, 1023, 2_000_003)
    error = np.abs(exp2(y) / np.exp2(y.astype(np.longdouble)) - 1)
    assert error.max() < 3e-12


def test_float32_powers_are_rounded_correctly_almost_always():
    x = np.geomspace(1e-38, 1e38, 1_000_003)
    ours = exp2(-0.98 * log2(x)).astype(np.float32)
    exact = (x.astype(np.longdouble) ** np.longdouble(-0.98)).astype(np.float32)
    # An error of 3e-12 moves a value across a rounding border in about 1 of 10,000 cases, by 1 ulp.
    wrong = np.flatnonzero(ours != exact)
    assert len(wrong) < 300
    np.testing.assert_array_equal(
        np.abs(ours.view(np.int32)[wrong] - exact.view(np.int32)[wrong]), 1
    )


@given(st.integers(-1022, 1023))
def test_whole_powers_of_two_are_exact(k):
    assert exp2(np.array([float(k)]))[0] == 2.0**k
    assert log2(np.array([2.0**k]))[0] == k


@given(
    cuts=st.lists(st.integers(0, 300), max_size=8),
    n_bands=st.sampled_from([1, 7, 128]),
    power=st.sampled_from([0.5, 0.3]),
)
def test_any_division_into_calls_gives_the_same_bits(cuts, n_bands, power):
    x_tm = energies(1e3, (300, n_bands))
    settings = SETTINGS | {"power": power}
    whole, last = pcen(x_tm, **settings)
    state, parts = None, []
    for part in np.split(x_tm, sorted(cuts)):
        values, state = pcen(part, **settings, state=state)
        parts.append(values)
    assert np.concatenate(parts).tobytes() == whole.tobytes()
    assert state.tobytes() == last.tobytes()


def test_each_band_has_the_same_bits_alone():
    x_tm = energies(shape=(300, 40))
    together, _ = pcen(x_tm, **SETTINGS)
    for band in range(0, 40, 13):
        alone, _ = pcen(x_tm[:, band : band + 1], **SETTINGS)
        assert alone.tobytes() == together[:, band : band + 1].tobytes()


def test_silence_is_zero_and_the_smoother_forgets():
    values, state = pcen(np.zeros((2000, 3), np.float32), **SETTINGS)
    assert not values.any()
    # b = 0.0564 for 17.2 frames: after 2000 of them nothing of the initial 1 is left.
    assert (state < 1e-30).all()


def test_a_steady_band_becomes_independent_of_its_level():
    # With a gain of 1 and no eps to speak of, E / M tends to 1: PCEN to sqrt(3) - sqrt(2).
    levels = np.float32([1e-3, 1.0, 1e6])
    values, _ = pcen(np.tile(levels, (2000, 1)), **SETTINGS | {"gain": 1.0, "eps": 1e-30})
    np.testing.assert_allclose(values[-1], np.sqrt(3) - np.sqrt(2), rtol=2 * HALF_ULP)


def test_inputs_are_not_changed_and_the_state_is_no_view_of_them():
    x_tm, state = energies(), np.ones(7)
    before = x_tm.copy()
    _, after = pcen(x_tm, **SETTINGS, state=state)
    np.testing.assert_array_equal(x_tm, before)
    np.testing.assert_array_equal(state, 1)
    _, unchanged = pcen(x_tm[:0], **SETTINGS, state=after)
    assert not np.shares_memory(unchanged, after)
    np.testing.assert_array_equal(unchanged, after)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"gain": 1.5}, "gain: 1.5 must be within 0 to 1"),
        ({"power": -0.5}, "power: -0.5 must be within 0 to 1"),
        ({"power": np.nan}, "power: nan must be within"),
        ({"bias": -1.0}, r"bias: -1.0 must be 0, or at least 1\.18e-38 and finite"),
        ({"eps": 0.0}, r"eps: 0.0 must be at least 1\.18e-38"),
        ({"time_constant": 0.0}, "time_constant: 0.0 must be above 0 and finite"),
        ({"hop_length": 0}, "hop_length: 0 must be above 0"),
        ({"sample_rate": np.inf}, "sample_rate: inf must be above 0 and finite"),
        ({"state": np.ones(1)}, r"state: shape \(1,\) must be \(7,\), one value a band"),
    ],
)
def test_impossible_settings_are_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        pcen(energies(), **SETTINGS | setting)
