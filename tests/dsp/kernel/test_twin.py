"""The twin against NumPy's transforms in float64, and against plain statements of its steps."""

import numpy as np
import pytest

from basilar.dsp.compress import log
from basilar.dsp.framing import Framing
from basilar.dsp.kernel import Bands, Bank, Logarithm, Program, twin


def rows(program, *signals):
    out = np.empty((sum(program.n_frames(y.size) for y in signals), program.width), np.float32)
    assert twin.Plan(program).run(signals, out) == len(out)
    return out


def log_of(unit_scale=1.0, **settings):
    series = (1.999999998631318, 0.666668153381504, 0.39974850517843474, 0.2992439046949046)
    return Logarithm(
        **{"floor": 1e-10, "add": False} | settings,
        series=tuple(unit_scale * c for c in series),
        ln2=unit_scale * np.log(2) / 2**23,
    )


def test_outputs_are_made_of_the_spectrum(noise):
    y, window = noise(3000), np.hanning(400).astype(np.float32)
    z = rows(Program(window, 160, 400, output="complex"), y).reshape(-1, 201, 2)
    power = z[..., 0] * z[..., 0] + z[..., 1] * z[..., 1]
    assert rows(Program(window, 160, 400), y).tobytes() == power.tobytes()
    magnitude = rows(Program(window, 160, 400, output="magnitude"), y)
    assert magnitude.tobytes() == np.sqrt(power).tobytes()


def test_filters_are_sums_in_four_parts(noise):
    y, window = noise(3000), np.hanning(400).astype(np.float32)
    matrix = np.random.default_rng(0).random((5, 201)).astype(np.float32)
    matrix[0, 7:] = 0
    matrix[1] = 0
    power = rows(Program(window, 160, 400), y)
    expected = np.zeros((len(power), 5, 4), np.float32)
    for m, row in enumerate(matrix):
        first = int(np.flatnonzero(row)[0]) if row.any() else 0
        for i, weight in enumerate(np.trim_zeros(row)):
            expected[:, m, i % 4] += power[:, first + i] * weight
    sums = (expected[..., 0] + expected[..., 1]) + (expected[..., 2] + expected[..., 3])
    got = rows(Program(window, 160, 400, bank=Bank.of(matrix)), y)
    assert got.tobytes() == sums.tobytes()


@pytest.mark.parametrize("add", [False, True])
def test_the_logarithm_is_that_of_compress(add, noise):
    y, window = noise(3000), np.hanning(400).astype(np.float32)
    y[500:900] = 0
    power = rows(Program(window, 160, 400), y)
    scale = 10 / np.log(10)
    settings = {"gain": 0.5, "offset": 3.0, "factor": 0.25}
    program = Program(window, 160, 400, log=log_of(scale, floor=1e-3, add=add, **settings))
    expected = log(
        power * np.float32(0.5), unit="db", floor=1e-3, floor_mode="add" if add else "clip"
    )
    expected = (expected + np.float32(3)) * np.float32(0.25)
    assert rows(program, y).tobytes() == expected.tobytes()


def test_what_is_infinite_or_not_a_number_stays_so():
    y = np.ones(80, np.float32)
    y[10], y[30] = np.inf, np.nan
    program = Program(np.ones(16, np.float32), 16, 16, log=log_of())
    with np.errstate(all="ignore"):
        got = rows(program, y)
    assert not np.isfinite(got[0]).any()
    assert np.isnan(got[1]).all()
    assert np.isfinite(got[2:]).all()


@pytest.mark.parametrize("remove_dc", [False, True])
@pytest.mark.parametrize("preemphasis", [0.0, 0.97])
def test_conditioning_is_that_of_float64(preemphasis, remove_dc, noise):
    y = noise(2000) + np.float32(0.5)
    framing = Framing(
        *(512, 160, 400, "povey"),
        **{"center": False, "align": "left", "preemphasis": preemphasis, "remove_dc": remove_dc},
    )
    program = Program(
        framing.table, 160, 400, output="complex", preemphasis=preemphasis, remove_dc=remove_dc
    )
    got = rows(program, y).view(np.complex64)
    frames = np.lib.stride_tricks.sliding_window_view(y.astype(np.float64), 400)[::160]
    scale = np.abs(np.fft.rfft(frames, 512)).max()
    if remove_dc:
        frames = frames - frames.mean(axis=1, keepdims=True)
    before = np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)
    frames = np.pad(frames - preemphasis * before, [(0, 0), (0, 112)])
    expected = np.fft.rfft(frames * framing.table)
    np.testing.assert_allclose(got, expected, rtol=0, atol=2e-7 * scale)


def conditioned(framing, y):
    """Kaldi's conditioning by its definition, in float64."""
    frames_tn = framing.frames(y).astype(np.float64)
    if framing.remove_dc:
        frames_tn -= frames_tn.mean(axis=1, keepdims=True)
    before = np.concatenate([frames_tn[:, :1], frames_tn[:, :-1]], axis=1)
    return frames_tn - framing.preemphasis * before


@pytest.mark.parametrize("remove_dc", [True, False])
@pytest.mark.parametrize("preemphasis", [0.0, 0.97])
@pytest.mark.parametrize("hop_length", [160, 77])
@pytest.mark.parametrize("offset", [0.0, 10.0])
def test_conditioning_by_its_definition(noise, remove_dc, preemphasis, hop_length, offset):
    y = noise(4000) / np.abs(noise(4000)).max() + np.float32(offset)
    framing = Framing(
        512,
        hop_length,
        400,
        window="rectangular",
        align="left",
        center=False,
        remove_dc=remove_dc,
        preemphasis=preemphasis,
    )
    program = Program(framing.table, hop_length, 400, preemphasis=preemphasis, remove_dc=remove_dc)
    out = twin._conditioned(framing.frames(y).T, program).T
    # Samples of 11 have an ulp of 1e-6, and so has what is left of them, (1 - preemphasis) of it;
    # their mean is known to another. Differences of samples, up to 2, have one of 1.2e-7.
    left = (1 - preemphasis) * 2e-6 * (offset > 0) + 2.4e-7
    np.testing.assert_allclose(out, conditioned(framing, y), rtol=0, atol=left)


def test_arrays_of_other_kinds_are_refused():
    plan = twin.Plan(Program(np.ones(4, np.float32), 4, 4))
    with pytest.raises(ValueError, match=r"must be float32 \(2, 3\)"):
        plan.run((np.ones(8, np.float32),), np.empty((2, 4), np.float32))
    with pytest.raises(TypeError, match="must be of float32"):
        plan.run((np.ones(8),), np.empty((2, 3), np.float32))


@pytest.mark.parametrize("n_points", [6, 13, 200])
def test_bands_are_filters_at_a_low_rate(noise, n_points):
    """By its definition in float64: of filters below 0 Hz and above half the rate, too."""
    n_fft, rng = 96, np.random.default_rng(n_points)
    start = np.array([-20, 3, 40], np.int32)
    weights = [rng.standard_normal(n).astype(np.float32) for n in (50, 17, 40)]
    turns, phases = (rng.standard_normal((n, 2)).astype(np.float32) for n in (49, 3))
    bands = Bands(n_points, 2, n_points - 2, start, tuple(weights), turns, phases)
    y = noise(n_fft)
    program = Program(np.ones(n_fft, np.float32), n_fft, n_fft, output="complex", bands=bands)
    got = rows(program, y).view(np.complex64).reshape(-1, 3)
    x = np.fft.rfft(y.astype(np.float64)) * (turns[:, 0] + 1j * turns[:, 1])
    for m, (first, w) in enumerate(zip(start.tolist(), weights, strict=True)):
        points = np.zeros(n_points, complex)
        for k, weight in enumerate(w.tolist(), first):
            mirrored = k < 0 or 2 * k > n_fft
            value = np.conj(x[-k if k < 0 else n_fft - k]) if mirrored else x[k]
            points[k % n_points] += value * weight
        expected = np.fft.ifft(points) * n_points * (phases[m, 0] + 1j * phases[m, 1])
        assert np.abs(got[:, m] - expected[2:]).max() < 1e-5 * np.abs(expected).max()
    for output, power in (("magnitude", 1), ("power", 2)):
        program = Program(np.ones(n_fft, np.float32), n_fft, n_fft, output=output, bands=bands)
        unturned = np.abs(got) / np.hypot(phases[:, 0], phases[:, 1])
        np.testing.assert_allclose(rows(program, y).reshape(-1, 3), unturned**power, rtol=1e-4)


def test_a_lower_rate_is_the_inverse_transform_of_the_lower_bins(noise):
    n_fft, lowpass = 240, np.random.default_rng(0).random(31).astype(np.float32)
    nothing = np.zeros(0, np.int32), (), np.ones((121, 2), np.float32), np.ones((0, 2), np.float32)
    bands = Bands(1, 0, 1, *nothing, lowpass=lowpass, low_lead=7, n_low=50)
    y, lower = noise(3 * n_fft), np.empty((3, 50), np.float32)
    program = Program(np.ones(n_fft, np.float32), n_fft, n_fft, bands=bands)
    twin.Plan(program).run((y,), None, lower)
    bins = np.fft.rfft(y.reshape(3, -1).astype(np.float64))[:, :31] * lowpass
    expected = np.fft.irfft(bins, 60) * 60
    np.testing.assert_allclose(lower, expected[:, 7:57], atol=1e-5 * np.abs(expected).max())


def test_samples_are_the_windowed_frames(noise):
    y, window = noise(100), np.hanning(10).astype(np.float32)
    program = Program(window, 4, 8, output="samples")
    expected = np.lib.stride_tricks.sliding_window_view(y, 8)[::4] * window[:8]
    np.testing.assert_array_equal(rows(program, y)[:, :8], expected)
    assert not rows(program, y)[:, 8:].any()
