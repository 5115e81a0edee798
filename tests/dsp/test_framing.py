import numpy as np
import pytest
import scipy
from hypothesis import given
from hypothesis import strategies as st

from basilar.dsp.framing import Framing, pad, window


@pytest.mark.parametrize("kind", ["hann", "hamming", "blackman"])
@pytest.mark.parametrize("periodic", [True, False])
@pytest.mark.parametrize("n", [1, 2, 5, 400, 2048])
def test_window_equals_scipy(kind, periodic, n):
    expected = scipy.signal.get_window(kind, n, fftbins=periodic)
    ours = window(kind, win_length=n, n_fft=n, periodic=periodic)
    # Both are cosines in float64; ours is then rounded to float32 (half an ulp of 1: 6e-8).
    np.testing.assert_allclose(ours, expected, atol=6e-8)


def test_window_is_centred_in_the_frame_and_cannot_be_changed():
    table = window("rectangular", win_length=3, n_fft=8)
    assert table.tolist() == [0, 0, 1, 1, 1, 0, 0, 0]
    with pytest.raises(ValueError, match="read-only"):
        table[0] = 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "han", "win_length": 4, "n_fft": 4}, "'han' is not one of hann, hamming"),
        ({"kind": "hann", "win_length": 5, "n_fft": 4}, "5 samples do not fit into n_fft = 4"),
        ({"kind": "hann", "win_length": 0, "n_fft": 4}, "0 samples do not fit into n_fft = 4"),
    ],
)
def test_window_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        window(**arguments)


@given(
    n_samples=st.integers(1, 60),
    width=st.integers(0, 40),
    mode=st.sampled_from(["reflect", "constant", "edge"]),
)
def test_pad_equals_numpy(n_samples, width, mode):
    y = np.arange(1, n_samples + 1, dtype=np.float32)
    padded = pad(y, width=width, mode=mode)
    np.testing.assert_array_equal(padded, np.pad(y, width, mode=mode))
    assert padded.dtype == np.float32


@given(
    n_samples=st.integers(0, 300),
    n_fft=st.integers(1, 64),
    hop_length=st.integers(1, 80),
    center=st.booleans(),
)
def test_frames_are_counted_and_cut_alike(n_samples, n_fft, hop_length, center):
    framing = Framing(n_fft=n_fft, hop_length=hop_length, center=center)
    count = framing.n_frames(n_samples)
    y = np.arange(1, n_samples + 1, dtype=np.float32)
    if n_samples == 0:
        assert count == 0
        return
    whole = np.pad(y, n_fft // 2) if center else y
    expected = [
        whole[start : start + n_fft] for start in range(0, len(whole) - n_fft + 1, hop_length)
    ]
    assert count == len(expected)
    if expected:
        np.testing.assert_array_equal(framing.frames(y), np.stack(expected))


def test_frames_of_a_strided_signal():
    y = np.arange(20, dtype=np.float32)[::2]
    framing = Framing(n_fft=4, hop_length=2, center=False)
    assert framing.frames(y)[1].tolist() == [4, 6, 8, 10]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_fft": 0, "hop_length": 1}, "n_fft, hop_length: 0, 1 must be 1 sample or more"),
        ({"n_fft": 4, "hop_length": 0}, "must be 1 sample or more"),
        ({"n_fft": 4, "hop_length": 1, "pad_mode": "zero"}, "'zero' is not one of reflect"),
        ({"n_fft": 4, "hop_length": 1, "win_length": 5}, "do not fit"),
    ],
)
def test_framing_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        Framing(**arguments)
