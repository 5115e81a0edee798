import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from basilar.dsp import compress
from basilar.dsp.kernel import over_rows

UNITS = {"ln": np.log, "log10": np.log10, "db": lambda x: 10 * np.log10(x)}


@pytest.mark.parametrize("unit", UNITS)
def test_error_against_float64_over_all_magnitudes(unit):
    # Every exponent, and mantissas on both sides of the fold at sqrt(1/2).
    x = (2.0 ** np.arange(-125, 127)[:, None] * np.linspace(1, 2, 4001)[:-1]).astype(np.float32)
    error = np.abs(compress.log(x, unit=unit, floor=1.2e-38) - UNITS[unit](x.astype(np.float64)))
    # Three roundings to float32: of the constant, of exponent times constant, and of the sum.
    largest = np.abs(UNITS[unit](x.astype(np.float64))).max()
    assert error.max() <= 3 * 2.0**-24 * largest


def test_decibels_are_within_a_hundred_thousandth():
    x = np.geomspace(1e-10, 1e10, 1_000_003).astype(np.float32)
    ours = compress.log(x, unit="db", floor=1e-10)
    assert np.abs(ours - 10 * np.log10(x.astype(np.float64))).max() < 8e-6


def test_one_is_zero_exactly():
    assert compress.log(np.ones(3, np.float32), unit="db", floor=1e-10).tolist() == [0, 0, 0]


@given(st.lists(st.floats(0, 2.0**66, width=32), min_size=2, max_size=50))
def test_order_is_kept(values):
    x = np.sort(np.array(values, np.float32))
    # Neighbouring floats may come out in the wrong order by the rounding of a sum: 2 ulp of 200.
    assert (np.diff(compress.log(x, unit="db", floor=1e-20)) >= -3.1e-5).all()


def test_floor_modes():
    x = np.array([0.0, 0.5, 4.0], np.float32)
    clipped = compress.log(x, unit="ln", floor=1.0)
    added = compress.log(x, unit="ln", floor=1.0, floor_mode="add")
    np.testing.assert_allclose(clipped, np.log([1, 1, 4]), atol=1e-7)
    np.testing.assert_allclose(added, np.log([1, 1.5, 5]), atol=2e-7)


def test_shape_is_kept_across_blocks_and_the_input_is_not_changed():
    x = np.full((3, 20_001), 100, np.float32)
    out = compress.log(x.T, unit="log10", floor=1e-3)
    assert out.shape == (20_001, 3)
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, 2, atol=1e-6)
    assert (x == 100).all()


@pytest.mark.parametrize("floor_mode", ["clip", "add"])
def test_what_is_not_finite_stays_so_and_changes_nothing_beside_it(floor_mode):
    x = np.random.default_rng(0).random(200_000).astype(np.float32)
    clean = compress.log(x, unit="db", floor=1e-10, floor_mode=floor_mode)
    x[70_000], x[70_001] = np.nan, np.inf
    found = compress.log(x, unit="db", floor=1e-10, floor_mode=floor_mode)
    assert np.isnan(found[70_000])
    assert found[70_001] == np.inf
    found[70_000:70_002] = clean[70_000:70_002]
    assert found.tobytes() == clean.tobytes()


@pytest.mark.parametrize("floor", [0.0, -1.0, 1e-39, np.nan, np.inf])
def test_useless_floors_are_refused(floor):
    with pytest.raises(ValueError, match=r"floor: .* must be at least 1\.18e-38 and finite"):
        compress.log(np.ones(1, np.float32), unit="ln", floor=floor)


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="'dB' is not one of ln, log10, db"):
        compress.log(np.ones(1, np.float32), unit="dB", floor=1)
    with pytest.raises(ValueError, match="'max' is not one of clip, add"):
        compress.log(np.ones(1, np.float32), unit="db", floor=1, floor_mode="max")


def test_limits_are_of_the_clip_and_in_decibels_whatever_the_unit():
    power = np.array([[1e-20, 10.0], [7.9e-8, 8.0e-8]], np.float32)
    for unit, in_db in (("db", 1.0), ("log10", 10.0), ("ln", 10 / np.log(10))):
        log = compress.Log(unit=unit, top_db=80.0)
        x = log.of_clip(over_rows(power, log=log.of_frame)) * in_db
        np.testing.assert_allclose(x, [[-70, 10], [-70, -70]], atol=1e-4)
        assert not log.by_frame


def test_reference_gain_shift_and_factor():
    power = np.array([[1.0, 100.0]], np.float32)

    def values(**conventions):
        log = compress.Log(**conventions)
        return log.of_clip(over_rows(power, log=log.of_frame))[0]

    np.testing.assert_allclose(values(reference=10.0), [-10, 10], atol=1e-5)
    np.testing.assert_allclose(values(reference="max"), [-20, 0], atol=1e-5)
    np.testing.assert_allclose(values(gain=100.0, unit="log10"), [2, 4], atol=1e-6)
    np.testing.assert_allclose(values(shift=-3.0, factor=0.5), [-1.5, 8.5], atol=1e-5)
    whisper = {"unit": "log10", "top_db": 80.0, "shift": 4.0, "factor": 0.25}
    np.testing.assert_allclose(values(**whisper), [1, 1.5], atol=1e-6)


def test_means_of_the_clip_are_subtracted_last():
    power = np.random.default_rng(0).uniform(1e-3, 1, (3000, 5)).astype(np.float32)
    plain, centred = compress.Log(shift=7.0), compress.Log(shift=7.0, subtract_mean=True)
    x = plain.of_clip(over_rows(power, log=plain.of_frame))
    y = centred.of_clip(over_rows(power, log=centred.of_frame))
    np.testing.assert_allclose(y, x - x.mean(axis=0, dtype=np.float64), atol=2e-6)
    assert not centred.by_frame


@pytest.mark.parametrize(
    "conventions",
    [{}, {"shift": 1.0, "factor": 2.0}, {"top_db": 80.0, "shift": 1.0}, {"reference": 2.0}],
)
def test_a_single_value_is_what_it_is_in_an_array(conventions):
    log = compress.Log(**conventions)
    x = over_rows(np.full((1, 2), 3, np.float32), log=log.of_frame)
    assert log.of_value(3.0) == log.of_clip(x)[0, 0]
