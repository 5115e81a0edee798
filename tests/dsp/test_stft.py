import librosa
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from basilar.dsp.framing import Framing
from basilar.dsp.kernel import twin
from basilar.dsp.stft import over_frames, stft


def test_equals_direct_sum(noise):
    y = noise(300)
    framing = Framing(n_fft=64, hop_length=16, win_length=48)
    frames_tn = framing.frames(y).astype(np.float64) * framing.table
    n = np.arange(64)
    basis = np.exp(-2j * np.pi * np.outer(n, np.arange(33)) / 64)
    # float32 FFT of 64 values of about 0.1: a few ulp of the sum of magnitudes.
    np.testing.assert_allclose(stft([y], framing)[0], frames_tn @ basis, atol=3e-6)


@pytest.mark.parametrize("pad_mode", ["constant", "reflect", "edge"])
@pytest.mark.parametrize(("n_fft", "hop_length", "win_length"), [(512, 128, 512), (400, 160, 320)])
@pytest.mark.parametrize("center", [True, False])
def test_equals_librosa(noise, pad_mode, n_fft, hop_length, win_length, center):
    y = noise(10_000)
    framing = Framing(n_fft, hop_length, win_length, center=center, pad_mode=pad_mode)
    theirs = librosa.stft(
        y,
        n_fft=n_fft,
        hop_length=hop_length,
        win_length=win_length,
        center=center,
        pad_mode=pad_mode,
    )
    # Both are float32 FFTs of windowed float32 frames, whose windows differ by half an ulp:
    # 1e-7 of the largest magnitude, a few times over.
    np.testing.assert_allclose(stft([y], framing)[0], theirs.T, atol=5e-7 * np.abs(theirs).max())


@settings(max_examples=40)
@given(
    lengths=st.lists(st.integers(1, 9000), min_size=1, max_size=6),
    n_fft=st.sampled_from([16, 400, 512, 1024, 2048]),
    hop_length=st.sampled_from([16, 100, 512]),
)
def test_a_signal_has_the_same_bits_alone_and_among_others(lengths, n_fft, hop_length):
    rng = np.random.default_rng(0)
    signals = [rng.standard_normal(n).astype(np.float32) for n in lengths]
    framing = Framing(n_fft, hop_length)
    alone = np.concatenate([stft([y], framing)[0] for y in signals])
    together = np.concatenate(stft(signals, framing))
    assert together.tobytes() == alone.tobytes()


def test_energy_is_kept(noise):
    y = noise(4096)
    framing = Framing(512, 512, window="rectangular", center=False)
    power_tf = np.abs(stft([y], framing)[0].astype(np.complex128)) ** 2
    energy = (2 * power_tf.sum() - power_tf[:, [0, -1]].sum()) / 512
    np.testing.assert_allclose(energy, (y.astype(np.float64) ** 2).sum(), rtol=1e-6)  # Parseval


def test_outputs_are_those_of_the_complex_spectrum(noise):
    y, framing = noise(5000), Framing(400, 160)
    (z,) = stft([y], framing)
    power = z.real * z.real + z.imag * z.imag
    (found,) = over_frames([y], framing)
    assert found.tobytes() == power.tobytes()
    (found,) = over_frames([y], framing, output="magnitude")
    assert found.tobytes() == np.sqrt(power).tobytes()


def test_long_signals_have_the_frames_of_short_ones(noise):
    y, framing = noise(600_000), Framing(512, 200)
    (whole,) = over_frames([y], framing)
    padded = np.pad(y, 256)
    few = over_frames([padded[200 * t : 200 * t + 512] for t in range(0, 3000, 7)], framing.bare)
    assert np.concatenate(few).tobytes() == whole[:3000:7].tobytes()


def test_the_kernel_of_the_environment_computes(noise, monkeypatch):
    y, framing = noise(5000), Framing(400, 160)
    (usual,) = over_frames([y], framing)
    monkeypatch.setenv("BASILAR_KERNEL", "numpy")
    called = []
    run = twin.Plan.run
    monkeypatch.setattr(twin.Plan, "run", lambda *a: called.append(1) or run(*a))
    (found,) = over_frames([y], framing)
    assert called
    assert found.tobytes() == usual.tobytes()


def test_a_signal_without_a_frame_is_refused(noise):
    with pytest.raises(ValueError, match="a signal of 100 samples has no frame of n_fft = 512"):
        stft([noise(100)], Framing(512, 128, center=False))


def test_the_signal_is_not_changed(noise):
    y = noise(1000)
    before = y.copy()
    stft([y], Framing(512, 128, center=False))
    np.testing.assert_array_equal(y, before)
