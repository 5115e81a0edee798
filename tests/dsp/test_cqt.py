import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile as sf
from hypothesis import given, settings
from hypothesis import strategies as st

from basilar.dsp.cqt import Cqt, _stages, cqt, magnitude, power

RATE = 22050
# Small enough for a direct sum: four octaves, so two rates, and filters of 2,929 to 184 samples.
SMALL = Cqt(hop_length=128, fmin=130.0, n_bins=48, bins_per_octave=12)


def direct_sum(y, parameters, frames=None, sample_rate=RATE):
    """The definition in float64, with librosa's filters at the full rate: (frames, n_bins)."""
    frequencies = parameters.frequencies()
    filters, lengths = librosa.filters.wavelet(
        freqs=frequencies,
        sr=sample_rate,
        filter_scale=parameters.filter_scale,
        gamma=parameters.gamma,
        alpha=relative_bandwidth(parameters),
        pad_fft=False,
        dtype=np.complex128,
    )
    width = filters.shape[1]
    padded = np.pad(y.astype(np.float64), width, mode=parameters.pad_mode)
    if frames is None:
        frames = np.arange(1 + len(y) // parameters.hop_length)
    out = np.empty((len(frames), parameters.n_bins), complex)
    for b, length in enumerate(lengths):
        count = int(length // 2) * 2 + 1
        taps = filters[b, (width - count) // 2 :][:count][::-1]
        taps = taps * (np.sqrt(length) if parameters.scale else length)
        # The filter's first sample is -(length // 2) - 1, and it is applied reversed in time.
        starts = np.asarray(frames) * parameters.hop_length + width - (count // 2 - 1)
        out[:, b] = [taps @ padded[start : start + count] for start in starts]
    return out


def relative_bandwidth(parameters):
    squared = 2 ** (2 / parameters.bins_per_octave)
    return np.full(parameters.n_bins, (squared - 1) / (squared + 1))


def librosas(y, parameters, sample_rate=RATE):
    return librosa.vqt(
        y,
        sr=sample_rate,
        hop_length=parameters.hop_length,
        fmin=parameters.fmin,
        n_bins=parameters.n_bins,
        bins_per_octave=parameters.bins_per_octave,
        gamma=parameters.gamma,
        filter_scale=parameters.filter_scale,
        scale=parameters.scale,
        pad_mode=parameters.pad_mode,
    ).T


def ours(y, parameters, sample_rate=RATE):
    return cqt([y], parameters, sample_rate=sample_rate)[0]


def error(values, truth):
    """RMS error over RMS of the truth."""
    return np.sqrt(np.mean(np.abs(values - truth) ** 2) / np.mean(np.abs(truth) ** 2))


# Side lobes below 4e-5 of a filter's peak are left out: some tens of them either side, incoherent
# in noise, add up to 1e-4 of a band's RMS. Twice that leaves room for other parameters.
OF_NOISE = 2e-4


@pytest.mark.parametrize("pad_mode", ["constant", "reflect", "edge"])
@pytest.mark.parametrize(
    "change",
    [
        {},
        {"scale": False},
        {"gamma": 20.0},
        {"gamma": None},
        {"filter_scale": 0.5},
        {"hop_length": 441},
        {"bins_per_octave": 36, "fmin": 500.0},
        {"bins_per_octave": 5, "n_bins": 22, "fmin": 220.0},
    ],
)
def test_equals_the_direct_sum(noise, change, pad_mode):
    parameters = replace(SMALL, pad_mode=pad_mode, **change)
    y = noise(6000)
    assert error(ours(y, parameters), direct_sum(y, parameters)) < OF_NOISE


def test_librosas_filters_start_where_the_direct_sum_says():
    # A filter of 5 samples, -3 to 1: what `direct_sum` takes from librosa is what this module says.
    parameters = Cqt(hop_length=1, fmin=2000.0, n_bins=2, bins_per_octave=1, filter_scale=0.3)
    length = parameters.lengths(sample_rate=RATE)[0]
    y = np.zeros(33, np.float32)
    y[16] = 1
    m = 16 - np.arange(34)  # where in the frame the impulse is
    count = 2 * (length // 2) + 1
    window = np.where(np.abs(m - 0.5) < count / 2, 1 + np.cos(2 * np.pi * (m - 0.5) / count), 0)
    expected = np.sqrt(length) / count * window * np.exp(-2j * np.pi * 2000 / RATE * m)
    np.testing.assert_allclose(direct_sum(y, parameters)[:, 0], expected, atol=1e-12)


@pytest.mark.parametrize("hop_length", [128, 512])
@pytest.mark.parametrize("kind", ["noise", "chirp"])
def test_is_nearer_to_the_direct_sum_than_librosa(noise, kind, hop_length):
    parameters = Cqt(hop_length, fmin=65.406, n_bins=144, bins_per_octave=24)
    y = noise(2 * RATE)
    if kind == "chirp":
        y = librosa.chirp(fmin=60, fmax=4500, sr=RATE, duration=2).astype(np.float32)
    frames = np.arange(0, 2 * RATE // hop_length, 11)
    truth = direct_sum(y, parameters, frames)
    assert error(ours(y, parameters)[frames], truth) < OF_NOISE
    assert error(librosas(y, parameters)[frames], truth) > 10 * OF_NOISE


@pytest.mark.parametrize(
    "name", ["pyloudnorm__piano.wav", "sampled__bass-clarinet_A2_phrase_mezzo-forte_legato.mp3"]
)
def test_is_nearer_to_the_direct_sum_than_librosa_on_music(corpora, name):
    y, rate = sf.read(corpora / "music" / name, dtype="float32", frames=100_000, always_2d=True)
    y = np.ascontiguousarray(y[:, 0])
    parameters = Cqt(512, fmin=32.703, n_bins=84, bins_per_octave=12)
    frames = np.arange(0, len(y) // 512, 9)
    truth = direct_sum(y, parameters, frames, rate)
    found = error(ours(y, parameters, rate)[frames], truth)
    assert found < OF_NOISE
    assert found < error(librosas(y, parameters, rate)[frames], truth)
    # Also in magnitude, where librosa's phases do not count.
    magnitudes = magnitude([y], parameters, sample_rate=rate)[0][frames]
    theirs = np.abs(librosas(y, parameters, rate)[frames])
    assert error(magnitudes, np.abs(truth)) < error(theirs, np.abs(truth))


def test_magnitude_equals_librosas_with_default_arguments(noise):
    y = noise(3 * RATE)
    fmin = librosa.note_to_hz("C1")
    theirs = np.abs(librosa.cqt(y, sr=RATE, tuning=0.0)).T
    found = magnitude([y], Cqt(512, fmin, 84, 12), sample_rate=RATE)[0]
    assert found.shape == theirs.shape
    # Librosa leaves out 1 % of each filter (`sparsity`), and centres windows half a sample of each
    # octave's own rate off the frame, 0.5 of 97 samples at the top: a few percent together.
    assert error(found, theirs) < 0.03


def test_magnitude_is_that_of_the_transform(noise):
    y = noise(5000)
    x = ours(y, SMALL)
    found = magnitude([y], SMALL, sample_rate=RATE)[0]
    # float32 squares, a sum and a root: an ulp or two.
    np.testing.assert_allclose(found, np.abs(x.astype(np.complex128)), rtol=3e-7)
    squares = power([y], SMALL, sample_rate=RATE)[0]
    np.testing.assert_allclose(squares, found.astype(np.float64) ** 2, rtol=3e-7)
    assert (x.dtype, found.dtype, squares.dtype) == (np.complex64, np.float32, np.float32)


def test_an_impulse_gives_the_filters():
    y = np.zeros(8192, np.float32)
    y[4096] = 1
    truth = direct_sum(y, SMALL)
    # Cut side lobes, coherent here, are all that differs: tens of 4e-5 with alternating signs.
    np.testing.assert_allclose(ours(y, SMALL), truth, atol=3e-4 * np.abs(truth).max())


@pytest.mark.parametrize("b", [0, 17, 40, 83])
def test_a_tone_peaks_at_its_bin(b):
    parameters = Cqt(512, fmin=32.703, n_bins=84, bins_per_octave=12)
    y = np.cos(2 * np.pi * parameters.frequencies()[b] / RATE * np.arange(3 * RATE))
    middle = magnitude([y.astype(np.float32)], parameters, sample_rate=RATE)[0][65]
    assert middle.argmax() == b
    expected = np.sqrt(parameters.lengths(sample_rate=RATE)[b]) / 2
    # The tone's negative frequency is 2 f, or 2 Q = 34 filter widths, away: 1 / (π 34³) = 8e-6.
    np.testing.assert_allclose(middle[b], expected, rtol=5e-5)


@pytest.mark.parametrize("tone", [2205.0, 2400.0, 2756.25, 3300.0])
def test_decimation_leaves_no_alias(tone):
    # Tones about an eighth of the rate, where decimation by 4 could fold them or blocks break them.
    parameters = Cqt(512, fmin=60.0, n_bins=48, bins_per_octave=12)
    y = np.cos(2 * np.pi * tone / RATE * np.arange(80_000)).astype(np.float32)
    frames = np.arange(45, 110, 5)
    difference = np.abs(ours(y, parameters)[frames] - direct_sum(y, parameters, frames))
    # The side lobes that are left out reach 4e-5 of a tone's magnitude.
    assert np.all(difference < 4e-5 * np.sqrt(parameters.lengths(sample_rate=RATE)) / 2)


def test_gamma_widens_low_bands_most():
    constant = SMALL.lengths(sample_rate=RATE)
    variable = replace(SMALL, gamma=20.0).lengths(sample_rate=RATE)
    np.testing.assert_allclose(RATE / variable - RATE / constant, 20)
    for gamma in (0.0, 20.0, None):
        parameters = replace(SMALL, gamma=gamma)
        theirs, _ = librosa.filters.wavelet_lengths(
            freqs=parameters.frequencies(),
            sr=RATE,
            gamma=gamma,
            alpha=relative_bandwidth(parameters),
        )
        np.testing.assert_allclose(parameters.lengths(sample_rate=RATE), theirs, rtol=1e-10)


@pytest.mark.slow
@settings(max_examples=25)
@given(
    n_samples=st.integers(1, 3000),
    hop_length=st.sampled_from([1, 7, 48, 100, 121, 331, 640, 2205, 4096]),
    bins_per_octave=st.sampled_from([3, 12, 24]),
    fmin=st.sampled_from([50.0, 333.3, 1500.0]),
    octaves=st.floats(0.05, 2.5),
    pad_mode=st.sampled_from(["constant", "reflect", "edge"]),
)
def test_any_hop_and_any_length(n_samples, hop_length, bins_per_octave, fmin, octaves, pad_mode):
    n_bins = max(1, int(octaves * bins_per_octave))
    parameters = Cqt(hop_length, fmin, n_bins, bins_per_octave, pad_mode=pad_mode)
    y = np.random.default_rng(n_samples).standard_normal(n_samples).astype(np.float32)
    found = ours(y, parameters)
    assert found.shape == (1 + n_samples // hop_length, n_bins)
    frames = np.unique(np.linspace(0, len(found) - 1, 20).astype(int))
    truth = direct_sum(y, parameters, frames)
    # An `edge` is a constant for as long as a filter, whose side lobes at 0 Hz may be cut: errors
    # are relative to what goes in, with a filter's gain of sqrt(length) at most.
    largest = np.sqrt(parameters.lengths(sample_rate=RATE)) * np.abs(y).max()
    assert np.all(np.abs(found[frames] - truth) < OF_NOISE * largest)


@pytest.mark.parametrize("n_samples", [1, 2, 100, 23_000])
@pytest.mark.parametrize("pad_mode", ["constant", "reflect", "edge"])
def test_signals_shorter_than_the_longest_filter(noise, n_samples, pad_mode):
    parameters = Cqt(512, fmin=32.703, n_bins=168, bins_per_octave=24, pad_mode=pad_mode)
    y = noise(n_samples)
    truth = direct_sum(y, parameters)
    largest = np.sqrt(parameters.lengths(sample_rate=RATE)) * np.abs(y).max()
    assert np.all(np.abs(ours(y, parameters) - truth) < OF_NOISE * largest)


@pytest.mark.slow
@pytest.mark.parametrize("hop_length", [128, 300, 331])
def test_a_signal_has_the_same_bits_alone_and_among_others(noise, hop_length):
    parameters = replace(SMALL, hop_length=hop_length)
    signals = [noise(n, seed=n) for n in (1, 700, 30_000, 11_025, 5, 200_000, 64_000)]
    together = cqt(signals, parameters, sample_rate=RATE)
    for y, found in zip(signals, together, strict=True):
        assert ours(y, parameters).tobytes() == found.tobytes()


def test_signals_are_not_changed(noise):
    y = noise(9000)
    before = y.copy()
    ours(y, SMALL)
    np.testing.assert_array_equal(y, before)


def test_no_signals_give_no_results():
    assert cqt([], SMALL, sample_rate=RATE) == []


# Integers alone make the signal: only the transform could differ.
_HASH = """
import hashlib, numpy as np
from basilar.dsp.cqt import Cqt, cqt, magnitude
n = np.arange(40_000, dtype=np.int64)
y = (((n * 1103515245 + 12345) // 65536 % 2048 - 1024) / 1024).astype(np.float32)
for hop_length, bins_per_octave in ((128, 24), (331, 12)):
    parameters = Cqt(hop_length, 32.703, 7 * bins_per_octave, bins_per_octave)
    for function in (cqt, magnitude):
        values = function([y, y[:777]], parameters, sample_rate=22050)
        print(hashlib.sha256(b"".join(x.tobytes() for x in values)).hexdigest())
"""


@pytest.mark.slow
def test_bits_do_not_depend_on_the_processor():
    from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__

    enabled = [name for name in __cpu_dispatch__ if __cpu_features__[name]]
    if not enabled:
        pytest.skip("this NumPy has nothing to switch off on this processor")

    def hashes(**environment):
        done = subprocess.run(
            [sys.executable, "-c", _HASH],
            cwd=Path(__file__).resolve().parents[2],
            env=os.environ | environment,
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout

    native = hashes()
    assert len(native.split()) == 4
    assert hashes(NPY_DISABLE_CPU_FEATURES=" ".join(enabled), OMP_NUM_THREADS="1") == native


def test_tables_do_not_move():
    """The hash of the matrices: they are made of + - * / alone, so it holds on every machine."""
    found = hashlib.sha256()
    for stage in _stages(Cqt(512, 32.703, 84, 12), RATE):
        bands = stage.bands
        low = () if bands.lowpass is None else (bands.lowpass,)
        for table in (bands.start, *bands.weights, bands.turns, bands.phases, *low):
            found.update(table.tobytes())
    assert found.hexdigest()[:16] == "74c9020c3140a762"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hop_length": 0}, "hop_length: 0 must be 1 or more"),
        ({"n_bins": 0}, "n_bins: 0 must be 1 or more"),
        ({"bins_per_octave": -1}, "bins_per_octave: -1 must be 1 or more"),
        ({"fmin": 0.0}, "fmin: 0.0 must be above 0 and finite"),
        ({"fmin": float("nan")}, "fmin: nan must be above 0"),
        ({"filter_scale": -1.0}, "filter_scale: -1.0 must be above 0"),
        ({"gamma": -1.0}, "gamma: -1.0 must be None or at least 0 Hz"),
        ({"window": "hamming"}, "window: 'hamming' is not one of hann"),
        ({"norm": 2}, "norm: 2 is not one of 1"),
        ({"pad_mode": "wrap"}, "pad_mode: 'wrap' is not one of reflect, symmetric, constant, edge"),
    ],
)
def test_impossible_parameters_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_bins": 96}, "the highest band ends at .* above 11025.0 Hz, half the sample rate"),
        ({"filter_scale": 0.01}, "a filter of 1.9 samples, below 2"),
        (
            {"bins_per_octave": 60_000, "fmin": 2000.0},
            "filters of .* samples at a rate of 1 / .* do not fit",
        ),
    ],
)
def test_impossible_filters_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        cqt([np.zeros(100, np.float32)], replace(SMALL, **change), sample_rate=RATE)


def test_a_signal_without_samples_is_refused():
    with pytest.raises(ValueError, match="a signal of 0 samples has no transform"):
        cqt([np.zeros(0, np.float32)], SMALL, sample_rate=RATE)
