import librosa
import numpy as np
import pytest
import scipy
import soundfile as sf
from hypothesis import given
from hypothesis import strategies as st

from basilar.dsp.framing import Framing
from basilar.dsp.spectral import (
    rms,
    spectral_centroid,
    spectral_rolloff,
    spectral_statistics,
    zero_crossing_rate,
)
from basilar.dsp.stft import over_frames

HALF_ULP = 2.0**-24


def spectrum(y, n_fft=1024):
    magnitude_ft = np.abs(librosa.stft(y, n_fft=n_fft, hop_length=256))
    return magnitude_ft, librosa.fft_frequencies(sr=22050, n_fft=n_fft)


@pytest.mark.parametrize(("n_fft", "hop_length"), [(2048, 512), (400, 160), (1000, 1), (1, 1)])
def test_rms(noise, n_fft, hop_length):
    y = noise(5000)
    frames_tn = Framing(n_fft, hop_length).frames(y)
    ours = rms(frames_tn)
    assert ours.dtype == np.float32
    # A square, and log2(2048) = 11 additions of it, a quotient, a root: at most 14 roundings.
    exact = np.sqrt((frames_tn.astype(np.float64) ** 2).mean(axis=1))
    np.testing.assert_allclose(ours, exact, rtol=14 / 2 * HALF_ULP)
    theirs = librosa.feature.rms(y=y, frame_length=n_fft, hop_length=hop_length)[0]
    # librosa adds one sample after the other: 2048 roundings, of which most cancel.
    np.testing.assert_allclose(ours, theirs[: len(ours)], rtol=1e-5)


@pytest.mark.parametrize(("n_fft", "hop_length"), [(2048, 512), (400, 160), (1, 1)])
def test_zero_crossing_rate(noise, n_fft, hop_length):
    y = noise(5000)
    y[::7] = 0
    y[1::50] = -1e-10  # a zero, in librosa
    y[2::50] = -2e-10
    frames_tn = Framing(n_fft, hop_length, pad_mode="edge").frames(y)
    # librosa 0.11 rounds its threshold, 1e-10, to float32, and so do we; 1.0 does not, and counts
    # -float32(1e-10), which is below -1e-10, as negative. With a rounded one all three are alike.
    theirs = librosa.feature.zero_crossing_rate(
        y, frame_length=n_fft, hop_length=hop_length, threshold=float(np.float32(1e-10))
    )[0]
    ours = zero_crossing_rate(frames_tn)
    assert ours.dtype == np.float32
    # Both count; ours rounds the quotient to float32.
    np.testing.assert_array_equal(ours, theirs[: len(ours)].astype(np.float32))


def test_the_last_value_that_counts_as_zero():
    zero, below = np.float32(-1e-10), np.nextafter(np.float32(-1e-10), np.float32(-1))
    frames_tn = np.array([[1, zero, 1, zero], [1, below, 1, below]], np.float32)
    assert zero_crossing_rate(frames_tn).tolist() == [0, 0.75]


def test_spectral_centroid(noise):
    magnitude_ft, frequencies = spectrum(noise(22050))
    ours = spectral_centroid(magnitude_ft, frequencies=frequencies)
    assert ours.dtype == np.float32
    # Of non-negative values: log2(513) = 10 additions twice, two products, a quotient.
    theirs = librosa.feature.spectral_centroid(S=magnitude_ft.astype(np.float64), sr=22050)[0]
    np.testing.assert_allclose(ours, theirs, rtol=23 / 2 * HALF_ULP)


@pytest.mark.parametrize("roll_percent", [0.01, 0.5, 0.85, 0.99])
def test_spectral_rolloff(noise, roll_percent):
    magnitude_ft, frequencies = spectrum(noise(22050))
    magnitude_ft[:, 3] = 0
    ours = spectral_rolloff(magnitude_ft, frequencies=frequencies, roll_percent=roll_percent)
    theirs = librosa.feature.spectral_rolloff(S=magnitude_ft, sr=22050, roll_percent=roll_percent)
    assert ours.dtype == np.float32
    # The same float32 sums in the same order: the same bins.
    np.testing.assert_array_equal(ours, theirs[0].astype(np.float32))


def test_centroid_and_rolloff_equal_matlabs(corpora):
    folder = corpora / "refs" / "librosa"
    y = sf.read(folder / "test1_22050.wav")[0].mean(axis=1)
    # Not said there, but found: frames of 512 with a symmetric Hamming window, not centred.
    frames_tn = np.lib.stride_tricks.sliding_window_view(y, 512)[::256]
    spectra_tf = np.fft.rfft(frames_tn * scipy.signal.windows.hamming(512))
    magnitude_ft = np.ascontiguousarray(np.abs(spectra_tf).T, np.float32)
    frequencies = np.arange(257) * 22050 / 512
    centroid = scipy.io.loadmat(folder / "met-centroid-001.mat")["centroid"][0]
    ours = spectral_centroid(magnitude_ft, frequencies=frequencies)
    np.testing.assert_allclose(ours, centroid, rtol=23 / 2 * HALF_ULP)
    reference = scipy.io.loadmat(folder / "met-rolloff-001.mat")
    share = float(reference["pct"].item())
    ours = spectral_rolloff(magnitude_ft, frequencies=frequencies, roll_percent=share)
    np.testing.assert_array_equal(ours, reference["rolloff"][0].astype(np.float32))


def test_closed_forms_of_a_square_wave():
    square = np.tile(np.float32([1, 1, -1, -1]), 64)[None]
    assert rms(3 * square).tolist() == [3]
    assert zero_crossing_rate(square).tolist() == [127 / 256]


def test_closed_forms_of_a_flat_spectrum():
    frequencies = np.arange(101) * 10.0
    flat = np.ones((101, 2), np.float32)
    assert spectral_centroid(flat, frequencies=frequencies).tolist() == [500, 500]
    # 25 % of 101 is reached by the 26th bin.
    rolloff = spectral_rolloff(flat, frequencies=frequencies, roll_percent=0.25)
    assert rolloff.tolist() == [250, 250]


@given(scale=st.integers(-40, 40), seed=st.integers(0, 9))
def test_level_scales_rms_alone(scale, seed):
    x = np.random.default_rng(seed).gamma(1.0, 1.0, (33, 5)).astype(np.float32)
    louder = x * np.float32(2.0**scale)  # exact, and its squares stay normal
    frequencies = np.arange(33) * 100.0
    np.testing.assert_array_equal(rms(louder), rms(x) * np.float32(2.0**scale))
    for function in (
        lambda s: spectral_centroid(s, frequencies=frequencies),
        lambda s: spectral_rolloff(s, frequencies=frequencies, roll_percent=0.85),
    ):
        np.testing.assert_array_equal(function(louder), function(x))


@given(frame=st.integers(0, 299), n=st.integers(1, 70))
def test_each_frame_has_the_same_bits_alone(frame, n):
    x = np.random.default_rng(0).standard_normal((300, 70)).astype(np.float32)[:, :n]
    magnitude_ft, frequencies = np.abs(np.ascontiguousarray(x.T)), np.arange(n) * 50.0
    one_ft = magnitude_ft[:, frame : frame + 1]
    for function, whole, one in (
        (rms, x, x[frame : frame + 1]),
        (zero_crossing_rate, x, x[frame : frame + 1]),
        (lambda s: spectral_centroid(s, frequencies=frequencies), magnitude_ft, one_ft),
        (
            lambda s: spectral_rolloff(s, frequencies=frequencies, roll_percent=0.7),
            magnitude_ft,
            one_ft,
        ),
    ):
        assert function(whole)[frame : frame + 1].tobytes() == function(one).tobytes()


@pytest.mark.parametrize("value", [0.0, 1e-45])
def test_silence_is_zero_and_never_nan(value):
    silence = np.full((64, 3), value, np.float32)
    frequencies = np.arange(1, 65) * 100.0
    assert rms(silence.T).tolist() == [0, 0, 0]
    assert zero_crossing_rate(silence.T).tolist() == [0, 0, 0]
    assert spectral_centroid(silence, frequencies=frequencies).tolist() == [0, 0, 0]
    rolloff = spectral_rolloff(silence, frequencies=frequencies, roll_percent=0.85)
    assert rolloff.tolist() == [0, 0, 0]


def test_no_frames_have_no_statistics():
    none_ft = np.zeros((5, 0), np.float32)
    frequencies = np.arange(5) * 1.0
    for result in (
        rms(none_ft.T),
        zero_crossing_rate(none_ft.T),
        spectral_centroid(none_ft, frequencies=frequencies),
        spectral_rolloff(none_ft, frequencies=frequencies, roll_percent=0.85),
    ):
        assert (result.shape, result.dtype) == ((0,), np.float32)


def test_inputs_are_not_changed(noise):
    x = np.abs(noise(300)).reshape(10, 30)
    before = x.copy()
    rms(x)
    zero_crossing_rate(x)
    spectral_centroid(x, frequencies=np.arange(10) * 1.0)
    spectral_rolloff(x, frequencies=np.arange(10) * 1.0, roll_percent=0.5)
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: rms(x[:, :0]), "frames of 0 samples have no statistics"),
        (lambda x: zero_crossing_rate(x[:, :0]), "frames of 0 samples"),
        (lambda x: spectral_centroid(x, frequencies=np.ones(3)), r"shape \(3,\) must be \(4,\)"),
        (
            lambda x: spectral_centroid(x[:0], frequencies=np.ones(0)),
            "one in Hz for each of 1 or more bins",
        ),
        (
            lambda x: spectral_rolloff(x, frequencies=np.ones(4), roll_percent=85),
            "roll_percent: 85 must be a share between 0 and 1",
        ),
    ],
)
def test_impossible_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(np.ones((4, 4), np.float32))


def test_the_representation_puts_the_four_side_by_side(noise):
    framing, hz = Framing(n_fft=256, hop_length=100), np.arange(129) * (8000 / 256)
    signals = [noise(4000), noise(300, 1)]
    found = spectral_statistics(
        signals, sample_rate=8000, framing=framing, roll_percent=0.85, empty=np.empty
    )
    for y, x in zip(signals, found, strict=True):
        frames_tn = framing.frames(y)
        magnitude_ft = over_frames([y], framing, output="magnitude")[0].T
        columns = (
            rms(frames_tn),
            zero_crossing_rate(frames_tn),
            spectral_centroid(magnitude_ft, frequencies=hz),
            spectral_rolloff(magnitude_ft, frequencies=hz, roll_percent=0.85),
        )
        np.testing.assert_array_equal(x, np.stack(columns, axis=1))
