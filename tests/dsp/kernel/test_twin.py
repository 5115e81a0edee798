"""The twin against NumPy's transforms in float64, and against plain statements of its steps."""

import numpy as np
import pytest

from basilar.dsp.compress import log
from basilar.dsp.framing import Framing
from basilar.dsp.kernel import Bank, Logarithm, Program, twin

LENGTHS = [*range(1, 129), 200, 256, 300, 400, 441, 512, 551, 640, 768, 800, 1000, 1024, 1102]
LENGTHS += [257, 1323, 2 * 251, 2048, 4096, 8192]


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


@pytest.mark.parametrize("n_fft", LENGTHS)
def test_spectra_are_those_of_float64(n_fft, noise):
    rng = np.random.default_rng(n_fft)
    window = rng.random(n_fft).astype(np.float32)
    y = noise(5 * n_fft, n_fft)
    program = Program(window, n_fft, n_fft, output="complex")
    got = rows(program, y).view(np.complex64)
    expected = np.fft.rfft(y.reshape(5, n_fft).astype(np.float64) * window)
    # In float32, a few roundings for each factor of n; a large prime is a plain sum of as many.
    scale = np.sqrt((np.abs(expected) ** 2).mean())
    assert np.abs(got - expected).max() < (6e-6 if n_fft in (257, 2 * 251) else 3e-6) * scale
    assert (got.imag[:, 0] == 0).all()
    if n_fft % 2 == 0:
        assert (got.imag[:, -1] == 0).all()


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
